"""Weights of a resize. That they are Pillow's is held by tests/kernels/test_preprocess.py, on every build."""

from __future__ import annotations

import numpy as np
import pytest

from fieldshot.images import resampling
from fieldshot.images.resampling import PLACES, axis_of, down_first


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("size", "to", "start", "count"), [(100, 7, 0, 7), (100, 7, 2, 3), (7, 100, 40, 9), (1, 5, 1, 2)]
)
def test_an_output_pixel_is_a_mean_of_pixels_that_are_there(
    interpolation: str, size: int, to: int, start: int, count: int
) -> None:
    first, last, taps, table = axis_of(interpolation, size, to, start, count)
    froms, weights = table[:count], table[count:].reshape(count, taps)
    assert 0 <= first < last <= size
    assert (froms.min(), froms.max() + taps) == (0, last - first)
    np.testing.assert_allclose(weights.sum(axis=1) / 2**PLACES, 1, atol=taps / 2**PLACES)
    centres = (start + np.arange(count) + 0.5) * size / to
    assert (np.abs(first + froms + taps / 2 - centres) <= taps / 2 + 1).all()


def test_a_side_that_stays_is_taken_over() -> None:
    first, last, taps, table = axis_of("lanczos", 9, 9, 2, 4)
    assert (first, last, taps) == (2, 6, 1)
    assert table.tolist() == [0, 1, 2, 3, *[1 << PLACES] * 4]


@pytest.mark.parametrize(
    ("pillow", "sides", "expected"),
    [
        ((13, 0), (100, 10, 50, 5), True),
        ((14, 2), (40, 30, 19, 20), True),
        ((13, 0), (40, 30, 20, 20), False),  # not more than twice as many rows fall away as columns
        ((13, 0), (10, 30, 20, 90), False),
        ((12, 3), (100, 10, 50, 5), False),
        ((12, 2), (1001, 10, 500, 5), True),
        ((12, 1), (1001, 10, 500, 5), False),
    ],
)
def test_which_way_pillow_goes_first(
    monkeypatch: pytest.MonkeyPatch, pillow: tuple[int, int], sides: tuple[int, int, int, int], expected: bool
) -> None:
    monkeypatch.setattr(resampling, "_PILLOW", pillow)
    assert down_first(*sides) is expected
