"""The operations in NumPy: plain, in float64 where it matters, and the yardstick for every other build.

The model is two-covariance Gaussian (Ioffe, "Probabilistic Linear Discriminant Analysis", ECCV 2006):
class means m_k ~ N(m, Sigma / mean_prior), samples u ~ N(m_k, Sigma). With

    a_k    = mu_k - m,   m = the mean of the class means
    s_k    = sqrt(pull / (n_k - 1 + 2 pull))
    r      = u - mu_k + s_k a_k                             residual of a sample from its pulled class mean
    S      = sum over samples of r r^T                      within-class scatter, nu = N - K degrees of freedom
    t      = expected variance per dimension
           = (sum of |u - mu_k|^2 + spread_weight * spread * d) / ((nu + spread_weight) * D)
    d      = mean over the classes of |a_k - a_l|^2 for the nearest l, so that no scale matters
    Sigma  = (S + covariance_prior * t * I) / (nu + covariance_prior)
    g_k    = n_k / (n_k + mean_prior)                       how far a class mean is believed

the score of class k is the log-likelihood of u under the posterior mean of k, less what all classes share:

    score_k(u) = g_k (u - m)^T Sigma^-1 a_k - g_k^2 / 2 * a_k^T Sigma^-1 a_k

A class of one sample shows no scatter, but that sample scatters around its class mean all the same, and so
the scatter of the means holds some of what is looked for. The pull s_k lets half of it stand in at one sample, where
the score is then a ridge regression's on the prototypes, and hardly any at five. With many samples the score is
linear discriminant analysis. It needs only counts, sums and the second moment, which add and subtract exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fieldshot.images import Picture, Preprocessing
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

__all__ = ["ReferenceOps", "held_out_cosines", "held_out_scores", "softmax", "spread", "temperature", "unit"]

# Class means may lie on one another; no ridge may be 0. (Squared; kernels/fit.cu has it too.)
_LEAST_DISTANCE = 1e-4


class ReferenceOps:
    """`fieldshot.ops.Ops` in NumPy."""

    name = "reference"
    about = "NumPy"
    threads = 1  # NumPy's products have threads of their own

    def preprocess(self, pictures: Sequence[Picture], spec: Preprocessing) -> Float32:
        """Resize, crop and normalise pictures by Pillow: uint8 RGB -> (N, 3, height, width)."""
        inputs = np.empty((len(pictures), 3, *spec.size), np.float32)
        for picture, out in zip(pictures, inputs, strict=True):
            spec.apply(picture, out)
        return inputs

    def absorb(self, Z: Any, starts: Index) -> tuple[Float32, Float64]:
        """Transform embeddings and add up each class's: (N, D) any float -> (N, D) float32, (K, D) float64.

        The square root evens out the skew of ReLU features (the power transform of PT-MAP, Hu et al.
        2021, at one half); a zero embedding stays zero.
        """
        U = _transform(Z)
        sums = [U[first:last].sum(axis=0, dtype=np.float64) for first, last in itertools.pairwise(starts)]
        return U, np.stack(sums)

    def moment(self, U: Float32, before: Float64 | None = None) -> Float64:
        """Second moment ``before + U.T @ U``: (N, D) -> (D, D)."""
        U64 = U.astype(np.float64)
        return np.asarray(U64.T @ U64 if before is None else before + U64.T @ U64)

    def fit(self, support: Support, prior: Prior) -> Solution:
        """Fine-tune: in the N x N Gram matrix, or in D x D where there is a second moment."""
        means = support.sums / support.counts[:, None]
        solved = _solve(support, prior)
        weights, bias = _linear(
            support.counts, means.mean(axis=0), solved.offsets, solved.directions, solved.scale, prior
        )
        scores, own = held_out_scores(support, prior)
        factor = temperature(scores, own, prior.temperature * _flattening(solved), prior.temperature_weight)
        known, unknown = held_out_cosines(support)
        held_out = np.zeros((support.held_out, len(means)), np.float32)
        held_out[support.counts[support.index[-support.held_out :]] > 1] = scores
        return Solution(weights, bias, unit(means).astype(np.float32), factor, known, unknown, held_out)

    def load(self, classifier: Classifier) -> Classifier:
        """Nothing to do: it stays where it is."""
        return classifier

    def predict(self, loaded: Classifier, Z: Any, *, top: int = 1, cosines: bool = False) -> Prediction:
        """Transform embeddings (N, D) and answer, with the `top` best classes each."""
        U = _transform(Z)
        logits = loaded.temperature * (U @ loaded.weights.T + loaded.bias).astype(np.float64)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :top].astype(np.int32)
        nearness = (U @ loaded.prototypes.T).astype(np.float64) if cosines else None
        return Prediction(logits, softmax(logits), best, nearness)

    def adapt(
        self,
        unlabelled: Float32,
        shares: Float64,
        support: Support,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples (M, D) of classes by `shares` (M, K) pull the means: weights (K, D) and bias (K,).

        Expectation maximisation over the class means with the covariance held: each unlabelled sample
        counts for each class by its share of it, times `rule.weight`, and its shares are its probabilities.
        """
        residuals, _, scale, ridge = _setting(support, prior)
        scatter = inverse = np.zeros((0, 0))
        if support.moment is None:
            inverse = _gram_inverse(residuals, ridge)
        else:
            scatter = _regular(support, support.moment, ridge, prior)
        queries = unlabelled.astype(np.float64)
        for _ in range(rule.steps):
            pulls = rule.weight * shares
            counts, sums = support.counts + pulls.sum(axis=0), support.sums + pulls.T @ queries
            means = sums / counts[:, None]
            offsets = means - means.mean(axis=0)
            if support.moment is None:
                directions = (offsets - (offsets @ residuals.T) @ inverse @ residuals) / ridge
            else:
                directions = np.linalg.solve(scatter, offsets.T).T
            weights, bias = _linear(counts, means.mean(axis=0), offsets, directions, scale, prior)
            shares = softmax(rule.temperature * (queries @ weights.T + bias))
        return weights, bias


class _Solved(NamedTuple):
    """What H^-1 makes of offsets A and residuals R.

    directions A H^-1 (K, D), projected R H^-1 A^T (N, K), leverage diag(R H^-1 R^T) (N,), Sigma^-1 = scale H^-1,
    H = S + ridge I.
    """

    offsets: Float64
    directions: Float64
    projected: Float64
    leverage: Float64
    scale: float
    ridge: float


def _solve(support: Support, prior: Prior) -> _Solved:
    residuals, offsets, scale, ridge = _setting(support, prior)
    if support.moment is None:
        inverse = _gram_inverse(residuals, ridge)
        projected = inverse @ (residuals @ offsets.T)  # R H^-1 A^T, by the push-through identity
        directions = (offsets - projected.T @ residuals) / ridge  # A H^-1, by Woodbury
        leverage = 1.0 - ridge * np.diag(inverse)  # diag(R H^-1 R^T)
    else:
        solved = np.linalg.solve(
            _regular(support, support.moment, ridge, prior), np.concatenate([offsets, residuals]).T
        ).T
        directions = solved[: len(offsets)]
        projected = residuals @ directions.T
        leverage = np.einsum("nd,nd->n", residuals, solved[len(offsets) :])
    return _Solved(offsets, directions, projected, leverage, scale, ridge)


def _flattening(solved: _Solved) -> float:
    """How much shorter the class offsets are under H^-1 than under the round covariance alone, 1 at least.

    Scores shrink by as much, so it scales the temperature that is expected before any sample was held out.
    """
    squares = float(np.einsum("kd,kd->", solved.offsets, solved.offsets))
    shrunk = solved.ridge * float(np.einsum("kd,kd->", solved.offsets, solved.directions))
    return squares / shrunk if shrunk > 0 else 1.0


def _transform(Z: Any) -> Float32:
    Z = np.asarray(Z, dtype=np.float64)
    # Scaled first, so that neither huge nor tiny embeddings leave the range of float32.
    largest = np.abs(Z).max(axis=1, keepdims=True, initial=0.0)
    Z = np.divide(Z, largest, out=np.zeros_like(Z), where=largest > 0)
    return np.asarray(np.copysign(unit(np.sqrt(np.abs(Z))), Z), dtype=np.float32)


def unit(rows: Float64) -> Float64:
    """Rows of unit length; zero stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))


def _setting(support: Support, prior: Prior) -> tuple[Float64, Float64, float, float]:
    """Residuals R (N, D), offsets a_k (K, D), and scale, ridge with Sigma^-1 = scale * (S + ridge I)^-1.

    The ridge is measured on residuals that are not pulled.
    """
    means = support.sums / support.counts[:, None]
    offsets = means - means.mean(axis=0)
    residuals = support.U.astype(np.float64) - means[support.index]
    if support.moment is None:
        scatter_trace = float(np.einsum("nd,nd->", residuals, residuals))
    else:
        scatter_trace = float(np.trace(support.moment) - np.einsum("kd,kd->", support.sums, means))
    freedom = float(support.counts.sum()) - len(support.counts)
    ridge = prior.covariance * spread(scatter_trace, freedom, offsets, prior) / support.U.shape[1]
    residuals += (_pull(support.counts, prior)[:, None] * offsets)[support.index]
    return residuals, offsets, freedom + prior.covariance, ridge


def spread(scatter_trace: float, freedom: float, offsets: Float64, prior: Prior) -> float:
    """Squared distance of samples from their class means, measured and expected: t D, of offsets a_k (K, D)."""
    expected = prior.spread * max(_nearest(offsets), _LEAST_DISTANCE)
    return (scatter_trace + prior.spread_weight * expected) / (freedom + prior.spread_weight)


def _nearest(offsets: Float64) -> float:
    """Squared distance of a class mean from the nearest other one, averaged over the classes; 0 for a single one."""
    if len(offsets) < 2:
        return 0.0
    inner = offsets @ offsets.T
    squares = np.diag(inner)
    apart = squares[:, None] + squares - 2.0 * inner
    np.fill_diagonal(apart, np.inf)
    return float(apart.min(axis=1).mean())


def _gram_inverse(residuals: Float64, ridge: float) -> Float64:
    """(R R^T + ridge I)^-1: all that is needed of H^-1 = (S + ridge I)^-1 beside R."""
    return np.asarray(np.linalg.inv(residuals @ residuals.T + ridge * np.eye(len(residuals))))


def _pull(counts: Float64, prior: Prior) -> Float64:
    """How far residuals are taken from the centre instead of the class mean, s_k (K,)."""
    return np.asarray(np.sqrt(prior.pull / (counts - 1.0 + 2.0 * prior.pull)))


def _regular(support: Support, moment: Float64, ridge: float, prior: Prior) -> Float64:
    """H = S + ridge I (D, D) from the second moment."""
    means = support.sums / support.counts[:, None]
    pulled = _pull(support.counts, prior)[:, None] * (means - means.mean(axis=0))
    scatter: Float64 = moment - support.sums.T @ means + (pulled.T * support.counts) @ pulled
    scatter[np.diag_indices_from(scatter)] += ridge
    return scatter


def _linear(
    counts: Float64, centre: Float64, offsets: Float64, directions: Float64, scale: float, prior: Prior
) -> tuple[Float32, Float32]:
    """Weights (K, D) and bias (K,) of the scores, from offsets A and directions A H^-1."""
    trust = counts / (counts + prior.mean)
    weights = (scale * trust)[:, None] * directions
    bias = -0.5 * scale * trust**2 * np.einsum("kd,kd->k", offsets, directions) - weights @ centre
    return weights.astype(np.float32), bias.astype(np.float32)


def held_out_scores(support: Support, prior: Prior) -> tuple[Float64, Index]:
    """Scores (M', K) of each sample held out under the head fitted without it, in closed form, and its class (M',).

    Samples alone in their class have none. Without a sample with residual r of a class of n:
    mu' = mu - r / (n - 1), S' = S - n / (n - 1) r r^T, so H'^-1 follows from H^-1 by Sherman and Morrison,
    and every new product is a combination of old ones, of r = r_pulled - s a. Ridge and pull stay as they were.
    """
    counts, solved, index = support.counts, _solve(support, prior), support.index
    first = len(index) - support.held_out
    keep = first + np.flatnonzero(counts[index[first:]] > 1)
    own = index[keep]
    between = solved.offsets @ solved.directions.T  # A H^-1 A^T
    projected, leverage = solved.projected[keep], solved.leverage[keep]
    rows, classes = np.arange(len(own)), len(counts)
    pull = _pull(counts, prior)[own]
    leverage = leverage - 2.0 * pull * projected[rows, own] + pull**2 * between[own, own]
    projected = projected - pull[:, None] * between[own]
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
    return np.asarray((solved.scale - 1.0) * (trust * query - 0.5 * trust**2 * norm)), own


def held_out_cosines(support: Support) -> tuple[Float64, Float64]:
    """Cosines of the samples held out with the nearest class mean, their own without them, and with the nearest other.

    Both float64 (M,), nan for samples alone in their class.
    """
    first, counts = len(support.U) - support.held_out, support.counts
    U, index = support.U[first:], support.index[first:]
    prototypes = support.sums / counts[:, None]
    rows, n = np.arange(len(index)), counts[index]
    products = U @ prototypes.T
    squares = np.einsum("nd,nd->n", U, U, dtype=np.float64)
    norms = np.einsum("kd,kd->k", prototypes, prototypes)
    cosines = _cosine(products, squares[:, None] * norms)
    # The own mean without the sample is (n mu - u) / (n - 1); the factor 1 / (n - 1) falls out of the cosine.
    own = products[rows, index]
    cosines[rows, index] = _cosine(n * own - squares, squares * (n**2 * norms[index] - 2 * n * own + squares))
    known = cosines.max(axis=1)
    cosines[rows, index] = -np.inf
    alone = n < 2
    return np.where(alone, np.nan, known), np.where(alone, np.nan, cosines.max(axis=1))


def _cosine(products: Float64, squares: Float64) -> Float64:
    """Inner products over the root of the product of both squared lengths; 0 where that is 0."""
    lengths = np.sqrt(np.maximum(squares, 0.0))
    return np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def softmax(logits: Float64) -> Float64:
    """Row-wise softmax of (N, K) logits."""
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exps / exps.sum(axis=1, keepdims=True))


def temperature(scores: Float64, index: Index, prior_scale: float, prior_samples: float) -> float:
    """The factor on scores with the least log-loss on held-out samples.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) on
    leave-one-out scores, with a log-normal prior around `prior_scale` worth `prior_samples` samples. A class of m of
    them counts m / (m + prior_samples): alike where all have as many, less where its mean loss stands on a few.

    Parameters
    ----------
    scores : float64 (M, K), held-out scores.   index : intp (M,), their classes.
    """
    if len(scores) == 0 or scores.shape[1] < 2:
        return prior_scale
    weight = 1.0 / (np.bincount(index, minlength=scores.shape[1]) + prior_samples)[index]
    weight *= len(index) / weight.sum()
    rows = np.arange(len(index))

    def slope(log_scale: float) -> float:
        """Derivative of the objective by the logarithm of the scale."""
        scale = math.exp(log_scale)
        expected = (softmax(scale * scores) * scores).sum(axis=1)
        data = scale * float(weight @ (expected - scores[rows, index]))
        return data + prior_samples * (log_scale - math.log(prior_scale))

    # Bisection: the slope is negative far left (the prior) and positive far right, and 30 halvings of a
    # range of e^20 end within 1e-8 of a sign change.
    low, high = math.log(prior_scale) - 10.0, math.log(prior_scale) + 10.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        if slope(middle) > 0:
            high = middle
        else:
            low = middle
    return math.exp(0.5 * (low + high))
