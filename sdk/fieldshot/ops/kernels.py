"""The operations as launches of kernels, the same on every build of them.

A `Runner` knows one build, `KernelOps` which kernels make an operation, on which shapes. N samples, M unlabelled ones,
D embedding dimension, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fieldshot.images import Picture, Preprocessing
from fieldshot.ops.blocked import STRIP, TILE, System, fit_blocked
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
from fieldshot.ops.pending import Pending
from fieldshot.ops.preprocessing import launch_preprocess
from fieldshot.ops.runner import Call, Runner

__all__ = ["KernelOps", "launch_moment"]

_QUERIES = 4  # kernels/predict.cu
_CHUNK_BYTES = 1 << 26  # embeddings that are on their way at once


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
        self.threads = runner.threads

    def preprocess(self, pictures: Sequence[Picture], spec: Preprocessing) -> Float32:
        """Resize, crop and normalise pictures of any sizes in one launch: uint8 RGB -> (N, 3, height, width)."""
        with self.runner.call() as call:
            out = call.out(np.float32, len(pictures), 3, *spec.size)
            launch_preprocess(call, pictures, spec, out)
            (inputs,) = call.fetch()
        return inputs

    def absorb(self, Z: Any, starts: Index) -> tuple[Float32, Float64]:
        """Transform embeddings and add up each class's: (N, D) any float -> (N, D) float32, (K, D) float64."""
        Z = np.asarray(Z)
        rows = max(1, _CHUNK_BYTES // (4 * max(1, Z.shape[1])))
        if len(Z) <= rows:
            return self._absorb(_float32(Z), starts)
        U, sums = np.empty(Z.shape, np.float32), np.zeros((len(starts) - 1, Z.shape[1]))
        for first in range(0, len(Z), rows):
            part = np.clip(starts - first, 0, min(rows, len(Z) - first)).astype(np.int32)
            U[first : first + rows], more = self._absorb(_float32(Z[first : first + rows]), part)
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
        for first in range(0, max(len(U), 1), rows):
            part = np.ascontiguousarray(U[first : first + rows])
            with self.runner.call() as call:
                launch_moment(self.runner, call, call.put(part), call.put(before), len(part), D)
                (before,) = call.fetch()
        assert before is not None
        return before

    def fit(self, support: Support, prior: Prior) -> Solution:
        """Fine-tune: one launch where all fits into shared memory, else the blocked solution."""
        (N, D), K = support.U.shape, len(support.counts)
        whole = support.moment is None and support.held_out == N
        if whole and self.runner.shared_bytes >= 8 * N * (N + 1):
            return self._fit_small(support, prior, N, D, K)
        return fit_blocked(self.runner, support, prior)

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
                pulls=call.scratch(double, K),
                cross=call.scratch(double, N, K),
                right=call.scratch(double, N, K),
                half=call.scratch(double, N, K),
                projected=call.scratch(double, N, K),
                means=call.scratch(double, K, K),
                between=call.scratch(double, K, K),
                offsets=call.scratch(double, K, K),
                squares=call.scratch(double, N),
                leverage=call.scratch(double, N),
                sample_centre=call.scratch(double, N),
                class_centre=call.scratch(double, K),
                coefficients=call.scratch(single, K, N),
                held_out=call.out(single, N, K),
                mean_prior=prior.mean,
                covariance_prior=prior.covariance,
                pull=prior.pull,
                spread=prior.spread,
                spread_weight=prior.spread_weight,
                temperature_prior=prior.temperature,
                temperature_weight=prior.temperature_weight,
                N=N,
                D=D,
                K=K,
            )
            weights, bias, prototypes, temperature, *held_out = call.fetch()
        return Solution(weights, bias, prototypes, float(temperature[0]), *held_out)

    def load(self, classifier: Classifier) -> Any:
        """Put a classifier where it will be used."""
        return self.runner.load(classifier), classifier.temperature, classifier.weights.shape

    def predict(self, loaded: Any, Z: Any, *, top: int = 1, cosines: bool = False) -> Prediction:
        """Transform embeddings (N, D) and answer, with the `top` best classes each: one launch for a batch."""
        K, D = loaded[2]
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
        with self.runner.call() as call:
            self._launch_predict(call, loaded, call.put(Z), len(Z), top, cosines)
            return Prediction(*call.fetch())

    def predict_pending(
        self, loaded: Any, Z: Pending, *, top: int = 1, cosines: bool = False
    ) -> tuple[Prediction, Float32]:
        """As `predict`, of embeddings that are made on this very device on the way; they come along."""
        with Z.call() as call:
            self._launch_predict(call, loaded, Z.launch(call), Z.shape[0], min(top, loaded[2][0]), cosines)
            embeddings, *answers = call.fetch()
        return Prediction(*answers), embeddings

    def _launch_predict(self, call: Call, loaded: Any, Z: int | None, N: int, top: int, cosines: bool) -> None:
        held, temperature, (K, D) = loaded
        weights, bias, prototypes = call.held(held)
        call.launch(
            "predict",
            -(-N // _QUERIES),
            4 * _QUERIES * D,
            Z=Z,
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

    def adapt(
        self,
        unlabelled: Float32,
        shares: Float64,
        support: Support,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples (M, D) of classes by `shares` (M, K) pull the means: weights (K, D) and bias (K,)."""
        (M, D), K = unlabelled.shape, len(support.counts)
        double, single = np.float64, np.float32
        with self.runner.call() as call:
            system = System(self.runner, call, support, prior)
            n = system.n
            system.factored(n, right=False)
            inverse = call.scratch(double, n, n)
            rows = system.row(n)  # L^-T
            system.product("double", rows, rows, inverse, n, n, n)
            call.launch(
                "adapt",
                1,
                queries=call.put(unlabelled),
                residuals=system.residuals if system.dual else None,
                inverse=inverse,
                counts=system.counts,
                sums=system.sums,
                weights=call.out(single, K, D),
                bias=call.out(single, K),
                share=call.inout(np.ascontiguousarray(shares, double)),
                soft_counts=call.scratch(double, K),
                means=call.scratch(single, K, D),
                offsets=call.scratch(single, K, D),
                centre=call.scratch(double, D),
                products=call.scratch(double, K, n),
                solved=call.scratch(double, K, n),
                directions=call.scratch(single, K, D),
                temperature=rule.temperature,
                weight=rule.weight,
                scale=system.scale,
                ridge=system.ridge,
                mean_prior=prior.mean,
                M=M,
                N=len(support.U),
                D=D,
                K=K,
                steps=rule.steps,
            )
            _, weights, bias, _ = call.fetch()
        return weights, bias


def launch_moment(runner: Runner, call: Call, U: int | None, before: int | None, N: int, D: int) -> None:
    """The launches of a second moment, which `call.fetch` gives, of samples (N, D) at an address."""
    tiles = -(-D // TILE) * (-(-D // TILE) + 1) // 2
    slices = runner.slices(N, tiles)
    moment = call.out(np.float64, D, D)
    fields: dict[str, Any] = {
        "U": U,
        "before": before,
        "partial": moment if slices == 1 else call.scratch(np.float64, slices, D, D),
        "moment": moment,
        "N": N,
        "D": D,
        "rows": D,
        "slices": slices,
        "stride": D,
        "apart": TILE,
    }
    call.launch("moment", tiles * slices, **fields)
    call.launch("moment_reduce", -(-D // (STRIP * runner.warps)), **fields)


def _float32(Z: Any) -> Float32:
    """Embeddings as the kernels read them; what float32 cannot hold is scaled first, to which heads are blind."""
    Z = np.asarray(Z)
    if Z.dtype != np.float32:
        Z = Z.astype(np.float64)  # the least of an integer type has no absolute value there
        largest = np.abs(Z).max(axis=1, keepdims=True, initial=0.0)
        Z = np.divide(Z, largest, out=np.zeros(Z.shape), where=largest > 0)
    return np.ascontiguousarray(Z, dtype=np.float32)
