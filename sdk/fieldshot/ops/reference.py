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

from typing import Any

import numpy as np

from fieldshot.ops.interface import Float32, Float64, Index, Prior, Solution, Support, Transduction

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

    def fit(self, support: Support, prior: Prior) -> Solution:
        """Solve for the weights: in the M x M Gram matrix, or in D x D where there is a second moment."""
        residuals, offsets, scale, ridge = _setting(support, prior)
        if support.moment is None:
            inverse = _gram_inverse(residuals, ridge)
            projected = inverse @ (residuals @ offsets.T)  # R H^-1 A^T, by the push-through identity
            directions = (offsets - projected.T @ residuals) / ridge  # A H^-1, by Woodbury
            leverage = 1.0 - ridge * np.diag(inverse)  # diag(R H^-1 R^T)
        else:
            solved = np.linalg.solve(_regular(support, support.moment, ridge), np.concatenate([offsets, residuals]).T).T
            directions = solved[: len(offsets)]
            projected = residuals @ directions.T
            leverage = np.einsum("nd,nd->n", residuals, solved[len(offsets) :])
        return _solution(support, offsets, directions, projected, leverage, scale, prior)

    def scores(self, U: Float32, weights: Float32, bias: Float32) -> Float32:
        """``U @ weights.T + bias``: (N, D) -> (N, K)."""
        return np.asarray(U @ weights.T + bias)

    def adapt(
        self,
        unlabelled: Float32,
        weights: Float32,
        bias: Float32,
        support: Support,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples (M, D) pull the class means: new weights (K, D) and bias (K,).

        Expectation maximisation over the class means with the covariance held: each unlabelled sample
        counts for each class by its probability there, times `rule.weight`.
        """
        residuals, _, scale, ridge = _setting(support, prior)
        if support.moment is None:
            inverse = _gram_inverse(residuals, ridge)
        else:
            scatter = _regular(support, support.moment, ridge)
        queries = unlabelled.astype(np.float64)
        for _ in range(rule.steps):
            logits = rule.temperature * (queries @ weights.T + bias)
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            share *= rule.weight / share.sum(axis=1, keepdims=True)
            counts, sums = support.counts + share.sum(axis=0), support.sums + share.T @ queries
            means = sums / counts[:, None]
            offsets = means - means.mean(axis=0)
            if support.moment is None:
                directions = (offsets - (offsets @ residuals.T) @ inverse @ residuals) / ridge
            else:
                directions = np.linalg.solve(scatter, offsets.T).T
            weights, bias = _linear(counts, means.mean(axis=0), offsets, directions, scale, prior)
        return weights, bias


def _setting(support: Support, prior: Prior) -> tuple[Float64, Float64, float, float]:
    """Residuals R (M, D), offsets a_k (K, D), and scale, ridge with Sigma^-1 = scale * (S + ridge I)^-1."""
    means = support.sums / support.counts[:, None]
    residuals = support.U - means[support.index]
    if support.moment is None:
        scatter_trace = float(np.einsum("nd,nd->", residuals, residuals))
    else:
        scatter_trace = float(np.trace(support.moment) - np.einsum("kd,kd->", support.sums, means))
    freedom = float(support.counts.sum()) - len(support.counts)
    spread = (scatter_trace + prior.spread_weight * prior.spread) / (freedom + prior.spread_weight)
    ridge = prior.covariance * spread / support.U.shape[1]
    return residuals, means - means.mean(axis=0), freedom + prior.covariance, ridge


def _gram_inverse(residuals: Float64, ridge: float) -> Float64:
    """(R R^T + ridge I)^-1: all that is needed of H^-1 = (S + ridge I)^-1 beside R."""
    return np.asarray(np.linalg.inv(residuals @ residuals.T + ridge * np.eye(len(residuals))))


def _regular(support: Support, moment: Float64, ridge: float) -> Float64:
    """H = S + ridge I (D, D) from the second moment."""
    scatter: Float64 = moment - (support.sums.T / support.counts) @ support.sums
    scatter[np.diag_indices_from(scatter)] += ridge
    return scatter


def _solution(
    support: Support,
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
    counts, index = support.counts, support.index
    between = offsets @ directions.T  # A H^-1 A^T
    centre = (support.sums / counts[:, None]).mean(axis=0)
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
