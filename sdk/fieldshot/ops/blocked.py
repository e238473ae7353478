"""A fit that outgrows one block's shared memory: the system H = L L^T of kernels/cholesky.cu, and what follows from it.

N samples at hand, M of them to be held out, D embedding dimension, K classes; n is N where the Gram matrix of the
samples is solved (dual), D where their second moment is (primal).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fieldshot.ops.interface import Prior, Solution, Support
from fieldshot.ops.reference import spread
from fieldshot.ops.runner import Call, Runner

__all__ = ["STRIP", "TILE", "System", "fit_blocked"]

TILE = 64  # kernels/tile.cuh
STRIP = 4  # kernels/tile.cuh: of float64
_RIGHT = 4  # kernels/solution.cu: rows that a block of `back` takes


def fit_blocked(runner: Runner, support: Support, prior: Prior) -> Solution:
    """Fine-tune by blocks of the system, in many launches."""
    (N, D), K, M = support.U.shape, len(support.counts), support.held_out
    double, single = np.float64, np.float32
    with runner.call() as call:
        system = System(runner, call, support, prior)
        weights = call.out(single, K, D)
        bias = call.out(single, K)
        temperature, known, unknown = call.out(double, 1), call.out(double, M), call.out(double, M)

        first = N - M  # of those to be held out
        cross, means = call.scratch(double, M, K), call.scratch(double, K, K)
        system.product("float", system.U + 4 * first * D, system.means, cross, M, K, D)
        system.product("float", system.means, system.means, means, K, K, D)
        n = system.n
        system.factored(M if system.dual else 0, right=True)
        if system.dual:
            offsets, samples = system.row(n), system.row(n + K)  # of the identity, in their stead
        else:
            samples, offsets = system.row(n), system.row(n + M)
        solved, projected = call.scratch(double, K, n), call.scratch(double, M, K)
        leverage, between, half = call.scratch(double, M), call.scratch(double, K, K), call.scratch(double, K, K)
        call.launch("back", -(-K // _RIGHT), right=offsets, system=system.matrix, solved=solved, n=n, K=K)
        if system.dual:
            system.product("float", system.offsets, system.offsets, between, K, K, D)
            system.product("double", offsets, offsets, half, K, K, n)
        else:
            system.product("double", samples, offsets, projected, M, K, n)
            system.product("double", offsets, offsets, between, K, K, n)
        call.launch(
            "gather",
            -(-max(M, K) // runner.warps),
            rows=samples,
            solved=solved,
            projected=projected,
            leverage=leverage,
            between=between,
            half=half,
            ridge=system.ridge,
            n=n,
            M=M,
            K=K,
            dual=int(system.dual),
        )
        head: dict[str, Any] = {
            "rows": system.residuals if system.dual else None,
            "solved": solved,
            "coefficients": call.scratch(single, K, N + K) if system.dual else None,
            "counts": system.counts,
            "between": between,
            "centre": system.centre,
            "weights": weights,
            "bias": bias,
            "scale": system.scale,
            "ridge": system.ridge,
            "mean_prior": prior.mean,
            "N": N,
            "D": D,
            "K": K,
            "dual": int(system.dual),
        }
        if system.dual:
            call.launch("coefficients", -(-K // runner.warps), **head)
        call.launch("weights", -(-K // 4) * -(-D // 256) if system.dual else K, **head)
        call.launch("bias", -(-K // runner.warps), **head)
        held_out, index = call.out(single, M, K), system.index + 4 * first
        call.launch(
            "held_out",
            -(-M // runner.warps),
            index=index,
            counts=system.counts,
            pulls=system.pulls,
            cross=cross,
            squares=system.squares + 8 * first,
            means=means,
            projected=projected,
            leverage=leverage,
            between=between,
            held_out=held_out,
            known=known,
            unknown=unknown,
            scale=system.scale - 1.0,
            mean_prior=prior.mean,
            M=M,
            K=K,
        )
        call.launch(
            "temperature",
            1,
            held_out=held_out,
            index=index,
            starts=call.put(support.starts),
            counts=system.counts,
            means=means,
            between=between,
            temperature=temperature,
            prior=prior.temperature,
            prior_weight=prior.temperature_weight,
            ridge=system.ridge,
            M=M,
            K=K,
        )
        prototypes_out, weights_out, bias_out, temperature_out, *held_out_of = call.fetch()
    return Solution(weights_out, bias_out, prototypes_out, float(temperature_out[0]), *held_out_of)


class System:
    """The system H = L L^T of a support in memory, solved by blocks: kernels/centre.cu and kernels/cholesky.cu."""

    def __init__(self, runner: Runner, call: Call, support: Support, prior: Prior) -> None:
        (N, D), K = support.U.shape, len(support.counts)
        self.runner, self.call, self.K = runner, call, K
        self.dual = support.moment is None
        self.n: int = N if self.dual else D
        self.samples = N
        self.scale, self.ridge = _scale_and_ridge(support, prior)
        self.moment = call.put(support.moment)
        self.U, self.index = call.put(support.U), call.put(support.index)
        self.sums, self.counts = call.put(support.sums), call.put(support.counts)
        self.D = D
        self.centre, self.means = call.scratch(np.float64, D), call.scratch(np.float32, K, D)
        self.pulls = call.scratch(np.float64, K)
        self.residuals = call.scratch(np.float32, N + K, D)
        self.offsets = self.residuals + 4 * N * D  # in one piece
        self.panels = call.scratch(np.float32, -(-(N + K) // TILE), D, TILE) if self.dual else None
        self.squares = call.scratch(np.float64, N)
        fields: dict[str, Any] = {
            "U": self.U,
            "index": self.index,
            "sums": self.sums,
            "counts": self.counts,
            "centre": self.centre,
            "means": self.means,
            "offsets": self.offsets,
            "residuals": self.residuals,
            "panels": self.panels,
            "prototypes": call.out(np.float32, K, D),
            "squares": self.squares,
            "pulls": self.pulls,
            "pull": prior.pull,
            "M": N,
            "D": D,
            "K": K,
        }
        call.launch("centre", -(-D // 256), **fields)
        call.launch("residuals", -(-(N + K) // (2 * STRIP * runner.warps)), **fields)

    def factored(self, identity: int, *, right: bool) -> None:
        """Factor the system with its right-hand rows, where asked for, and that many of the identity's last ones."""
        n, K = self.n, self.K
        above = n + (0 if not right else K if self.dual else self.samples + K)
        rows = above + identity
        self.matrix = self.call.scratch(np.float64, rows, n)
        if self.dual:
            tiles = -(-above // TILE)
            self.call.launch(  # the Gram matrix of the residuals, and their products with the offsets
                "moment",
                tiles * (tiles + 1) // 2,
                U=self.panels,
                partial=self.matrix,
                N=self.D,
                D=n,
                rows=above,
                slices=1,
                stride=TILE,
                apart=TILE * self.D,
            )
        fields: dict[str, Any] = {
            "moment": self.moment,
            "sums": self.sums,
            "counts": self.counts,
            "centre": self.centre,
            "pulls": self.pulls,
            "right": self.residuals if right and not self.dual else None,
            "inverse": self.call.scratch(np.float64, TILE, TILE),
            "panels": self.call.scratch(np.float64, -(-above // TILE) - (-identity // TILE), TILE, TILE),
            "system": self.matrix,
            "ridge": self.ridge,
            "n": n,
            "rows": rows,
            "identity": above,
            "K": K,
        }
        self.call.launch("assemble", -(-rows // self.runner.warps), **fields)
        for start in range(0, n, TILE):
            left, below = -(-(n - start - TILE) // TILE), rows - min(start + TILE, n)
            self.call.launch("cholesky_diagonal", 1, 8 * TILE * (TILE + 1), **fields, start=start)
            if below:
                self.call.launch("cholesky_panel", -(-below // (STRIP * self.runner.warps)), **fields, start=start)
            if left > 0:
                self.call.launch("cholesky_update", left * -(-below // TILE), **fields, start=start)

    def row(self, i: int) -> int:
        """Address of a row of the system."""
        return self.matrix + 8 * self.n * i

    def product(self, kind: str, A: int | None, B: int | None, C: int, n: int, m: int, depth: int) -> None:
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
        )


def _scale_and_ridge(support: Support, prior: Prior) -> tuple[float, float]:
    """Scale and ridge of Sigma^-1 = scale (S + ridge I)^-1; fieldshot.ops.reference has the formulas."""
    of_means = float(np.einsum("kd,kd,k->", support.sums, support.sums, 1.0 / support.counts))
    if support.moment is None:
        rows = (support.U[i : i + TILE].astype(np.float64) for i in range(0, len(support.U), TILE))
        everything = sum(float(np.vdot(some, some)) for some in rows)  # by rows that stay in the cache
    else:
        everything = float(np.trace(support.moment))
    freedom = float(support.counts.sum()) - len(support.counts)
    means = support.sums / support.counts[:, None]
    apart = spread(everything - of_means, freedom, means - means.mean(axis=0), prior)
    return freedom + prior.covariance, prior.covariance * apart / support.U.shape[1]
