"""What a head remembers of one class: enough to add to it, and to take it away exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fieldshot.ops import Float32, Float64, Ops

__all__ = ["HELD_OUT_PER_CLASS", "ClassStatistics"]

# So many samples a class stay at hand for the leave-one-out scores, whatever its size.
HELD_OUT_PER_CLASS = 64


class ClassStatistics:
    """Count, sum and samples of one class; past 2 D samples their second moment instead.

    The (D, D) float64 second moment takes the room of 2 D float32 samples, so memory is bounded by that
    of the larger of the two however many samples stream in. Immutable: `plus` gives a new one.

    Attributes
    ----------
    count : int
    total : float64 (D,), sum of the transformed embeddings.
    samples : float32 (M, D), all of them, or the first `HELD_OUT_PER_CLASS` where `moment` is there.
    moment : float64 (D, D) or None, second moment of all samples.
    """

    __slots__ = ("count", "moment", "samples", "total")

    def __init__(self, count: int, total: Float64, samples: Float32, moment: Float64 | None = None) -> None:
        self.count, self.total, self.samples, self.moment = count, total, samples, moment

    @classmethod
    def empty(cls, dim: int) -> ClassStatistics:
        """A class without samples."""
        return cls(0, np.zeros(dim), np.zeros((0, dim), np.float32))

    def plus(self, U: Float32, ops: Ops) -> ClassStatistics:
        """These and the transformed embeddings `U` (M, D) together."""
        count, total = self.count + len(U), self.total + U.sum(axis=0, dtype=np.float64)
        if self.moment is not None:
            return ClassStatistics(count, total, self.samples, self.moment + ops.moment(U))
        samples = np.concatenate([self.samples, U])
        if count <= 2 * U.shape[1] or count <= HELD_OUT_PER_CLASS:
            return ClassStatistics(count, total, samples)
        return ClassStatistics(count, total, samples[:HELD_OUT_PER_CLASS].copy(), ops.moment(samples))
