"""Timing of sides that take turns in one process, so that a slow moment of the machine hits them all."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter


def in_turn(seconds: float, **sides: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of each side, of at least five turns after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = perf_counter() + seconds
    while perf_counter() < end or min(map(len, times.values())) < 6:
        for name, side in sides.items():
            start = perf_counter()
            side()
            times[name].append(1e3 * (perf_counter() - start))
    return {name: median(values[1:]) for name, values in times.items()}
