"""The operations as launches of kernels, the same on every build of them.

A `Runner` knows one build: how numbers get to its memory and back, and how a kernel is started. `KernelOps` knows
which kernels make an operation, on which shapes. N samples, M held-out or unlabelled samples, D embedding dimension,
K classes.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fieldshot.ops.interface import (
    Classifier,
    Float32,
    Float64,
    Index,
    Prediction,
    Prior,
    Solution,
    Support,
    Transduction,
)

__all__ = ["Call", "KernelOps", "Runner"]

_TILE = 64  # kernels/tile.cuh
_RIGHT = 4  # kernels/solution.cu: rows that a block of `back` keeps in shared memory
_QUERIES = 4  # kernels/predict.cu
_CHUNK_BYTES = 1 << 26  # embeddings that are on their way at once


class Call(Protocol):
    """One operation under way: its arrays and launches. Addresses hold until its `with` block ends."""

    def __enter__(self) -> Call: ...

    def __exit__(self, *raised: Any) -> bool | None: ...

    def put(self, array: NDArray[Any] | None) -> int | None:
        """Address of a copy of the array, or of itself, for kernels to read."""
        ...

    def held(self, loaded: Any) -> tuple[int, ...]:
        """Addresses of weights, bias and prototypes that `Runner.load` keeps."""
        ...

    def scratch(self, dtype: type, *shape: int) -> int:
        """Address of memory that is gone after the call."""
        ...

    def out(self, dtype: type, *shape: int) -> int:
        """Address of an array that `fetch` gives."""
        ...

    def inout(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array that kernels may change and `fetch` gives."""
        ...

    def launch(self, kernel: str, tasks: int, shared: int = 0, **fields: int | float | None) -> None:
        """Start a kernel that deals `tasks` to its blocks, with `shared` bytes of shared memory."""
        ...

    def fetch(self) -> list[NDArray[Any]]:
        """Wait, and give what `out` and `inout` named, in their order."""
        ...


class Runner(Protocol):
    """One build of the kernels.

    about : what runs, in words for a person.
    shared_bytes : what a block may have of shared memory.
    warps : rows that a block of a row-wise kernel works on at once.
    """

    name: str
    about: str
    shared_bytes: int
    warps: int

    def slices(self, samples: int, tiles: int) -> int:
        """Into how many slices a sum over samples is split, beside so many tiles, for work enough."""
        ...

    def call(self) -> Call:
        """Start an operation."""
        ...

    def load(self, classifier: Classifier) -> Any:
        """Keep a classifier's arrays for as long as what is returned lives; it is for `Call.held`."""
        ...


class KernelOps:
    """`fieldshot.ops.Ops` by kernels.

    Parameters
    ----------
    runner : Runner
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.name = runner.name
        self.about = runner.about

    def absorb(self, Z: Any, starts: Index) -> tuple[Float32, Float64]:
        """Transform embeddings and add up each class's: (N, D) any float -> (N, D) float32, (K, D) float64."""
        Z = _float32(Z)
        rows = max(1, _CHUNK_BYTES // (4 * Z.shape[1]))
        if len(Z) <= rows:
            return self._absorb(Z, starts)
        U, sums = np.empty_like(Z), np.zeros((len(starts) - 1, Z.shape[1]))
        for first in range(0, len(Z), rows):
            part = np.clip(starts - first, 0, min(rows, len(Z) - first)).astype(np.int32)
            U[first : first + rows], more = self._absorb(Z[first : first + rows], part)
            sums += more
        return U, sums

    def _absorb(self, Z: Float32, starts: Index) -> tuple[Float32, Float64]:
        (N, D), K = Z.shape, len(starts) - 1
        with self.runner.call() as call:
            U = call.out(np.float32, N, D)
            call.launch("transform", -(-N // self.runner.warps), Z=call.put(Z), U=U, N=N, D=D)
            sums = call.out(np.float64, K, D)
            call.launch("class_sums", K * -(-D // 32), U=U, starts=call.put(starts), sums=sums, D=D, K=K)
            U_out, sums_out = call.fetch()
        return U_out, sums_out

    def moment(self, U: Float32, before: Float64 | None = None) -> Float64:
        """Second moment ``before + U.T @ U``: (N, D) -> (D, D)."""
        D = U.shape[1]
        rows = max(1, _CHUNK_BYTES // (4 * D))
        tiles = -(-D // _TILE) * (-(-D // _TILE) + 1) // 2
        for first in range(0, max(len(U), 1), rows):
            part = np.ascontiguousarray(U[first : first + rows])
            slices = self.runner.slices(len(part), tiles)
            with self.runner.call() as call:
                fields: dict[str, Any] = {
                    "U": call.put(part),
                    "before": call.put(before),
                    "partial": call.scratch(np.float64, slices, D, D),
                    "moment": call.out(np.float64, D, D),
                    "N": len(part),
                    "D": D,
                    "slices": slices,
                }
                call.launch("moment", tiles * slices, **fields)
                call.launch("moment_reduce", -(-D // self.runner.warps), **fields)
                (before,) = call.fetch()
        assert before is not None
        return before

    def fit(self, support: Support, prior: Prior) -> Solution:
        """Fine-tune: one launch where all fits into shared memory, else the blocked solution."""
        (N, D), K = support.U.shape, len(support.counts)
        if support.moment is None and self.runner.shared_bytes >= 8 * N * (N + 1):
            return self._fit_small(support, prior, N, D, K)
        return self._fit_large(support, prior)

    def _fit_small(self, support: Support, prior: Prior, N: int, D: int, K: int) -> Solution:
        with self.runner.call() as call:
            double, single = np.float64, np.float32
            call.launch(
                "fit",
                1,
                8 * N * (N + 1),
                U=call.put(support.U),
                index=call.put(support.index),
                starts=call.put(support.starts),
                weights=call.out(single, K, D),
                bias=call.out(single, K),
                prototypes=call.out(single, K, D),
                temperature=call.out(double, 1),
                known=call.out(double, N),
                unknown=call.out(double, N),
                counts=call.scratch(double, K),
                cross=call.scratch(double, N, K),
                right=call.scratch(double, N, K),
                half=call.scratch(double, N, K),
                projected=call.scratch(double, N, K),
                means=call.scratch(double, K, K),
                between=call.scratch(double, K, K),
                squares=call.scratch(double, N),
                leverage=call.scratch(double, N),
                sample_centre=call.scratch(double, N),
                class_centre=call.scratch(double, K),
                coefficients=call.scratch(single, K, N),
                held_out=call.scratch(single, N, K),
                mean_prior=prior.mean,
                covariance_prior=prior.covariance,
                spread=prior.spread,
                spread_weight=prior.spread_weight,
                temperature_prior=prior.temperature,
                temperature_weight=prior.temperature_weight,
                N=N,
                D=D,
                K=K,
            )
            weights, bias, prototypes, temperature, known, unknown = call.fetch()
        return Solution(weights, bias, prototypes, float(temperature[0]), known, unknown)

    def _fit_large(self, support: Support, prior: Prior) -> Solution:
        (M, D), K = support.U.shape, len(support.counts)
        double, single = np.float64, np.float32
        with self.runner.call() as call:
            large = _Large(self.runner, call, support, prior)
            weights = call.out(single, K, D)
            bias = call.out(single, K)
            temperature, known, unknown = call.out(double, 1), call.out(double, M), call.out(double, M)

            cross, means = call.scratch(double, M, K), call.scratch(double, K, K)
            large.product("float", large.U, large.means, cross, M, K, D)
            large.product("float", large.means, large.means, means, K, K, D)
            n = large.factored(right=True)
            forward = large.row(n)  # rows n to n + K of the system: offsets; those after them: samples, or the identity
            solved = call.scratch(double, K, n)
            call.launch("back", -(-K // _RIGHT), 8 * n * _RIGHT, system=large.system, solved=solved, n=n, K=K)
            projected, leverage = call.scratch(double, M, K), call.scratch(double, M)
            between, half = call.scratch(double, K, K), call.scratch(double, K, K)
            if large.dual:
                large.product("float", large.offsets, large.offsets, between, K, K, D)
                large.product("double", forward, forward, half, K, K, n)
            else:
                large.product("double", forward, forward, between, K, K, n)
                large.product("double", large.row(n + K), forward, projected, M, K, n)
            call.launch(
                "gather",
                -(-max(M, K) // self.runner.warps),
                system=large.system,
                solved=solved,
                projected=projected,
                leverage=leverage,
                between=between,
                half=half,
                ridge=large.ridge,
                n=n,
                M=M,
                K=K,
                dual=int(large.dual),
            )
            head: dict[str, Any] = {
                "U": large.U,
                "index": large.index,
                "solved": solved,
                "coefficients": call.scratch(single, K, M) if large.dual else None,
                "counts": large.counts,
                "between": between,
                "centre": large.centre,
                "weights": weights,
                "bias": bias,
                "scale": large.scale,
                "ridge": large.ridge,
                "mean_prior": prior.mean,
                "N": M,
                "D": D,
                "K": K,
                "dual": int(large.dual),
            }
            if large.dual:
                call.launch("coefficients", -(-K // self.runner.warps), **head)
            call.launch("weights", -(-K // 4) * -(-D // 256) if large.dual else K, **head)
            call.launch("bias", -(-K // self.runner.warps), **head)
            held_out = call.scratch(single, M, K)
            call.launch(
                "held_out",
                -(-M // self.runner.warps),
                index=large.index,
                counts=large.counts,
                cross=cross,
                squares=large.squares,
                means=means,
                projected=projected,
                leverage=leverage,
                between=between,
                held_out=held_out,
                known=known,
                unknown=unknown,
                scale=large.scale - 1.0,
                mean_prior=prior.mean,
                M=M,
                K=K,
            )
            call.launch(
                "temperature",
                1,
                held_out=held_out,
                index=large.index,
                starts=call.put(support.starts),
                counts=large.counts,
                temperature=temperature,
                prior=prior.temperature,
                prior_weight=prior.temperature_weight,
                M=M,
                K=K,
            )
            prototypes_out, weights_out, bias_out, temperature_out, known_out, unknown_out = call.fetch()
        return Solution(weights_out, bias_out, prototypes_out, float(temperature_out[0]), known_out, unknown_out)

    def load(self, classifier: Classifier) -> Any:
        """Put a classifier where it will be used."""
        return self.runner.load(classifier), classifier.temperature, classifier.weights.shape

    def predict(self, loaded: Any, Z: Any, *, top: int = 1, cosines: bool = False) -> Prediction:
        """Transform embeddings (N, D) and answer, with the `top` best classes each: one launch for a batch."""
        held, temperature, (K, D) = loaded
        Z, top = _float32(Z), min(top, K)
        rows = max(1, _CHUNK_BYTES // (4 * D + 24 * K))
        if len(Z) > rows:
            parts = [self.predict(loaded, Z[i : i + rows], top=top, cosines=cosines) for i in range(0, len(Z), rows)]
            return Prediction(
                np.concatenate([part.logits for part in parts]),
                np.concatenate([part.probabilities for part in parts]),
                np.concatenate([part.best for part in parts]),
                np.concatenate([part.cosines for part in parts if part.cosines is not None]) if cosines else None,
            )
        N = len(Z)
        with self.runner.call() as call:
            weights, bias, prototypes = call.held(held)
            call.launch(
                "predict",
                -(-N // _QUERIES),
                4 * _QUERIES * D,
                Z=call.put(Z),
                weights=weights,
                bias=bias,
                prototypes=prototypes,
                logits=call.out(np.float64, N, K),
                probabilities=call.out(np.float64, N, K),
                best=call.out(np.int32, N, top),
                cosines=call.out(np.float64, N, K) if cosines else None,
                scale=temperature,
                N=N,
                D=D,
                K=K,
                top=top,
            )
            logits, probabilities, best, *nearness = call.fetch()
        return Prediction(logits, probabilities, best, nearness[0] if cosines else None)

    def adapt(
        self,
        unlabelled: Float32,
        weights: Float32,
        bias: Float32,
        support: Support,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples (M, D) pull the class means: new weights (K, D) and bias (K,)."""
        (M, D), K = unlabelled.shape, len(support.counts)
        double, single = np.float64, np.float32
        with self.runner.call() as call:
            large = _Large(self.runner, call, support, prior)
            n = large.factored(right=False)
            inverse = call.scratch(double, n, n)
            rows = large.row(n)  # L^-T
            large.product("double", rows, rows, inverse, n, n, n)
            call.launch(
                "adapt",
                1,
                queries=call.put(unlabelled),
                residuals=large.residuals if large.dual else None,
                inverse=inverse,
                counts=large.counts,
                sums=large.sums,
                weights=call.inout(weights),
                bias=call.inout(bias),
                share=call.scratch(double, M, K),
                soft_counts=call.scratch(double, K),
                means=call.scratch(single, K, D),
                offsets=call.scratch(single, K, D),
                centre=call.scratch(double, D),
                products=call.scratch(double, K, n),
                solved=call.scratch(double, K, n),
                directions=call.scratch(single, K, D),
                temperature=rule.temperature,
                weight=rule.weight,
                scale=large.scale,
                ridge=large.ridge,
                mean_prior=prior.mean,
                M=M,
                N=len(support.U),
                D=D,
                K=K,
                steps=rule.steps,
            )
            _, weights_out, bias_out = call.fetch()
        return weights_out, bias_out


class _Large:
    """The system H = L L^T of a support in memory, solved by blocks: kernels/centre.cu and kernels/cholesky.cu."""

    def __init__(self, runner: Runner, call: Call, support: Support, prior: Prior) -> None:
        (M, D), K = support.U.shape, len(support.counts)
        self.runner, self.call, self.K = runner, call, K
        self.dual = support.moment is None
        self.n: int = M if self.dual else D
        self.samples = M
        self.scale, self.ridge = _scale_and_ridge(support, prior)
        self.moment = call.put(support.moment)
        self.U, self.index = call.put(support.U), call.put(support.index)
        self.sums, self.counts = call.put(support.sums), call.put(support.counts)
        self.D = D
        self.centre, self.means = call.scratch(np.float64, D), call.scratch(np.float32, K, D)
        self.offsets = call.scratch(np.float32, K + M, D)
        self.residuals = self.offsets + 4 * K * D  # in one piece: the system's right-hand rows
        self.squares = call.scratch(np.float64, M)
        fields: dict[str, Any] = {
            "U": self.U,
            "index": self.index,
            "sums": self.sums,
            "counts": self.counts,
            "centre": self.centre,
            "means": self.means,
            "offsets": self.offsets,
            "residuals": self.residuals,
            "prototypes": call.out(np.float32, K, D),
            "squares": self.squares,
            "M": M,
            "D": D,
            "K": K,
        }
        call.launch("centre", -(-D // 256), **fields)
        call.launch("residuals", -(-(M + K) // runner.warps), **fields)

    def factored(self, *, right: bool) -> int:
        """Factor the system with its right-hand rows: offsets and samples, or else the identity alone. Gives n."""
        n, K, M, D = self.n, self.K, self.samples, self.D
        above = K if right else 0
        self.system = self.call.scratch(np.float64, n + above + (M if right else n), n)
        rows = n + above + (M if right else n)
        if self.dual:
            self.product("float", self.residuals, self.residuals, self.system, n, n, D, lower=True)
            if right:
                self.product("float", self.offsets, self.residuals, self.row(n), K, n, D)
        fields: dict[str, Any] = {
            "moment": self.moment,
            "sums": self.sums,
            "counts": self.counts,
            "right": self.offsets if right and not self.dual else None,
            "inverse": self.call.scratch(np.float64, _TILE, _TILE),
            "panel": self.call.scratch(np.float64, _TILE, rows),
            "system": self.system,
            "ridge": self.ridge,
            "n": n,
            "rows": rows,
            "identity": n + above if self.dual or not right else rows,
            "K": K,
        }
        self.call.launch("assemble", -(-rows // self.runner.warps), **fields)
        for start in range(0, n, _TILE):
            left, below = -(-(n - start - _TILE) // _TILE), rows - min(start + _TILE, n)
            self.call.launch("cholesky_diagonal", 1, 8 * _TILE * (_TILE + 1), **fields, start=start)
            if below:
                self.call.launch("cholesky_panel", -(-below // (4 * self.runner.warps)), **fields, start=start)
            if left > 0:
                self.call.launch("cholesky_update", left * -(-below // _TILE), **fields, start=start)
        return n

    def row(self, i: int) -> int:
        """Address of a row of the system."""
        return self.system + 8 * self.n * i

    def product(
        self, kind: str, A: int | None, B: int | None, C: int, n: int, m: int, depth: int, *, lower: bool = False
    ) -> None:
        """C = A B^T."""
        tiles = -(-n // 4) * -(-m // 3)
        self.call.launch(
            f"product_{kind}",
            -(-tiles // self.runner.warps),
            A=A,
            B=B,
            C=C,
            n=n,
            m=m,
            depth=depth,
            lda=depth,
            ldb=depth,
            ldc=m,
            lower=int(lower),
        )


def _scale_and_ridge(support: Support, prior: Prior) -> tuple[float, float]:
    """Scale and ridge of Sigma^-1 = scale (S + ridge I)^-1; fieldshot.ops.reference has the formulas."""
    of_means = float(np.einsum("kd,kd,k->", support.sums, support.sums, 1.0 / support.counts))
    if support.moment is None:
        everything = float(np.einsum("nd,nd->", support.U, support.U, dtype=np.float64))
    else:
        everything = float(np.trace(support.moment))
    freedom = float(support.counts.sum()) - len(support.counts)
    spread = (everything - of_means + prior.spread_weight * prior.spread) / (freedom + prior.spread_weight)
    return freedom + prior.covariance, prior.covariance * spread / support.U.shape[1]


def _float32(Z: Any) -> Float32:
    """Embeddings as the kernels read them; what float32 cannot hold is scaled first, to which heads are blind."""
    Z = np.asarray(Z)
    if Z.dtype != np.float32:
        largest = np.abs(Z).max(axis=1, keepdims=True, initial=0.0)
        Z = np.divide(Z, largest, out=np.zeros(Z.shape), where=largest > 0)
    return np.ascontiguousarray(Z, dtype=np.float32)
