"""A second opinion: how densely the samples of each class lie around a query.

One mean a class says little where the pictures of a class fall into several clouds (bottles from the side and from
above). There the logits get a kernel density estimate beside them (Parzen, 1962), of a transformed embedding u over the
samples u_i of class k:

    weight log mean_i exp(40 (u . u_i - 1))

The weight is 0 unless another would have said more of the held-out samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fieldshot.ops import Classifier
from fieldshot.ops.reference import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fieldshot.ops import Float32, Float64, Solution, Support

__all__ = ["Neighbours", "neighbours"]

_SHARPNESS = 40.0
_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
# Samples of the smallest class. With fewer the held-out ones are too few to judge by.
_LEAST = 10
# Samples of all classes together that queries are compared with, and of each class at least.
_MOST, _LEAST_EACH = 512, 8
# So many standard errors the gain on held-out samples must be above 0.
_SURE = 2.0


@dataclass(frozen=True)
class Neighbours:
    """Samples to compare with.

    samples : float32 (M, D), transformed, class by class.   starts : intp (K,), first row of each class.
    counts : float64 (K,), rows of each class.   weight : of the log density beside the logits.
    """

    samples: Float32
    starts: NDArray[np.intp]
    counts: Float64
    weight: float

    def classifier(self) -> Classifier:
        """A classifier whose logits are the cosines with the samples."""
        return Classifier(self.samples, np.zeros(len(self.samples), np.float32), self.samples, 1.0)

    def beside(self, logits: Float64, cosines: Float64) -> Float64:
        """Logits (N, K) with the densities of cosines (N, M) beside them."""
        return logits + self.weight * _log_density(cosines, self.starts, self.counts)


def neighbours(support: Support, solution: Solution) -> Neighbours | None:
    """Samples of a support to compare with, or None where they would not have helped.

    Weights are judged by the class-balanced log-loss of samples held out of scores and densities alike.
    """
    K = len(support.counts)
    each = _MOST // K
    if K < 2 or each < _LEAST_EACH or min(support.counts.tolist()) < _LEAST:  # of few classes quicker than by NumPy
        return None
    firsts = support.starts[:-1].astype(np.intp)
    kept = np.minimum(np.diff(support.starts), each)
    held_out = np.concatenate([np.arange(first, first + count) for first, count in zip(firsts, kept, strict=True)])
    rows = held_out + (len(support.U) - support.held_out)
    samples, own = support.U[rows], support.index[rows]
    starts, counts = np.append(0, np.cumsum(kept)[:-1]).astype(np.intp), kept.astype(np.float64)
    cosines = samples @ samples.T
    np.fill_diagonal(cosines, -np.inf)
    left = np.where(np.arange(K) == own[:, None], counts - 1.0, counts)
    # By columns, for NumPy is quicker along many samples than along few classes.
    density = np.asfortranarray(_log_density(cosines, starts, left))
    logits = np.asfortranarray(solution.temperature * solution.held_out[held_out].astype(np.float64))
    balance = 1.0 / counts[own]
    balance /= balance.mean()

    each_row = np.arange(len(own))

    def losses(weight: float) -> Float64:
        chances = softmax(logits + weight * density)[each_row, own]
        return np.asarray(-balance * np.log(np.maximum(chances, 1e-12)))

    def falls(changes: Float64) -> bool:
        return bool(changes.mean() < -_SURE * changes.std() / len(own) ** 0.5)

    # The loss is convex in the weight: where it does not fall at 0 it falls nowhere.
    if not falls(balance * ((softmax(logits) * density).sum(axis=1) - density[each_row, own])):
        return None
    before, best, least = losses(0.0), 0.0, 0.0
    for weight in _WEIGHTS:
        change = losses(weight) - before
        if change.mean() < least and falls(change):
            best, least = weight, float(change.mean())
    return Neighbours(samples, starts, counts, best) if best else None


def _log_density(cosines: NDArray[np.floating], starts: NDArray[np.intp], counts: Float64) -> Float64:
    near = np.subtract(cosines, 1.0, dtype=np.float32)
    near *= _SHARPNESS
    np.exp(near, out=near)
    return np.log(np.maximum(np.add.reduceat(near, starts, axis=1) / counts, 1e-30))
