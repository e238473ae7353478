"""From noisy ratios to verdicts: bootstrap intervals, corrected for how often they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "EARLY",
    "FASTER",
    "FEWEST",
    "INCONCLUSIVE",
    "LEVEL",
    "LOOKS",
    "SLOWER",
    "Verdict",
    "decide",
    "judge",
    "midmean",
    "two_sided",
]

Floats = npt.NDArray[np.float64]

SLOWER, FASTER, LEVEL, INCONCLUSIVE = "slower", "faster", "level", "inconclusive"

# A false alarm is what gets a gate deleted: slower and faster share this rate of error among all benchmarks and looks.
# Level has it for each benchmark, shared among its looks: the intervals of alarms would take twice as many rounds to
# say what nearly always is the case.
ERROR_RATE = 0.05
LOOKS = (6, 8, 11, 15, 20, 27)  # after so many rounds it is looked whether a benchmark is decided, and at the end
# The last look, when the time is over, has half of the rate; the looks before it and one on the wall share the rest.
LAST, EARLY = 2, 2 * (len(LOOKS) + 1)
FEWEST = LOOKS[0]
MOST = 40  # rounds
RESAMPLES = 10_000


class Verdict(NamedTuple):
    """What is known of one benchmark.

    Attributes
    ----------
    name, verdict : str
        Benchmark; slower, faster, level or inconclusive.
    ratio, low, high : float
        Head over base, and the interval of this benchmark alone.
    threshold : float
        A change by less, such as 0.05, is level.
    rounds : int
        Pairs of processes that it stands on; processes of the side with fewer, where they were not paired.
    advice : str
        What would settle it, where it is inconclusive.
    clock : str
        The time that it is on: processor or wall.
    """

    name: str
    verdict: str
    ratio: float
    low: float
    high: float
    threshold: float
    rounds: int
    advice: str = ""
    clock: str = "processor"


def midmean(values: Iterable[float]) -> float:
    """Mean of the middle half, parts of values counted: nearly as steady as the mean, as deaf to outliers as can be."""
    return float(_midmeans(np.fromiter(values, float)))


def _midmeans(values: Floats) -> Floats:
    """Of the last axis."""
    count = values.shape[-1]
    edge, upper = count / 4, np.arange(1, count + 1)
    weights = np.clip(np.minimum(upper - edge, count - edge - upper + 1), 0, 1)
    return np.asarray(np.sort(values) @ (weights / weights.sum()))


def judge(
    name: str,
    logs: Sequence[float],
    threshold: float,
    *,
    benchmarks: int,
    looks: int = 1,
    seed: int = 0,
    other: Sequence[float] = (),
) -> Verdict:
    """Judge one benchmark by a bootstrap over its rounds.

    The interval of the middle (`midmean`) is the expanded percentile interval (Hesterberg, The American Statistician
    69(4), 2015): of few rounds a plain bootstrap is too narrow, and is widened as Student's t is wider than the normal
    distribution.

    Parameters
    ----------
    name : str
    logs : sequence of float
        Logarithm of head over base in each round; or of the head alone, where `other` is of the base.
    threshold : float
        A change by less is level.
    benchmarks : int
        How many are judged together: the wide interval, of slower and faster, shares the error rate among them.
    looks : int
        Into how many parts the rate is shared among the looks at each, for both intervals (Bonferroni).
    seed : int
        Of the resampling.
    other : sequence of float
        Of the base, where the two were not measured in pairs.

    Returns
    -------
    Verdict
        Slower where the wide interval lies beyond the threshold, level where that of this benchmark alone lies within.
    """
    rounds = min(len(logs), len(other)) if other else len(logs)
    levels = ERROR_RATE / looks, ERROR_RATE / (looks * benchmarks)
    centre, [(low, high), (lowest, highest)] = _intervals(np.asarray(logs), np.asarray(other), levels, seed)
    edge = math.log1p(threshold)
    if rounds < FEWEST and not other:
        verdict = INCONCLUSIVE
    elif lowest > edge:
        verdict = SLOWER
    elif highest < -edge:
        verdict = FASTER
    elif -edge < low and high < edge:
        verdict = LEVEL
    else:
        verdict = INCONCLUSIVE
    found = Verdict(name, verdict, math.exp(centre), math.exp(low), math.exp(high), threshold, rounds)
    if verdict != INCONCLUSIVE:
        return found
    half = (high - low) / 2 if abs(centre) < edge else (highest - lowest) / 2
    return found._replace(advice=_advice(centre, half, edge, rounds))


def decide(
    measure: Callable[[int, Sequence[str]], Mapping[str, float] | None],
    thresholds: Mapping[str, float],
    *,
    seed: int = 0,
    show: Callable[[Sequence[Verdict]], object] | None = None,
) -> list[Verdict]:
    """Measure round after round until every benchmark is decided, or no more rounds are to be had.

    Parameters
    ----------
    measure : callable
        ``measure(number, names)`` gives log(head / base) of one more round for each of the benchmarks that are still
        open, or of those that it could measure; None ends it.
    thresholds : mapping
        Benchmark -> its threshold.
    seed : int
        Of the resampling.
    show : callable, optional
        Called with the verdicts of each look.
    """
    logs: dict[str, list[float]] = {name: [] for name in thresholds}
    verdicts: dict[str, Verdict] = {}

    def judged(names: Iterable[str], looks: int) -> dict[str, Verdict]:
        told = sum(map(bool, logs.values()))
        return {
            name: judge(name, logs[name], thresholds[name], benchmarks=told, looks=looks, seed=seed) for name in names
        }

    for number in range(1, MOST + 1):
        # What the first round did not tell, none will.
        still = [name for name in thresholds if name not in verdicts and (number == 1 or logs[name])]
        found = measure(number, still) if still else None
        if found is None:
            break
        for name, log in found.items():
            logs[name].append(log)
        if number in LOOKS:
            looked = judged(still, EARLY)
            verdicts.update({name: of for name, of in looked.items() if of.verdict != INCONCLUSIVE})
            if show is not None:
                show(list(looked.values()))
    verdicts.update(judged((name for name in thresholds if name not in verdicts and logs[name]), LAST))
    return [verdicts[name] for name in thresholds if name in verdicts]


def two_sided(level: float, freedom: int) -> float:
    """Student's t that is exceeded, on either side, with a probability of `level`, by integrating its density."""
    angles, cumulated = _student(freedom)
    return float(math.sqrt(freedom) * math.tan(np.interp(1 - level, cumulated, angles)))


@lru_cache(maxsize=64)
def _student(freedom: int) -> tuple[Floats, Floats]:
    """With t = sqrt(f) tan(a) the density of |t| is proportional to cos(a) ** (f - 1), which ends at a quarter turn."""
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    cumulated = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return angles, cumulated / cumulated[-1]


def _intervals(
    logs: Floats, other: Floats, levels: Iterable[float], seed: int
) -> tuple[float, list[tuple[float, float]]]:
    """Middle of the rounds, or difference of two, and for each level the ends of its interval."""
    random = np.random.default_rng(seed)
    freedom = (min(len(logs), len(other)) if len(other) else len(logs)) - 1
    centre = float(_midmeans(logs)) - (float(_midmeans(other)) if len(other) else 0.0)
    if freedom < 1:
        return centre, [(-math.inf, math.inf) for _ in levels]
    middles = _resampled(logs, random)
    if len(other):
        middles = middles - _resampled(other, random)
    return centre, [_interval(middles, centre, level, freedom) for level in levels]


def _interval(middles: Floats, centre: float, level: float, freedom: int) -> tuple[float, float]:
    wanted = two_sided(level, freedom) * math.sqrt((freedom + 1) / freedom)
    tail = max(1 - NormalDist().cdf(wanted), 2 / RESAMPLES)
    # Where the bootstrap has no resamples left so far out, what it has is drawn out by as much.
    stretch = wanted / NormalDist().inv_cdf(1 - tail)
    low, high = np.quantile(middles, [tail, 1 - tail]) - centre
    return centre + stretch * float(low), centre + stretch * float(high)


def _resampled(values: Floats, random: np.random.Generator) -> Floats:
    """Middles of samples drawn with replacement."""
    return _midmeans(values[random.integers(0, len(values), (RESAMPLES, len(values)))])


def _advice(centre: float, half: float, edge: float, rounds: int) -> str:
    """What would settle it: so many rounds that the interval keeps clear of the threshold."""
    if rounds < FEWEST:
        return f"at least {FEWEST} rounds"
    distance = abs(abs(centre) - edge)
    needed = math.ceil(rounds * (half / distance) ** 2) if distance > 0 else 10 * MOST
    if needed > 3 * MOST:
        return f"the ratio lies close to the threshold of {100 * math.expm1(edge):.0f} %: look at it, or set another"
    return f"about {max(needed, rounds + 1)} rounds like these {rounds}, or a quieter machine"
