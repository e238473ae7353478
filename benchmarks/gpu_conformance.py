"""The operations on a CUDA device against the float64 reference, on fresh random numbers.

Whatever a kernel is given to write is NaN beforehand: what it leaves out, or reads too early, shows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fieldshot import FewShotHead
from fieldshot.device import Device
from fieldshot.errors import DeviceError
from fieldshot.ops import Classifier, Ops, Prior, Solution, Support, Transduction
from fieldshot.ops.blocked import fit_blocked
from fieldshot.ops.cuda import CudaCall, CudaOps, CudaRunner
from fieldshot.ops.host import HostOps
from fieldshot.ops.kernels import KernelOps
from gpu_pictures import differing
from problems import REFERENCE, Problem, errors_of, problem

FEW = 64  # samples

# Of tests/kernels/test_conformance.py: classes' counts, dimensions, options.
SHAPES: list[tuple[list[int], int, dict[str, Any]]] = [
    ([1], 7, {}),
    ([1, 1], 1, {}),
    ([1] * 5, 64, {}),
    ([5] * 5, 127, {}),
    ([3, 1, 7], 127, {}),
    ([20, 19], 64, {}),
    ([20, 21], 65, {}),
    ([30, 1, 40], 130, {}),
    ([30, 1, 40], 130, {"keep": 10}),
    ([90, 2, 110], 210, {"keep": 60}),
    ([60, 2, 70], 192, {}),
    ([5, 9], 20, {"keep": 3}),
    ([9, 1], 3, {"moment": True}),
    ([40, 30, 2], 24, {"moment": True}),
    ([50] * 3, 67, {"moment": True, "keep": 10}),
    ([80, 90], 129, {"moment": True, "keep": 5}),
]
LARGE: list[tuple[list[int], int, dict[str, Any]]] = [
    ([5] * 5, 512, {}),
    ([5] * 5, 1280, {}),
    ([84, 85], 512, {}),  # the most that one block holds in 227 KiB is 169
    ([85, 85], 512, {}),
    ([10] * 50, 512, {}),
    ([64] * 16, 1024, {"keep": 32}),
    ([64] * 16, 1024, {}),
    ([100, 100], 64, {"moment": True}),
    ([1] * 600, 96, {"moment": True}),
    ([300] * 7, 33, {"moment": True, "keep": 64}),
    ([20] * 100, 512, {"moment": True, "keep": 20}),
    ([1000] * 20, 512, {"moment": True, "keep": 64}),  # N = 20,000
]


class RunnerOf(CudaRunner):
    """A device's runner whose operations are calls of a given class."""

    def __init__(self, device: Device, kind: type[CudaCall]) -> None:
        super().__init__(device)
        self.kind = kind

    def call(self) -> CudaCall:
        return self.kind(self)


class PoisonedCall(CudaCall):
    """Fills what kernels are to write with 0xFF, which is NaN, on their stream."""

    def scratch(self, dtype: type, *shape: int) -> int:
        return self._poisoned(super().scratch(dtype, *shape), dtype, shape)

    def out(self, dtype: type, *shape: int) -> int:
        return self._poisoned(super().out(dtype, *shape), dtype, shape)

    def _poisoned(self, address: int, dtype: type, shape: tuple[int, ...]) -> int:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.runner.device.cuda.memset_d8_async(address, 0xFF, size, self.space.stream)
        return address


class ApartCall(PoisonedCall):
    """Gives each array an allocation of its own: memcheck sees where allocations end, not where arrays in them do."""

    def __enter__(self) -> CudaCall:
        self._allocations: list[Any] = []
        self._kept: list[np.ndarray] = []  # until their copies are there
        return super().__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        for allocation in self._allocations:
            allocation.free()
        return super().__exit__(*raised)

    def put(self, array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        self._kept.append(np.ascontiguousarray(array))
        address = self._allocated(array.nbytes)
        self.runner.device.cuda.memcpy_htod_async(address, self._kept[-1], self.space.stream)
        return address

    def held(self, loaded: Any) -> tuple[int, ...]:
        return tuple(self.put(array) for array in loaded._arrays)

    def scratch(self, dtype: type, *shape: int) -> int:
        return self._poisoned(self._allocated(math.prod(shape) * np.dtype(dtype).itemsize), dtype, shape)

    def out(self, dtype: type, *shape: int) -> int:
        array: np.ndarray = np.empty(shape, dtype)
        self._results.append((self._allocated(array.nbytes), array))
        return self._poisoned(self._results[-1][0], dtype, shape)

    def inout(self, array: np.ndarray) -> int:
        self._results.append((self.put(array), array.copy()))
        return self._results[-1][0]

    def fetch(self) -> list[np.ndarray]:
        self.space.stream.synchronize()
        for address, array in self._results:
            self.runner.device.cuda.memcpy_dtoh(array, address)
        return [array for _, array in self._results]

    def _allocated(self, size: int) -> int:
        self._allocations.append(self.runner.device.allocate(size))
        return int(self._allocations[-1])


class BlockedOps(KernelOps):
    """Every fit by blocks, however few its samples: the kernels that a small fit does without."""

    def fit(self, support: Support, prior: Prior) -> Solution:
        return fit_blocked(self.runner, support, prior)


def problems_of(seed: int, quick: bool) -> Iterator[tuple[str, Problem]]:
    """The shapes above, and random ones, all with random numbers of this seed."""
    rng = np.random.default_rng(seed)
    shapes = [*SHAPES, *([] if quick else LARGE)]
    for _ in range(2 if quick else 40):
        counts = rng.integers(1, 13, rng.integers(1, 8)).tolist()
        D = int(rng.integers(1, 91))
        shapes.append((counts, D, {"moment": True} if sum(counts) > D or rng.random() < 0.5 else {}))
    for counts, D, options in shapes:
        alike = f"{len(counts)} x {counts[0]}" if len(set(counts)) == 1 else str(counts)
        name = ", ".join([alike, f"D = {D}", *(f"{key} {value}" for key, value in options.items())])
        yield name, problem(counts, D, seed=int(rng.integers(2**31)), **options)


def bias_share(given: Problem) -> float:
    """How much more the largest bias may be off than the largest weight, each as a share of itself.

    A bias holds weights . centre, all of whose terms may be off the same way. With few samples the weights are much
    closer than they must be, and this grants nothing.
    """
    if given.support.moment is not None or len(given.support.U) <= FEW:
        return 1.0
    solution = REFERENCE.fit(given.support, given.prior)
    centre = (given.support.sums / given.support.counts[:, None]).mean(axis=0)
    return float(np.abs(solution.weights).max() * np.abs(centre).sum() / np.abs(solution.bias).max())


def answers(ops: Ops, given: Problem) -> bytes:
    """All that the operations give for a problem, bit by bit."""
    U, sums = ops.absorb(given.Z, given.starts)
    solution = ops.fit(given.support, given.prior)
    prediction = ops.predict(ops.load(Classifier(*solution[:4])), given.Z, top=3, cosines=True)
    rule = Transduction(solution.temperature, 0.2, 10)
    adapted = ops.adapt(U[::2].copy(), prediction.probabilities[::2], given.support, given.prior, rule)
    return b"".join(np.asarray(array).tobytes() for array in (U, sums, ops.moment(U), *solution, *prediction, *adapted))


def worst_of(ops: Ops, problems: list[tuple[str, Problem]], tolerance: float) -> dict[str, dict[str, Any]]:
    """Of each quantity the error that comes nearest to its tolerance, or passes it by most."""
    worst: dict[str, dict[str, Any]] = {}
    for name, given in problems:
        wide = tolerance * bias_share(given)
        try:
            errors = errors_of(ops, given)
        except AssertionError as error:  # NaN where a number should be, as of what was never written; or the reverse
            print(f"{name}: {error}")
            errors = {"what is finite": math.inf}
        for quantity, error in errors.items():
            share = wide if quantity.endswith("bias") else tolerance
            before = worst.get(quantity)
            if before is None or error * before["tolerance"] > before["error"] * share:
                worst[quantity] = {"error": error, "tolerance": share, "problem": name}
    return worst


def disagreement(seed: int) -> str | None:
    """Two threads predict with one head at once: how their answers differ from those of one after the other."""
    given = problem([6] * 7, 96, seed=seed)
    head = FewShotHead(device="cuda").fit(given.Z, np.repeat(np.arange(7), 6))
    batches = [given.Z[:9], given.Z[9:]]
    expected = [head.predict_proba(batch) for batch in batches]
    wrong: list[str] = []

    def ask(batch: np.ndarray, probabilities: np.ndarray) -> None:
        try:
            for _ in range(50):
                if head.predict_proba(batch).tobytes() != probabilities.tobytes():
                    wrong.append("other bits")
        except Exception as error:  # a thread's exception would end with it
            wrong.append(str(error))

    threads = [threading.Thread(target=ask, args=both) for both in zip(batches, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{len(wrong)} of 100 predictions: {wrong[0]}" if wrong else None


def check(results: Any, *, quick: bool, tolerance: float, apart: bool) -> None:
    """Compare all, and add the figures to `results`."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    problems = list(problems_of(seed, quick))
    device = CudaOps().runner.device
    kind = ApartCall if apart else PoisonedCall
    sides: dict[str, Callable[[], Ops]] = {
        "cuda": lambda: KernelOps(RunnerOf(device, kind)),
        "cuda, all by blocks": lambda: BlockedOps(RunnerOf(device, kind)),
        "host": HostOps,
    }
    figures = results.figures["conformance"] = {"seed": seed, "problems": len(problems), "errors": {}}
    for side, make in sides.items():
        with results.part(f"conformance of {side}"):
            try:
                ops = make()
            except DeviceError as error:
                if side != "host":
                    raise
                results.skip("conformance of host", str(error))
                continue
            worst = figures["errors"][side] = worst_of(ops, problems, tolerance)
            results.table(
                ["quantity", "largest error", "tolerance", "of"],
                [[name, f"{w['error']:.1e}", f"{w['tolerance']:.1e}", w["problem"]] for name, w in worst.items()],
            )
            wrong = [name for name, w in worst.items() if not w["error"] < w["tolerance"]]
            if wrong:
                results.fail(f"conformance of {side}", f"past the tolerance: {', '.join(wrong)}")
    figures["pictures_agree"] = {}
    for side in figures["errors"].keys() & {"cuda", "host"}:
        with results.part(f"preprocessing on {side}, against Pillow"):
            different = differing(sides[side](), seed, quick=quick)
            if different:
                results.fail(f"preprocessing on {side}", f"other bits than Pillow's: {'; '.join(different)}")
            figures["pictures_agree"][side] = not different
    with results.part("the same bits twice"):
        runner = RunnerOf(device, kind)
        different = [
            f"{name} ({type(ops).__name__})"
            for ops in (KernelOps(runner), BlockedOps(runner))
            for name, given in problems
            if answers(ops, given) != answers(ops, given)
        ]
        if different:
            results.fail("the same bits twice", f"differ for {'; '.join(different)}")
        figures["same_bits"] = not different
    with results.part("two threads on one head"):
        found = disagreement(seed)
        if found:
            results.fail("two threads on one head", found)
        figures["threads_agree"] = found is None
