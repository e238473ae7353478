"""From leave-one-out scores to a confidence and to the threshold for "unknown"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fieldshot.ops import Float64, Index

__all__ = ["OpenSet", "open_set", "softmax", "temperature"]

# Below so many held-out samples no threshold is promised: one in twenty could not even be seen.
_LEAST_HELD_OUT = 20
# Share of pictures of known classes that may be called unknown when the user states no rate.
_FALSE_REJECT_RATE = 0.05


@dataclass(frozen=True)
class OpenSet:
    """The threshold for "unknown" and what leave-one-out scores say it does.

    Attributes
    ----------
    threshold : float
        Scores below it are unknown; nan where the samples are too few to say.
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


def open_set(scores: Float64, index: Index, false_accept_rate: float | None) -> OpenSet:
    """Threshold on the best score of a sample.

    A held-out sample scored against the other classes only stands for a thing of no known class; scored
    against its own, for a known one. Stated, `false_accept_rate` fixes the threshold by the first; left
    out, at most 5 % of the second are refused.
    """
    stated = 1.0 / false_accept_rate if false_accept_rate else 0.0
    if scores.shape[1] < 2 or len(scores) < max(_LEAST_HELD_OUT, stated):
        return OpenSet(math.nan, math.nan, math.nan, len(scores))
    rows = np.arange(len(index))
    known = scores.max(axis=1)
    others = scores.copy()
    others[rows, index] = -np.inf
    unknown = others.max(axis=1)
    if false_accept_rate is None:
        threshold = float(np.quantile(known, _FALSE_REJECT_RATE))
    else:
        threshold = float(np.quantile(unknown, 1.0 - false_accept_rate))
    return OpenSet(threshold, float(np.mean(unknown >= threshold)), float(np.mean(known < threshold)), len(scores))
