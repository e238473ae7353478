"""The operations in NumPy: plain, in float64 where it matters, and the yardstick for every other build.

The model is two-covariance Gaussian (Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV 2006):
class means m_k ~ N(m, Sigma / mean_prior), samples u ~ N(m_k, Sigma). With

    S      = sum over samples of (u - mu_k)(u - mu_k)^T     within-class scatter, nu = N - K degrees of freedom
    t      = expected variance per dimension
    Sigma  = (S + covariance_prior * t * I) / (nu + covariance_prior)
    g_k    = n_k / (n_k + mean_prior)                       how far a class mean is believed
    a_k    = mu_k - m,   m = the mean of the class means

the score of class k is the log-likelihood of u under the posterior mean of k, less what all classes share:

    score_k(u) = g_k (u - m)^T Sigma^-1 a_k - g_k^2 / 2 * a_k^T Sigma^-1 a_k

With one sample a class S = 0, and this is the nearest class mean; with many it is linear discriminant
analysis. It needs only counts, sums and the second moment, which add and subtract exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fieldshot.ops.interface import Float32, Float64, Index, Prior, Solution, Transduction

__all__ = ["ReferenceOps"]


class ReferenceOps:
    """`fieldshot.ops.Ops` in NumPy."""

    name = "reference"

    def transform(self, Z: Any) -> Float32:
        """Signed square root, then unit length: (N, D) any float -> (N, D) float32.

        The square root evens out the skew of ReLU features (the power transform of PT-MAP, Hu et al.
        2021, at one half); a zero embedding stays zero.
        """
        Z = np.asarray(Z, dtype=np.float64)
        # Scaled first, so that neither huge nor tiny embeddings leave the range of float32.
        largest = np.abs(Z).max(axis=1, keepdims=True, initial=0.0)
        Z = np.divide(Z, largest, out=np.zeros_like(Z), where=largest > 0)
        U = np.sqrt(np.abs(Z))
        norm = np.sqrt(np.einsum("nd,nd->n", U, U))[:, None]
        np.divide(U, norm, out=U, where=norm > 0)
        return np.asarray(np.copysign(U, Z), dtype=np.float32)

    def moment(self, U: Float32) -> Float64:
        """Second moment ``U.T @ U``: (N, D) -> (D, D)."""
        U64 = U.astype(np.float64)
        return np.asarray(U64.T @ U64)

    def fit_samples(self, U: Float32, index: Index, counts: Float64, sums: Float64, prior: Prior) -> Solution:
        """Fit from the samples themselves, in the N x N Gram matrix; for N up to about D."""
        residuals, offsets, scale, ridge = self._setting(U, index, counts, sums, prior, scatter_trace=None)
        gram = residuals @ residuals.T
        inverse = np.linalg.inv(gram + ridge * np.eye(len(U)))
        projected = inverse @ (residuals @ offsets.T)  # R H^-1 A^T, by the push-through identity
        directions = (offsets - projected.T @ residuals) / ridge  # H^-1 A^T, by Woodbury
        leverage = 1.0 - ridge * np.diag(inverse)  # diag(R H^-1 R^T)
        return _solution(index, counts, sums, offsets, directions, projected, leverage, scale, prior)

    def fit_moment(
        self, moment: Float64, U: Float32, index: Index, counts: Float64, sums: Float64, prior: Prior
    ) -> Solution:
        """Fit from the second moment of all samples; `U` are those to be held out in turn."""
        scatter = moment - (sums.T / counts) @ sums
        residuals, offsets, scale, ridge = self._setting(
            U, index, counts, sums, prior, scatter_trace=float(np.trace(scatter))
        )
        scatter[np.diag_indices_from(scatter)] += ridge
        solved = np.linalg.solve(scatter, np.concatenate([offsets, residuals]).T).T
        directions, projected = solved[: len(counts)], residuals @ solved[: len(counts)].T
        leverage = np.einsum("nd,nd->n", residuals, solved[len(counts) :])
        return _solution(index, counts, sums, offsets, directions, projected, leverage, scale, prior)

    def scores(self, U: Float32, weights: Float32, bias: Float32) -> Float32:
        """``U @ weights.T + bias``: (N, D) -> (N, K)."""
        return np.asarray(U @ weights.T + bias)

    def adapt(
        self,
        unlabelled: Float32,
        weights: Float32,
        bias: Float32,
        moment: Float64 | None,
        U: Float32,
        index: Index,
        counts: Float64,
        sums: Float64,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples pull the class means: weights (K, D) and bias (K,) after some rounds.

        Expectation maximisation over the class means with the covariance held: each unlabelled sample
        counts for each class by its probability there, times `rule.weight`.
        """
        precision, scale = self._precision(moment, U, index, counts, sums, prior)
        queries = unlabelled.astype(np.float64)
        for _ in range(rule.steps):
            logits = rule.temperature * (queries @ weights.T + bias)
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            share *= rule.weight / share.sum(axis=1, keepdims=True)
            soft_counts, soft_sums = counts + share.sum(axis=0), sums + share.T @ queries
            means = soft_sums / soft_counts[:, None]
            centre = means.mean(axis=0)
            offsets = means - centre
            weights, bias = _linear(soft_counts, centre, offsets, precision(offsets), scale, prior)
        return weights, bias

    def _precision(
        self,
        moment: Float64 | None,
        U: Float32,
        index: Index,
        counts: Float64,
        sums: Float64,
        prior: Prior,
    ) -> tuple[Callable[[Float64], Float64], float]:
        """``X -> X H^-1`` for rows X (M, D), and the scale that makes it Sigma^-1."""
        if moment is None:
            residuals, _, scale, ridge = self._setting(U, index, counts, sums, prior, scatter_trace=None)
            inverse = np.linalg.inv(residuals @ residuals.T + ridge * np.eye(len(U)))
            return lambda X: (X - (X @ residuals.T) @ inverse @ residuals) / ridge, scale
        scatter = moment - (sums.T / counts) @ sums
        trace = float(np.trace(scatter))
        _, _, scale, ridge = self._setting(U, index, counts, sums, prior, scatter_trace=trace)
        scatter[np.diag_indices_from(scatter)] += ridge
        return lambda X: np.linalg.solve(scatter, X.T).T, scale

    @staticmethod
    def _setting(
        U: Float32, index: Index, counts: Float64, sums: Float64, prior: Prior, scatter_trace: float | None
    ) -> tuple[Float64, Float64, float, float]:
        """Residuals (N, D), offsets a_k (K, D), and scale, ridge with Sigma^-1 = scale * (S + ridge I)^-1."""
        means = sums / counts[:, None]
        residuals = U - means[index]
        if scatter_trace is None:
            scatter_trace = float(np.einsum("nd,nd->", residuals, residuals))
        freedom = counts.sum() - len(counts)
        spread = (scatter_trace + prior.spread_weight * prior.spread) / (freedom + prior.spread_weight)
        ridge = prior.covariance * spread / U.shape[1]
        return residuals, means - means.mean(axis=0), freedom + prior.covariance, ridge


def _solution(
    index: Index,
    counts: Float64,
    sums: Float64,
    offsets: Float64,
    directions: Float64,
    projected: Float64,
    leverage: Float64,
    scale: float,
    prior: Prior,
) -> Solution:
    """Weights and biases, and the scores of each sample under the head fitted without it.

    offsets A (K, D), directions A H^-1 (K, D), projected R H^-1 A^T (N, K), leverage diag(R H^-1 R^T) (N,).
    """
    between = offsets @ directions.T  # A H^-1 A^T
    centre = (sums / counts[:, None]).mean(axis=0)
    weights, bias = _linear(counts, centre, offsets, directions, scale, prior)

    keep = np.flatnonzero(counts[index] > 1)
    own = index[keep]
    held_out = _held_out(own, counts, between, projected[keep], leverage[keep], scale - 1.0, prior)
    return Solution(weights, bias, held_out, own)


def _linear(
    counts: Float64, centre: Float64, offsets: Float64, directions: Float64, scale: float, prior: Prior
) -> tuple[Float32, Float32]:
    """Weights (K, D) and bias (K,) of the scores, from offsets A and directions A H^-1."""
    trust = counts / (counts + prior.mean)
    weights = (scale * trust)[:, None] * directions
    bias = -0.5 * scale * trust**2 * np.einsum("kd,kd->k", offsets, directions) - weights @ centre
    return weights.astype(np.float32), bias.astype(np.float32)


def _held_out(
    own: Index,
    counts: Float64,
    between: Float64,
    projected: Float64,
    leverage: Float64,
    scale: float,
    prior: Prior,
) -> Float64:
    """Leave-one-out scores (M, K) in closed form.

    Without a sample with residual r of a class of n: mu' = mu - r / (n - 1), S' = S - n / (n - 1) r r^T, so
    H'^-1 follows from H^-1 by Sherman and Morrison, and every new product is a combination of old ones. The
    ridge stays as it was.
    """
    rows, classes = np.arange(len(own)), len(counts)
    n = counts[own]
    shift = 1.0 / ((n - 1.0) * classes)  # the centre moves by -shift * r
    # a_j' = a_j + step_j r,   u - m' = a_own + (1 + shift) r
    step = np.repeat(shift[:, None], classes, axis=1)
    step[rows, own] -= 1.0 / (n - 1.0)
    lever = leverage[:, None]
    query = between[own] + step * projected[rows, own][:, None] + (1.0 + shift)[:, None] * (projected + step * lever)
    norm = np.diag(between) + 2.0 * step * projected + step**2 * lever
    # Sherman and Morrison: x H'^-1 y = x H^-1 y + factor (x H^-1 r)(r H^-1 y)
    gain = n / (n - 1.0)
    factor = (gain / np.maximum(1.0 - gain * leverage, 1e-12))[:, None]
    query_r = (projected[rows, own] + (1.0 + shift) * leverage)[:, None]
    offset_r = projected + step * lever
    query = query + factor * query_r * offset_r
    norm = norm + factor * offset_r**2
    left = np.repeat(counts[None], len(own), axis=0)
    left[rows, own] -= 1.0
    trust = left / (left + prior.mean)
    return np.asarray(scale * (trust * query - 0.5 * trust**2 * norm))
