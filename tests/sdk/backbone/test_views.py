"""Views: the mean over parts of a picture, wherever it is embedded, and as many as there is time for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot import Backbone
from fieldshot.backbone.views import views_of
from fieldshot.errors import OptionError


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def boxes(views: int) -> list[tuple[slice, slice]]:
    """Of 40 rows and 60 columns; 85 % of them are 34 and 51."""
    parts = {1: [], 2: [(3, 4)], 3: [(0, 0), (6, 9)]}[views]
    whole = (slice(0, 40), slice(0, 60))
    return [whole, *((slice(top, top + 34), slice(left, left + 51)) for top, left in parts)]


@pytest.mark.parametrize("views", [1, 2, 3])
def test_views_are_the_picture_and_parts_of_it(picture: np.ndarray, views: int) -> None:
    expected = [picture[box] for box in boxes(views)]
    for seen in (views_of(picture, views), map(np.asarray, views_of(Image.fromarray(picture), views))):
        for got, want in zip(seen, expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_picture_of_one_pixel_has_views() -> None:
    assert [view.shape for view in views_of(np.zeros((1, 1, 3), np.uint8), 3)] == [(1, 1, 3)] * 3


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("count", [1, 7])
def test_an_embedding_is_the_mean_over_the_views(
    tiny_bundle: Path, picture: np.ndarray, views: int, count: int
) -> None:
    plain = Backbone.load(tiny_bundle)
    pictures = [np.roll(picture, 5 * i, axis=1) for i in range(count)]
    expected = np.mean([plain.embed([p[box] for p in pictures]) for box in boxes(views)], axis=0)
    got = Backbone.load(tiny_bundle, views=views).embed(pictures)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain.with_views(views).embed(pictures), got)


def test_only_embeddings_of_as_many_views_may_be_compared(tiny_bundle: Path) -> None:
    plain = Backbone.load(tiny_bundle)
    contracts = [plain.contract, *(plain.with_views(views).contract for views in (2, 3))]
    assert len(set(contracts)) == 3
    assert plain.with_views(3).with_views(1).contract == plain.contract
    assert plain.with_views(3).info()["views"] == 3


@pytest.mark.parametrize("views", [0, 4, 1.5, True, "3", None])
def test_other_numbers_of_views_are_refused(tiny_bundle: Path, views: object) -> None:
    with pytest.raises(OptionError, match=r"views must be 1, 2 or 3 \(got"):
        Backbone.load(tiny_bundle, views=views)


@pytest.fixture
def slow(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """A backbone that takes ten milliseconds a view, by a clock that stands still otherwise."""
    backbone = Backbone.load(tiny_bundle)
    run, clock = backbone._engine.run, [0.0]

    def ten_milliseconds_each(inputs: np.ndarray) -> np.ndarray:
        clock[0] += 0.01 * len(inputs)
        return run(inputs)

    monkeypatch.setattr(backbone._engine, "run", ten_milliseconds_each)
    monkeypatch.setattr("fieldshot.backbone.perf_counter", lambda: clock[0])
    return backbone


def test_the_time_there_is_decides_how_many(slow: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    assert [slow.views_within(ms) for ms in (11, 21, 29, 31, 500, np.float32(21))] == [1, 2, 2, 3, 3, 2]
    assert not caplog.text
    assert slow.views_within(2.5) == 1
    assert "one view of a picture takes 10.0 ms to embed here, more than the budget of 2.5 ms" in caplog.text


@pytest.mark.parametrize("budget", [0, -3, float("nan"), float("inf"), True, "60", None])
def test_what_is_no_budget_is_refused(tiny_bundle: Path, budget: object) -> None:
    with pytest.raises(OptionError, match=r"budget_ms must be a number of milliseconds above 0 \(got"):
        Backbone.load(tiny_bundle).views_within(budget)
