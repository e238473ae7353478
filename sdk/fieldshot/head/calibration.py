"""From held-out samples to a confidence and to the threshold for "unknown"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fieldshot.ops import Float32, Float64, Index

__all__ = ["OpenSet", "cosine", "open_set", "softmax", "temperature"]

# Below so many held-out samples no threshold is promised: one in twenty could not even be seen.
_LEAST_HELD_OUT = 20
# Error rates of the threshold when the user states none.
_FALSE_REJECT_RATE = _FALSE_ACCEPT_RATE = 0.05


@dataclass(frozen=True)
class OpenSet:
    """The threshold for "unknown" and what held-out samples say it does.

    Attributes
    ----------
    threshold : float
        Cosines with the nearest class mean below it are unknown; nan where the samples are too few to say.
    false_accept_rate, false_reject_rate : float
        Estimated shares of unknown things accepted and of known things refused; nan without a threshold.
    samples : int
        How many held-out samples the estimate stands on.
    """

    threshold: float
    false_accept_rate: float
    false_reject_rate: float
    samples: int


def softmax(logits: Float64) -> Float64:
    """Row-wise softmax of (N, K) logits."""
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exps / exps.sum(axis=1, keepdims=True))


def temperature(scores: Float64, index: Index, prior_scale: float, prior_samples: float) -> float:
    """The factor on scores with the least class-balanced log-loss on held-out samples.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) on
    leave-one-out scores, with a log-normal prior around `prior_scale` worth `prior_samples` samples.

    Parameters
    ----------
    scores : float64 (M, K), held-out scores.   index : intp (M,), their classes.
    """
    if len(scores) == 0 or scores.shape[1] < 2:
        return prior_scale
    weight = 1.0 / np.bincount(index, minlength=scores.shape[1])[index]
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


def open_set(
    U: Float32, index: Index, counts: Float64, prototypes: Float64, false_accept_rate: float | None
) -> OpenSet:
    """Threshold on the cosine of a sample with the nearest class mean.

    A sample held out of its class's mean stands for a thing of a known class; compared with the other
    classes only, for one of no known class. Stated, `false_accept_rate` fixes the threshold by the second;
    left out, at most 5 % of the first are refused, and no more than it takes to refuse 95 % of the second
    (pictures out of one burst are so alike that 5 % of them would be too tight). Samples alone in their
    class are not counted.

    Parameters
    ----------
    U : float32 (M, D), transformed embeddings.   index : intp (M,), their classes.
    counts : float64 (K,).   prototypes : float64 (K, D), class means.
    """
    keep = counts[index] > 1
    U, index = U[keep], index[keep]
    stated = 1.0 / false_accept_rate if false_accept_rate else 0.0
    if len(counts) < 2 or len(index) < max(_LEAST_HELD_OUT, stated):
        return OpenSet(math.nan, math.nan, math.nan, len(index))
    rows, n = np.arange(len(index)), counts[index]
    products = U @ prototypes.T
    squares = np.einsum("nd,nd->n", U, U, dtype=np.float64)
    norms = np.einsum("kd,kd->k", prototypes, prototypes)
    cosines = cosine(products, squares[:, None], norms)
    # The own mean without the sample is (n mu - u) / (n - 1); the factor 1 / (n - 1) falls out of the cosine.
    own = products[rows, index]
    cosines[rows, index] = cosine(n * own - squares, squares, n**2 * norms[index] - 2 * n * own + squares)
    known = cosines.max(axis=1)
    cosines[rows, index] = -np.inf
    unknown = cosines.max(axis=1)
    if false_accept_rate is None:
        threshold = float(min(np.quantile(known, _FALSE_REJECT_RATE), np.quantile(unknown, 1.0 - _FALSE_ACCEPT_RATE)))
    else:
        threshold = float(np.quantile(unknown, 1.0 - false_accept_rate))
    return OpenSet(threshold, float(np.mean(unknown >= threshold)), float(np.mean(known < threshold)), len(index))


def cosine(products: Float64, squares: Float64, norms: Float64) -> Float64:
    """Inner products over the roots of both squared lengths; 0 where a length is 0."""
    lengths = np.sqrt(np.maximum(squares * norms, 0.0))
    return np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0)
