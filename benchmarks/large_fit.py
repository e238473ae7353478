"""Where the time of a large fit goes on one core, step by step, in ms, beside the same arithmetic at OpenBLAS's speed.

    OMP_NUM_THREADS=1 python benchmarks/large_fit.py

PyCoral's SoftmaxRegression benchmark: 1,024 drawn samples of 16 classes in 1,024 dimensions. Processor time, the least
over fits that take turns with the other builds of the kernels and with OpenBLAS.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Callable
from time import process_time
from unittest.mock import patch

import numpy as np

import fieldshot.head.fewshot as head
from fieldshot import FewShotHead
from fieldshot.ops.host import HostRunner, libraries
from fieldshot.ops.kernels import KernelOps
from fieldshot.ops.runner import Runner
from kernel_times import adding_up, kernel_times

ROUNDS, WAYS, SAMPLES, DIM = 40, 16, 1024, 1024

GRAM = "Gram matrix of the residuals, and their products with the offsets"
FACTOR = "its factor, and the last rows of the identity"
NEIGHBOURS = "judging the neighbours"
WHOLE = "the whole fit, with Python"
STEPS = {
    "root, sums, residuals": ("transform", "class_sums", "centre", "residuals"),
    GRAM: ("moment",),
    FACTOR: ("assemble", "cholesky_diagonal", "cholesky_panel", "cholesky_update"),
    "from the factor to weights and held-out scores": (
        *("back", "product_float", "product_double", "gather", "coefficients", "weights", "bias", "held_out"),
    ),
    "temperature": ("temperature",),
    NEIGHBOURS: (NEIGHBOURS,),
}


def steps(runner: Runner, fit: Callable[[], object]) -> dict[str, float]:
    """Seconds of one fit by step."""
    with kernel_times(runner, process_time) as spent:
        neighbours = adding_up(spent, NEIGHBOURS, head.neighbours, process_time)
        with patch.object(head, "neighbours", neighbours):
            adding_up(spent, WHOLE, fit, process_time)()
    return {**{step: sum(spent[part] for part in parts) for step, parts in STEPS.items()}, WHOLE: spent[WHOLE]}


def blas(single: np.ndarray, double: np.ndarray, held_out: int) -> dict[str, float]:
    """Seconds of OpenBLAS for Gram matrix, cosines of the neighbours, and as many operations as the factor has."""
    spent: dict[str, float] = defaultdict(float)
    adding_up(spent, GRAM, lambda: single @ single.T, process_time)()
    adding_up(spent, NEIGHBOURS, lambda: single[:held_out] @ single[:held_out].T, process_time)()
    adding_up(spent, FACTOR, lambda: double @ double[::-1].T, process_time)()
    n, depth = double.shape
    spent[FACTOR] *= (n**3 + held_out**3) / 3 / (2 * n * n * depth)
    return spent


def table() -> list[str]:
    """A line for each step."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(WAYS), SAMPLES // WAYS)
    Z = np.abs(rng.normal(size=(WAYS, DIM))[y] + 3 * rng.normal(size=(len(y), DIM))).astype(np.float32)
    libs = {path.name.partition(".")[0]: ctypes.CDLL(str(path)) for path in libraries()[-2:]}
    builds = {name: KernelOps(HostRunner(lib, "host")) for name, lib in libs.items()}
    single, double = Z / np.linalg.norm(Z, axis=1, keepdims=True), Z.astype(np.float64)
    least: dict[str, dict[str, float]] = {side: {} for side in ("OpenBLAS", *builds)}
    for _ in range(ROUNDS):
        keep(least["OpenBLAS"], blas(single, double, min(head._HELD_OUT, SAMPLES)))
        for name, ops in builds.items():
            with patch.object(head, "find_ops", lambda device, ops=ops: ops):
                keep(least[name], steps(ops.runner, lambda: FewShotHead().fit(Z, y)))
    for name in builds:
        least[name]["the rest"] = least[name][WHOLE] - sum(least[name][step] for step in STEPS)
    rows = [*STEPS, "the rest", WHOLE]
    cells = [[f"{1e3 * side[row]:.1f}" if row in side else "" for side in least.values()] for row in rows]
    return [
        f"| {' | '.join(('ms', *least))} |",
        "|---" * (1 + len(least)) + "|",
        *(f"| {' | '.join((row, *line))} |" for row, line in zip(rows, cells, strict=True)),
    ]


def keep(least: dict[str, float], more: dict[str, float]) -> None:
    """The smaller of each."""
    for name, value in more.items():
        least[name] = min(value, least.get(name, value))


if __name__ == "__main__":
    print("\n".join(table()))
