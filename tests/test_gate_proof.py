"""The script that proves the gate: its slow-down is as large as it says, and on drawn noise it counts right."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fieldshot.bench.probe import stages

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gate_proof

    yield gate_proof
    sys.modules.pop("gate_proof", None)


@pytest.mark.parametrize("took_ns", [5_000, 1_000_000])
def test_the_planted_slow_down_is_as_large_as_it_says(
    proof: ModuleType, monkeypatch: pytest.MonkeyPatch, took_ns: int
) -> None:
    now = 0

    def clock() -> int:
        nonlocal now
        now += 60  # reading it takes time too
        return now

    def busy(_: object) -> None:
        nonlocal now
        now += took_ns

    monkeypatch.setattr(time, "thread_time_ns", clock)
    monkeypatch.setitem(stages.STAGES, "decode", lambda bench: stages.Stage(busy))
    monkeypatch.setitem(sys.modules, "fieldshot_probe", sys.modules["fieldshot.bench.probe"])
    exec(proof.PLANT.format(stage="decode", share=0.05), {"main": lambda: None})
    planted = stages.STAGES["decode"](None)
    start = now
    for _ in range(100):
        planted.step(None)
    assert (now - start) / (100 * took_ns) == pytest.approx(1.05, abs=1e-3)


def test_simulated_runs(proof: ModuleType) -> None:
    names = ["decode", "predict", "recognize"]
    identical = proof.simulated(0.0, 10, 0.02, names)
    assert "10 runs of 0 s; false alarms in 0; stages left alone" in proof.told(0.0, identical)
    planted = proof.simulated(0.1, 10, 0.02, names)
    assert [run["stage"] for run in planted[:4]] == ["decode", "predict", "recognize", "decode"]
    caught = int(proof.told(0.1, planted).partition("the stage itself: ")[2].partition(" slower")[0])
    assert caught >= 8


def test_an_alarm_of_another_stage_is_false(proof: ModuleType) -> None:
    slower, level = ["slower", 1.1, 1.06, 1.2, 8], ["level", 1.0, 0.98, 1.02, 8]
    runs = [
        {"share": 0.1, "stage": "decode", "took_s": 60.0, "verdicts": {"decode": slower, "predict": level}},
        {"share": 0.1, "stage": "decode", "took_s": 80.0, "verdicts": {"decode": level, "predict": slower}},
    ]
    assert proof.told(0.1, runs).startswith(
        "10 % planted: 2 runs of 70 s; false alarms in 1; the stage itself: 1 slower, 1 level;"
    )


def test_kinds_of_runs_in_proportion(proof: ModuleType) -> None:
    done = [{"share": 0.0}]
    assert list(proof.in_turn({0.0: 4, 0.1: 2}, done)) == [0.1, 0.0, 0.0, 0.1, 0.0]
