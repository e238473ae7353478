"""From held-out samples to confidences and the threshold for "unknown"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fieldshot.ops import Float64

__all__ = ["OpenSet", "open_set", "whole_support_factor"]

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


def whole_support_factor(counts: Float64) -> float:
    """Factor on a temperature that held-out samples chose.

    They were judged by heads that had one sample less of their class, and are less sure than the head of all
    samples can be: by 1 + 1 / n (measured in docs/head.md), with n the harmonic mean of the classes' counts.

    Parameters
    ----------
    counts : float64 (K,), samples a class; those alone in their class held nothing out.
    """
    shares = [1.0 / count for count in counts.tolist() if count > 1]  # of few classes quicker than by NumPy
    return 1.0 + sum(shares) / len(shares) if shares else 1.0


def open_set(known: Float64, unknown: Float64, classes: int, false_accept_rate: float | None) -> OpenSet:
    """Threshold on the cosine of a sample with the nearest class mean.

    A sample held out of its class's mean stands for a thing of a known class; compared with the other
    classes only, for one of no known class. Stated, `false_accept_rate` fixes the threshold by the second;
    left out, at most 5 % of the first are refused, and no more than it takes to refuse 95 % of the second
    (pictures out of one burst are so alike that 5 % of them would be too tight). Samples alone in their
    class are not counted.

    Parameters
    ----------
    known, unknown : float64 (M,), of `fieldshot.ops.Solution`.
    classes : int, K.
    """
    several = ~np.isnan(known)
    known, unknown = known[several], unknown[several]
    stated = 1.0 / false_accept_rate if false_accept_rate else 0.0
    if classes < 2 or len(known) < max(_LEAST_HELD_OUT, stated):
        return OpenSet(math.nan, math.nan, math.nan, len(known))
    known.sort()
    unknown.sort()
    if false_accept_rate is None:
        threshold = min(_quantile(known, _FALSE_REJECT_RATE), _quantile(unknown, 1.0 - _FALSE_ACCEPT_RATE))
    else:
        threshold = _quantile(unknown, 1.0 - false_accept_rate)
    accepted = 1.0 - float(unknown.searchsorted(threshold)) / len(unknown)
    return OpenSet(threshold, accepted, float(known.searchsorted(threshold)) / len(known), len(known))


def _quantile(ordered: Float64, share: float) -> float:
    """`np.quantile` of sorted numbers, without its tenth of a millisecond."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
