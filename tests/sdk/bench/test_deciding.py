"""Verdicts: right where the noise allows one, none where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fieldshot.bench.deciding import (
    FASTER,
    INCONCLUSIVE,
    LEVEL,
    LOOKS,
    SLOWER,
    Verdict,
    decide,
    judge,
    midmean,
    two_sided,
)

Measure = Callable[[int, Sequence[str]], "dict[str, float] | None"]


def noisy(changes: dict[str, float], noise: float, *, rounds: int = 20, seed: int = 0) -> Measure:
    """Rounds of benchmarks that changed by these factors."""
    random = np.random.default_rng(seed)

    def measure(number: int, names: Sequence[str]) -> dict[str, float] | None:
        if number > rounds:
            return None
        return {name: math.log1p(changes[name]) + random.normal(0, noise) for name in names}

    return measure


def verdicts(changes: dict[str, float], noise: float, **options: int) -> dict[str, Verdict]:
    return {of.name: of for of in decide(noisy(changes, noise, **options), dict.fromkeys(changes, 0.05))}


def test_midmean() -> None:
    assert midmean([5]) == 5
    assert midmean([1, 3]) == 2
    assert midmean([0, 1, 2, 1000]) == 1.5
    assert midmean([4, 1, 1000, 2, 3]) == pytest.approx((0.75 * 2 + 3 + 0.75 * 4) / 2.5)


@pytest.mark.parametrize(("level", "freedom", "t"), [(0.05, 5, 2.5706), (0.05, 30, 2.0423), (0.001, 9, 4.7809)])
def test_students_t_as_in_tables(level: float, freedom: int, t: float) -> None:
    assert two_sided(level, freedom) == pytest.approx(t, rel=1e-3)


def test_each_verdict_where_the_machine_is_quiet() -> None:
    found = verdicts({"a": 0.10, "b": 0.0, "c": -0.10, "d": 0.05}, 0.01)
    assert [of.verdict for of in found.values()] == [SLOWER, LEVEL, FASTER, INCONCLUSIVE]
    assert found["a"].ratio == pytest.approx(1.1, abs=0.02)
    assert found["a"].low > 1.05
    assert found["a"].rounds < 15  # decided early; the others went on
    assert found["d"].rounds == 20
    assert "close to the threshold" in found["d"].advice


def test_what_is_decided_is_not_measured_any_more() -> None:
    asked: list[set[str]] = []
    measure = noisy({"a": 0.3, "b": 0.05}, 0.01)

    def watched(number: int, names: Sequence[str]) -> dict[str, float] | None:
        asked.append(set(names))
        return measure(number, names)

    decide(watched, {"a": 0.05, "b": 0.05})
    assert asked[0] == {"a", "b"}
    assert asked[LOOKS[0]] == {"b"}


def test_what_is_not_told_is_not_asked_again() -> None:
    asked: list[set[str]] = []
    measure = noisy({"a": 0.0}, 0.01)

    def watched(number: int, names: Sequence[str]) -> dict[str, float] | None:
        asked.append(set(names))
        return measure(number, ["a"])

    found = decide(watched, {"a": 0.05, "untold": 0.05})
    assert [(of.name, of.verdict) for of in found] == [("a", LEVEL)]
    assert asked[0] == {"a", "untold"}
    assert all(names == {"a"} for names in asked[1:])
    assert len(asked) == found[0].rounds


def test_noise_gives_no_verdict_but_what_would_settle_it() -> None:
    found = verdicts({"a": 0.0}, 0.08)["a"]
    assert found.verdict == INCONCLUSIVE
    assert "rounds" in found.advice


def test_too_few_rounds_give_no_verdict() -> None:
    found = verdicts({"a": 0.5}, 1e-4, rounds=LOOKS[0] - 1)["a"]
    assert found.verdict == INCONCLUSIVE
    assert found.advice == f"at least {LOOKS[0]} rounds"


def test_no_false_alarm_and_most_slow_downs_caught() -> None:
    identical = [verdicts(dict.fromkeys("abcdef", 0.0), 0.02, seed=seed) for seed in range(12)]
    assert not any(of.verdict in (SLOWER, FASTER) for run in identical for of in run.values())
    slowed = [verdicts({"a": 0.1, **dict.fromkeys("bcdef", 0.0)}, 0.02, seed=seed) for seed in range(12)]
    assert sum(run["a"].verdict == SLOWER for run in slowed) >= 11


def test_intervals_hold_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        of = judge("a", random.normal(0, 0.02, 8).tolist(), 0.05, benchmarks=1, seed=seed)
        held += of.low < 1 < of.high
    assert 0.91 < held / 200 < 0.99


def test_many_benchmarks_widen_the_interval_of_alarms_alone() -> None:
    noise = np.random.default_rng(0).normal(0, 0.03, 8)
    noise -= midmean(noise)
    logs = math.log(1.08) + noise
    alone, among = (judge("a", logs.tolist(), 0.05, benchmarks=benchmarks) for benchmarks in (1, 200))
    assert alone[2:5] == among[2:5]
    assert (alone.verdict, among.verdict) == (SLOWER, INCONCLUSIVE)
    assert "rounds" in among.advice
    assert judge("a", noise.tolist(), 0.05, benchmarks=200).verdict == LEVEL


def test_unpaired() -> None:
    random = np.random.default_rng(0)
    base, head = random.normal(0, 0.01, 10), random.normal(math.log(1.2), 0.01, 10)
    found = judge("a", head.tolist(), 0.05, benchmarks=5, other=base.tolist())
    assert found.verdict == SLOWER
    assert found.ratio == pytest.approx(1.2, abs=0.02)
    assert judge("a", base.tolist(), 0.05, benchmarks=5, other=base.tolist()).verdict == LEVEL
