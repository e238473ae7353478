"""Writing, opening and asking a gallery: all that a user waits for."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldshot import Backbone, Recognizer
from fieldshot.gallery import Gallery


@pytest.fixture(scope="module", params=[5, 50], ids=lambda ways: f"{ways}way-5shot")
def enrolled(request: pytest.FixtureRequest, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("gallery") / "a.gallery"
    with Recognizer.create(path, backbone) as recognizer:
        recognizer.enroll_many(
            {str(label): list(random.integers(0, 256, (5, 64, 64, 3), np.uint8)) for label in range(request.param)}
        )
    return path


def bench_recognize(benchmark: Any, backbone: Backbone, enrolled: Path, photographs: dict[int, Path]) -> None:
    with Recognizer.open(enrolled, backbone=backbone) as recognizer:
        answer = benchmark.pedantic(recognizer.recognize, (photographs[640],), rounds=50, warmup_rounds=5)
        assert len(answer.scores) == len(recognizer.gallery.counts())


def bench_open(benchmark: Any, backbone: Backbone, enrolled: Path) -> None:
    """The head is fitted in it."""

    def opened() -> int:
        with Recognizer.open(enrolled, backbone=backbone) as recognizer:
            return len(recognizer.gallery.counts())

    assert benchmark.pedantic(opened, rounds=20, warmup_rounds=2) in (5, 50)


def bench_enroll(benchmark: Any, backbone: Backbone, tmp_path: Path, photographs: dict[int, Path]) -> None:
    """One picture of a new label, durable when it returns."""
    numbers = count()
    with Recognizer.create(tmp_path / "a.gallery", backbone) as recognizer:
        random = np.random.default_rng(0)

        def one() -> None:
            recognizer.enroll(str(next(numbers)), [random.integers(0, 256, (480, 640, 3), np.uint8)])

        benchmark.pedantic(one, rounds=20, warmup_rounds=2)
        assert len(recognizer.gallery.counts()) == 22


def bench_write(benchmark: Any, backbone: Backbone, enrolled: Path) -> None:
    """One operation of the journal, flushed to the disk: forget and undo in turn."""
    with Gallery.open(enrolled) as gallery:
        before = gallery.counts()

        def both() -> None:
            gallery.forget("0")
            gallery.undo()

        benchmark.pedantic(both, rounds=20, warmup_rounds=2)
        assert gallery.counts() == before
