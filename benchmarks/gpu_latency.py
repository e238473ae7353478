"""Latencies of the operations on a CUDA device, in turn with the CPU's, torch's and CuPy's, and the floor of each.

N samples, M held-out samples, D embedding dimension, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from fieldshot import FewShotHead
from fieldshot.ops import Classifier, Ops, ReferenceOps, Support, Transduction, find_ops
from fieldshot.ops.kernels import KernelOps, launch_moment
from gpu_conformance import RunnerOf
from gpu_pictures import case as preprocess_case
from gpu_timing import Case, Floor, TimedCall, Timer, timed
from problems import Problem, distance, problem

KERNELS = "fieldshot cuda, kernels alone"


class Bench:
    """The operations to time, and the cases of which each is one method."""

    def __init__(self, results: Any, *, quick: bool) -> None:
        self.results, self.quick, self.random = results, quick, np.random.default_rng(0)
        self.timer = Timer(find_ops("cuda").runner.device)
        runner = RunnerOf(self.timer.device, TimedCall)
        runner.timer = self.timer
        self.timed = KernelOps(runner)
        self.devices = ["cuda", *(["host"] if self._host_is_there() else [])]
        usable = self._library("torch", lambda torch: torch.cuda.is_available())
        self.baselines = import_module("gpu_baselines") if usable else None  # imports torch
        self.cupy = self._library("cupy", lambda cupy: cupy.cuda.is_available())

    def _host_is_there(self) -> bool:
        try:
            return bool(find_ops("host"))
        except Exception as error:
            self.results.skip("latencies of host", str(error))
            return False

    def _library(self, name: str, usable: Callable[[Any], bool]) -> Any:
        try:
            module = import_module(name)
            if usable(module):
                return module
            reason = f"{name} {module.__version__} sees no CUDA device"
        except Exception as error:
            reason = str(error)
        self.results.skip(f"latencies of {name}", reason)
        return None

    def kernels(self, work: Callable[[Ops], object]) -> Callable[[], float]:
        """A side that times only what the device does."""

        def side() -> float:
            self.timer.reset()
            work(self.timed)
            return self.timer.taken_ms

        return side

    def operations(self, work: Callable[[Ops], object]) -> dict[str, Callable[[], object]]:
        """The same work on each device's operations, and the kernels alone."""
        sides: dict[str, Callable[[], object]] = {KERNELS: self.kernels(work)}
        for device in self.devices:
            sides[f"fieldshot {device}, operations"] = partial(work, find_ops(device))
        return sides

    def heads(self, work: Callable[[str], Callable[[], object]]) -> dict[str, Callable[[], object]]:
        """The same work through the public head of each device."""
        return {f"fieldshot {device}, FewShotHead": work(device) for device in self.devices}

    def beside(self, library: str, make: Callable[[], dict[str, Callable[[], object]]]) -> dict[str, Any]:
        """Sides of a library; where it fails the case goes on without them."""
        try:
            return make()
        except Exception as error:
            self.results.skip(f"latencies of {library} in one case", repr(error)[:300])
            return {}

    def given(self, ways: int, shots: int, D: int) -> tuple[Problem, np.ndarray]:
        return problem([shots] * ways, D, seed=int(self.random.integers(2**31))), np.repeat(np.arange(ways), shots)

    def fit(self, ways: int, shots: int, D: int, *, compiled: bool = False) -> Case:
        (given, y), N = self.given(ways, shots, D), ways * shots
        sides = {
            **self.heads(lambda device: lambda: FewShotHead(device=device).fit(given.Z, y)),
            **self.operations(lambda ops: (ops.absorb(given.Z, given.starts), ops.fit(given.support, given.prior))),
        }
        if self.baselines:
            sides |= self.beside("torch", lambda: self.baselines.fit_sides(given, compiled=compiled))
        # The Gram matrix; products with means and of the weights; factor and inverse.
        operations = N * N * D + 4 * N * ways * D + 2 / 3 * N**3
        moved = 4 * D * (N + 2 * ways)
        return Case(f"fit, {ways}-way {shots}-shot, D = {D}", sides, Floor(moved, moved, operations))

    def large_fit(self, ways: int, shots: int, D: int) -> Case:
        Z = self.random.gamma(2.0, size=(ways * shots, D)).astype(np.float32)
        y = np.repeat(np.arange(ways), shots)
        keep = max(2, min(64, -(-512 // ways), shots))
        starts = np.arange(0, ways * shots + 1, shots, dtype=np.int32)
        ops = find_ops("cuda")
        U, sums = ops.absorb(Z, starts)
        kept = np.concatenate([U[first : first + keep] for first in starts[:-1]])
        kept_starts = np.arange(0, ways * keep + 1, keep, dtype=np.int32)
        support = Support(kept, kept_starts, np.full(ways, float(shots)), sums, ops.moment(U))
        prior = problem([1], D).prior
        sides = {
            **self.heads(lambda device: lambda: FewShotHead(device=device).fit(Z, y)),
            **self.operations(lambda ops: ops.fit(support, prior)),
        }
        M = ways * keep
        operations = D**3 / 3 + (ways + M) * D**2 + 4 * M * ways * D
        moved = 8 * D * D + 4 * D * (M + 4 * ways)
        name = f"fit, {ways}-way {shots}-shot, D = {D} (operations: from statistics, {M} held out)"
        return Case(name, sides, Floor(moved, moved, operations))

    def predict(self, ways: int, queries: int, D: int) -> Case:
        given, y = self.given(ways, 5, D)
        Z = self.random.gamma(2.0, size=(queries, D)).astype(np.float32)
        classifier = Classifier(*ReferenceOps().fit(given.support, given.prior)[:4])
        loaded: dict[int, Any] = {}

        def work(ops: Ops) -> object:
            if id(ops) not in loaded:
                loaded[id(ops)] = ops.load(classifier)
            return ops.predict(loaded[id(ops)], Z)

        def of_head(device: str) -> Callable[[], object]:
            head = FewShotHead(device=device).fit(given.Z, y)
            return lambda: head.predict(Z)

        sides = {**self.heads(of_head), **self.operations(work)}
        if self.baselines:
            sides |= self.beside("torch", lambda: self.baselines.predict_sides(classifier, Z))
        if self.cupy:
            sides |= self.beside("cupy", lambda: cupy_sides(self.cupy, classifier, Z))
        link = 4 * queries * (D + 4 * ways + 1)
        floor = Floor(link + 4 * ways * D, link, 2 * queries * ways * D)
        return Case(f"predict, {queries} queries, {ways} classes, D = {D}", sides, floor)

    def adapt(self, ways: int, shots: int, queries: int, D: int) -> Case:
        (given, y), N = self.given(ways, shots, D), ways * shots
        Z = self.random.gamma(2.0, size=(queries, D)).astype(np.float32)
        U, _ = ReferenceOps().absorb(Z, np.array([0, queries], np.int32))
        solution = ReferenceOps().fit(given.support, given.prior)
        rule = Transduction(solution.temperature, 0.2, 10)
        fitted = {device: FewShotHead(device=device).fit(given.Z, y) for device in self.devices}
        shares = ReferenceOps().predict(Classifier(*solution[:4]), Z).probabilities
        state = (U, shares, given.support, given.prior, rule)
        sides = {
            **self.heads(lambda device: lambda: fitted[device].adapt(Z)),
            **self.operations(lambda ops: ops.adapt(*state)),
        }
        if self.baselines:
            sides |= self.beside("torch", lambda: self.baselines.adapt_sides(*state))
        operations = rule.steps * (4 * queries * ways * D + 4 * ways * N * D) + N * N * D + N**3 / 3
        moved = 4 * D * (queries + N + 2 * ways)
        return Case(
            f"adapt, {ways}-way {shots}-shot, {queries} queries, D = {D}", sides, Floor(moved, moved, operations)
        )

    def moment(self, N: int, D: int) -> Case:
        N = int(min(N, self.timer.device.memory_bytes // 4 // (4 * D))) // 4 * 4
        part = self.random.random((N // 4, D), np.float32)
        expected = 4 * ReferenceOps().moment(part)
        U = np.concatenate([part] * 4)
        cuda, runner = self.timer.device.cuda, self.timed.runner
        with self.timer.device.current():
            resident = self.timer.allocate(U.nbytes)
            cuda.memcpy_htod(resident, U)

        def kernels() -> float:
            """The launches of `KernelOps.moment`, on features that are on the device."""
            self.timer.reset()
            with runner.call() as call:
                launch_moment(runner, call, resident, None, N, D)
                (found,) = call.fetch()
            error = distance(found, expected)
            if not error < 2e-5:
                raise ArithmeticError(f"moment of features on the device must be within 2e-5 (got {error:.1e})")
            return self.timer.taken_ms

        sides = {name: side for name, side in self.operations(lambda ops: ops.moment(U)).items() if name != KERNELS}
        sides[f"{KERNELS}, features on the device"] = kernels
        if self.baselines:
            sides |= self.beside("torch", lambda: self.baselines.moment_sides(U))
        floor = Floor(U.nbytes + 8 * D * D, U.nbytes + 8 * D * D, N * D * (D + 1))
        return Case(f"second moment, {N} x {D}", sides, floor)


def cupy_sides(cupy: Any, classifier: Classifier, Z: np.ndarray) -> dict[str, Callable[[], object]]:
    """The work of `predict` in CuPy."""
    weights, bias, on_device = (cupy.asarray(array) for array in (classifier.weights, classifier.bias, Z))

    def there() -> None:
        array_predict(cupy, on_device, weights, bias, classifier.temperature)
        cupy.cuda.get_current_stream().synchronize()

    def both_ways() -> list[np.ndarray]:
        answers = array_predict(cupy, cupy.asarray(Z), weights, bias, classifier.temperature)
        return [cupy.asnumpy(array) for array in answers]

    return {"cupy, from and to the host": both_ways, "cupy, on the device": there}


def array_predict(xp: Any, Z: Any, weights: Any, bias: Any, scale: float) -> tuple[Any, Any, Any]:
    """Logits, probabilities and the best class, in NumPy or what is written like it."""
    size = xp.abs(Z)
    U = xp.copysign(xp.sqrt(size / size.sum(axis=1, keepdims=True)), Z)
    logits = scale * (U @ weights.T + bias)
    exps = xp.exp(logits - logits.max(axis=1, keepdims=True))
    return logits, exps / exps.sum(axis=1, keepdims=True), logits.argmax(axis=1)


def cases_of(bench: Bench) -> list[Callable[[], Case]]:
    """What is timed; small and few where the walk is quick."""
    if bench.quick:
        return [
            lambda: bench.fit(2, 1, 16),
            lambda: bench.fit(2, 3, 16),
            lambda: bench.large_fit(2, 12, 8),
            lambda: bench.predict(3, 2, 16),
            lambda: bench.adapt(2, 2, 3, 16),
            lambda: bench.moment(400, 16),
            lambda: preprocess_case(bench, 2, 40, 60, 16, "bilinear", bench.random),
        ]
    fits = [(5, 1, 512), (50, 10, 512), (5, 5, 1280)]
    predictions = [(ways, queries, 512) for ways in (5, 100) for queries in (1, 8, 256)]
    return [
        lambda: bench.fit(5, 5, 512, compiled=True),  # the others not: it takes torch half a minute each
        *(partial(bench.fit, *shape) for shape in fits),
        *(partial(bench.predict, *shape) for shape in predictions),
        lambda: bench.adapt(5, 5, 75, 512),
        lambda: bench.large_fit(100, 1000, 512),
        lambda: bench.moment(1_000_000, 512),
        *(partial(preprocess_case, bench, count, 1080, 1920, 224, "bilinear", bench.random) for count in (1, 8, 32)),
        partial(preprocess_case, bench, 1, 1080, 1920, 224, "bicubic", bench.random),
    ]


def check(results: Any, *, quick: bool) -> None:
    """Time all, and add the figures to `results`."""
    bench = Bench(results, quick=quick)
    timer = bench.timer
    figures = results.figures["latency"] = {
        "copy_bytes_per_second": timer.copy_rate,
        "link_bytes_per_second": timer.link_rate,
        "float_operations_per_second": timer.float_rate,
        "cases": [],
    }
    print(
        f"device copies {timer.copy_rate / 1e9:.0f} GB/s, read and written; the link {timer.link_rate / 1e9:.1f} GB/s; "
        f"{timer.float_rate / 1e12:.1f} float32 TFLOP/s by lanes and clock. Kernels alone: in a stream held up till "
        "all were launched, inputs fresh from the host, all else out of the caches."
    )
    cases = cases_of(bench)
    try:
        for i, make in enumerate(cases):
            with results.part(f"latency, case {i + 1} of {len(cases)}"):
                figures["cases"].append(timed(make(), timer, results, 2 if quick else 200))
    finally:
        timer.close()
