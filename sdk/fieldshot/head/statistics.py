"""What a head remembers of one class: enough to add to it, and to take it away exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldshot.ops import Support

if TYPE_CHECKING:
    from fieldshot.ops import Float32, Float64, Ops

__all__ = ["ClassStatistics", "added", "apart", "joined", "pooled"]

# So many samples a class stay at hand for the leave-one-out scores, whatever its size.
_HELD_OUT_PER_CLASS = 64


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """Count, sum and samples of one class; past 2 D samples their second moment instead.

    The (D, D) float64 second moment takes the room of 2 D float32 samples, so memory is bounded by that
    of the larger of the two however many samples stream in.

    Attributes
    ----------
    count : int
    total : float64 (D,), sum of the transformed embeddings.
    samples : float32 (M, D), all of them, or the first `_HELD_OUT_PER_CLASS` where `moment` is there.
    moment : float64 (D, D) or None, second moment of all samples.
    """

    count: int
    total: Float64
    samples: Float32
    moment: Float64 | None = None


def added(before: ClassStatistics | None, U: Float32, total: Float64, ops: Ops) -> ClassStatistics:
    """Statistics with more transformed embeddings `U` (M, D) of the class, whose sum is `total` (D,).

    Where it has none yet and they are few, the samples that it remembers are `U` itself.
    """
    if before is not None:
        if before.moment is not None:
            moment = _moment([U], [total], before.moment, ops)
            return ClassStatistics(before.count + len(U), before.total + total, before.samples, moment)
        U, total = np.concatenate([before.samples, U]), before.total + total
    if len(U) <= max(2 * U.shape[1], _HELD_OUT_PER_CLASS):
        return ClassStatistics(len(U), total, U)
    return ClassStatistics(len(U), total, U[:_HELD_OUT_PER_CLASS].copy(), _moment([U], [total], None, ops))


def apart(classes: dict[Any, ClassStatistics]) -> dict[Any, ClassStatistics]:
    """The same by label, where none keeps the batch that it came in: others may go, or soon remember theirs anew."""
    return {
        label: s if s.samples.base is None else replace(s, samples=s.samples.copy()) for label, s in classes.items()
    }


def joined(one: ClassStatistics, other: ClassStatistics, ops: Ops) -> ClassStatistics:
    """Statistics of one class from those of two parts of its samples."""
    if other.moment is None:
        return added(one, other.samples, other.total, ops)
    moment = one.moment
    moment = _moment([one.samples], [one.total], other.moment, ops) if moment is None else moment + other.moment
    kept = np.concatenate([one.samples, other.samples])[:_HELD_OUT_PER_CLASS]
    return ClassStatistics(one.count + other.count, one.total + other.total, kept, moment)


def pooled(classes: Sequence[ClassStatistics], held_out: int, ops: Ops) -> Support:
    """What all classes remember, together.

    Up to D samples the Gram matrix is the smaller one; past that the second moment is, and of the samples only those to
    be held out are needed. These are all where they are no more than `held_out`, else as many of each class as make so
    many together, or two, if it remembers them; but a sample alone in its class cannot be held out.
    """
    counts = [s.count for s in classes]
    moments = [s.moment for s in classes if s.moment is not None]
    at_hand = not moments and sum(counts) <= len(classes[0].total)
    few = at_hand and sum(counts) <= held_out
    most = None if few else max(2, _share([len(s.samples) for s in classes if s.count > 1], held_out))
    kept = [s.samples[:most] for s in classes]
    others = [s.samples[most:] for s in classes] if at_hand and not few else []
    U, starts = np.concatenate([*others, *kept]), np.array([0, *accumulate(map(len, kept))], np.int32)
    held = U, starts, np.array(counts, np.float64), np.array([s.total for s in classes])
    if at_hand:
        return Support(*held, None)
    moment = sum(moments[1:], start=moments[0]) if moments else None
    rest = [s for s in classes if s.moment is None]
    if rest:
        moment = _moment([s.samples for s in rest], [s.total for s in rest], moment, ops)
    return Support(*held, moment)


def _moment(samples: Sequence[Float32], totals: Sequence[Float64], before: Float64 | None, ops: Ops) -> Float64:
    """Second moment (D, D) of the samples (M, D) of some classes, whose sums are `totals`, added to `before`.

    It is taken around the mean of each: kernels add products in float32, and what all samples of a class have in common
    would drown how they differ.
    """
    sums, counts = np.array(totals), np.array(list(map(len, samples)))
    means = (sums / counts[:, None]).astype(np.float32)
    around = np.empty((counts.sum(), sums.shape[1]), np.float32)
    for U, mean, end in zip(samples, means, np.cumsum(counts), strict=True):
        np.subtract(U, mean, out=around[end - len(U) : end])
    moment = ops.moment(around, before)
    left = sums - counts[:, None] * means.astype(np.float64)  # of means that are rounded
    above, beside = np.concatenate([sums, means]), np.concatenate([means, left])
    for first in range(0, len(moment), 64):  # by rows that stay in the cache
        moment[first : first + 64] += above[:, first : first + 64].T @ beside
    return moment


def _share(sizes: Sequence[int], together: int) -> int:
    """How many each gives, or all that it has, so that they are `together`, or as near as they come."""
    for others, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        share = -(-together // others)
        if size >= share:
            return share
        together -= size
    return max(sizes, default=0)
