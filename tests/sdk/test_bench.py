"""Stages are timed on the pictures that are given, as often as was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot import bench
from fieldshot.backbone import Backbone
from fieldshot.errors import OptionError, PictureError

STAGES = ["decode", "preprocess", "network", "head fit (5-way 5-shot)", "predict", "recognition"]


@pytest.fixture(scope="module")
def backbone(tiny_bundle: Path) -> Backbone:
    return Backbone.load(tiny_bundle)


def test_stages_on_given_pictures(backbone: Backbone, tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(np.full((50, 60, 3), 90 * number, np.uint8)).save(tmp_path / f"{number}.png")
    steps: list[tuple[int, int]] = []
    pictures = sorted(tmp_path.iterdir())
    stages = bench.run(backbone, pictures, runs=4, progress=lambda done, total: steps.append((done, total)))
    assert [stage.name for stage in stages] == STAGES
    assert all(0 < stage.median_ms <= stage.p95_ms and stage.runs == 4 for stage in stages)
    assert steps == [(done, 24) for done in range(1, 25)]


def test_pictures_are_drawn_where_none_are_given(backbone: Backbone) -> None:
    decode, *_, recognition = bench.run(backbone, runs=3)
    assert 0 < decode.median_ms < recognition.median_ms


def test_what_cannot_be_timed(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"runs must be above 0 \(got 0\)"):
        bench.run(backbone, runs=0)
    with pytest.raises(OptionError, match="pictures must hold at least one"):
        bench.run(backbone, [])
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(PictureError, match=r"broken\.png"):
        bench.run(backbone, [tmp_path / "broken.png"])
