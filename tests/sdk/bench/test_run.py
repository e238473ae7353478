"""Stages are timed on the pictures that are given, in fresh processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot import bench
from fieldshot.bench.probe.stages import STAGES
from fieldshot.bench.suites import SUITES, plan, stages_of
from fieldshot.errors import MeasurementError, OptionError


def test_every_stage_on_given_pictures(tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(np.full((50, 60, 3), 90 * number, np.uint8)).save(tmp_path / f"{number}.png")
    steps: list[tuple[int, int | None]] = []
    result = bench.run(
        tiny_bundle,
        sorted(tmp_path.iterdir()),
        suite="full",
        rounds=1,
        cores=1,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert list(result.absent) == ["network-float16", "network-int8", "device-memory"]
    assert result.absent["network-int8"] == "the bundle has no network in int8"
    assert [of.name for of in result.stages] == [name for name in SUITES["full"] if name not in result.absent]
    assert steps == [(1, 1)]
    times = {of.name: of.summary() for of in result.stages}
    assert all(0 < of["p50"] <= of["p95"] <= of["p99"] and of["cpu"] > 0 for of in times.values())
    assert times["decode"]["p50"] < times["recognize"]["p50"] < times["cold"]["p50"]
    assert 20 < times["memory"]["p50"] < 2000
    assert result.facts["backbone"]["name"] == "tiny-0"
    assert result.board["machine"]
    assert len(result.stages[0].rounds) == 1


def test_networks_of_all_precisions() -> None:
    result = bench.run(suite="network,network-float16,network-int8", rounds=1, cores=1)
    assert [of.name for of in result.stages] == ["network", "network-float16"]
    assert list(result.absent) == ["network-int8"]


def test_what_cannot_be_timed(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"rounds must be above 0 \(got 0\)"):
        bench.run(tiny_bundle, rounds=0)
    with pytest.raises(OptionError, match="pictures must hold at least one"):
        bench.run(tiny_bundle, [])
    with pytest.raises(OptionError, match="cores must be 1 to"):
        bench.run(tiny_bundle, cores=1000)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(MeasurementError, match=r"broken\.png"):
        bench.run(tiny_bundle, [tmp_path / "broken.png"])


def test_suites() -> None:
    assert stages_of("quick") == SUITES["quick"]
    assert stages_of("decode, cold,decode") == ["decode", "cold"]
    assert set(STAGES) < set(stages_of("full"))
    with pytest.raises(OptionError, match="'decoding'"):
        stages_of("decode,decoding")


def test_plans_take_the_same_time_for_quick_and_slow_stages() -> None:
    plans = plan({"predict": 20_000, "recognize": 10_000_000, "partial_fit": 200_000, "enroll": 80_000_000})
    assert plans["predict"] == {"calls": 25, "samples": 8, "warm": 1, "turns": 18}
    assert plans["recognize"] == {"calls": 1, "samples": 1, "warm": 0, "turns": 15}
    assert plans["partial_fit"]["calls"] == 1
    assert plans["enroll"]["turns"] == 6
