"""Timing of sides that take turns in one process, so that a slow moment of the machine hits them all."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

Side = Callable[[], object] | tuple[Callable[[], Any], Callable[[Any], object]]


class Turns(dict[str, list[float]]):
    """Milliseconds that each side took, turn by turn."""

    def medians(self) -> dict[str, float]:
        return {side: median(values) for side, values in self.items()}

    def ratio(self, side: str, other: str) -> float:
        """How many times the other's it took: the median over turns, so that a slow moment counts for neither."""
        return median(one / two for one, two in zip(self[side], self[other], strict=True))


Compare = Callable[..., Turns]
"""The fixture `compare`: `in_turn`, ours first, printed in the table at the end."""


def in_turn(seconds: float, **sides: Side) -> Turns:
    """Time the sides for so long, at least five turns after one to warm up.

    A side is what is timed, or a pair: what makes its argument, untimed, and what is timed.
    """
    turns = Turns({name: [] for name in sides})
    end = perf_counter() + seconds
    while perf_counter() < end or min(map(len, turns.values())) < 6:
        for name, side in sides.items():
            prepare, step = side if isinstance(side, tuple) else (None, side)
            arguments = () if prepare is None else (prepare(),)
            start = perf_counter()
            step(*arguments)
            turns[name].append(1e3 * (perf_counter() - start))
    return Turns({name: values[1:] for name, values in turns.items()})
