"""Writing, opening and asking a gallery: all that a user waits for."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldshot import Backbone, Recognizer
from fieldshot.gallery import Gallery
from turns import Compare


@pytest.fixture(scope="module", params=[5, 50], ids=lambda ways: f"{ways}way-5shot")
def enrolled(request: pytest.FixtureRequest, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("gallery") / "a.gallery"
    with Recognizer.create(path, backbone) as recognizer:
        recognizer.enroll_many(
            {str(label): list(random.integers(0, 256, (5, 64, 64, 3), np.uint8)) for label in range(request.param)}
        )
    return path


def bench_recognize(
    benchmark: Any, compare: Compare, backbone: Backbone, enrolled: Path, photographs: dict[int, Path]
) -> None:
    with Recognizer.open(enrolled, backbone=backbone) as recognizer:
        compare(1, ours=lambda: recognizer.recognize(photographs[640]))
        answer = benchmark.pedantic(recognizer.recognize, (photographs[640],), rounds=20)
        assert len(answer.scores) == len(recognizer.gallery.counts())


def bench_open(benchmark: Any, compare: Compare, backbone: Backbone, enrolled: Path) -> None:
    """The head is fitted in it."""

    def opened() -> int:
        with Recognizer.open(enrolled, backbone=backbone) as recognizer:
            return len(recognizer.gallery.counts())

    compare(1, ours=opened)
    assert benchmark.pedantic(opened, rounds=20) in (5, 50)


def bench_enroll(benchmark: Any, compare: Compare, backbone: Backbone, tmp_path: Path) -> None:
    """One picture of a new label, durable when it returns."""
    random, numbers = np.random.default_rng(0), count()
    with Recognizer.create(tmp_path / "a.gallery", backbone) as recognizer:

        def frame() -> np.ndarray:
            return random.integers(0, 256, (480, 640, 3), np.uint8)

        def enrolled(picture: np.ndarray) -> None:
            recognizer.enroll(str(next(numbers)), [picture])

        compare(1, ours=(frame, enrolled))
        benchmark.pedantic(enrolled, setup=lambda: ((frame(),), {}), rounds=20)
        assert len(recognizer.gallery.counts()) == next(numbers)


def bench_write(benchmark: Any, compare: Compare, enrolled: Path) -> None:
    """One operation of the journal, flushed to the disk."""
    with Gallery.open(enrolled) as gallery:
        before = gallery.counts()
        gallery.forget("0")
        compare(1, ours=(gallery.undo, lambda _: gallery.forget("0")))
        benchmark.pedantic(lambda: gallery.forget("0"), setup=lambda: gallery.undo() and None, rounds=20)
        assert "0" not in gallery.counts()
        gallery.undo()
        assert gallery.counts() == before
