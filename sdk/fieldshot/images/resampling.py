"""Pillow's antialiased resize as numbers: of which pixels an output pixel is made, and with which weights.

A filter is stretched by the scale where a picture shrinks, sampled at the pixels that it covers, and brought to a sum
of one; weights are rounded to integers of ``PLACES`` binary places. A resize sums pixels times weights across each row,
rounds to 8 bits, and does the same down each column, or down first. All in the order and precision of Pillow, so that
whoever sums these integers has Pillow's pixels to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL

__all__ = ["PLACES", "Axis", "axis_of", "down_first"]

PLACES: Final = 22
"""Binary places of a weight: products with 8 bits leave two bits of 32 for the sum to overshoot."""

_PILLOW: Final = tuple(int(number) for number in PIL.__version__.split(".")[:2])

Float64 = npt.NDArray[np.float64]


class Axis(NamedTuple):
    """How the output pixels along one side are made.

    first, last : the pixels ``first`` to ``last - 1`` of the side take part.
    taps : pixels that an output pixel is made of; where Pillow takes fewer the weights are 0.
    table : int32 (count * (1 + taps),): of each output pixel the first of its pixels, counted from ``first``; then of
        each output pixel its weights.
    """

    first: int
    last: int
    taps: int
    table: npt.NDArray[np.int32]


def down_first(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Whether this Pillow resizes columns before rows; it matters, for what lies in between has 8 bits."""
    if _PILLOW >= (13, 0):
        return to_height < height and height - to_height > 2 * (width - to_width)
    return _PILLOW >= (12, 2) and to_height < height and height > 100 * width


def axis_of(interpolation: str, size: int, to: int, start: int, count: int) -> Axis:
    """Resize a side of ``size`` pixels to ``to`` and keep ``count`` of those, from ``start`` on.

    Parameters
    ----------
    interpolation : {"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}
    size, to, start, count : int
        In pixels.
    """
    if interpolation == "nearest" or size == to:
        first, weights = _nearest(size, to)[start : start + count], np.full((count, 1), 1 << PLACES, np.int32)
    else:
        first, weights = _filtered(*_FILTERS[interpolation], size, to, np.arange(start, start + count))
    taps = weights.shape[1]
    table = np.concatenate([first - first[0], weights.reshape(-1)]).astype(np.int32)
    return Axis(int(first[0]), int(first[-1]) + taps, taps, table)


def _nearest(size: int, to: int) -> npt.NDArray[np.int64]:
    """Pixels under the centres of the output pixels, whose places Pillow adds up one by one."""
    step = size / to
    places = np.full(to, step)
    places[0] = step * 0.5
    return np.minimum(np.cumsum(places).astype(np.int64), size - 1)


def _filtered(
    support: float, weigh: Callable[[Float64], Float64], size: int, to: int, outputs: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """First pixel of each of these output pixels (n,), and the weights (n, taps)."""
    scale = size / to
    stretch = max(scale, 1.0)
    centres = (outputs + 0.5) * scale
    begin = np.maximum((centres - support * stretch + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + support * stretch + 0.5).astype(np.int64), size)
    taps = int((end - begin).max())
    first = np.minimum(begin, size - taps)
    pixels = first + np.arange(taps)[:, np.newaxis]  # taps down: their sum is taken one by one, as Pillow does
    weights = weigh((pixels - centres + 0.5) * (1 / stretch))
    weights *= (pixels >= begin) & (pixels < end)
    sums = weights.sum(axis=0)
    weights /= np.where(sums == 0, 1, sums)
    weights *= 1 << PLACES
    weights += np.copysign(0.5, weights)  # and cut off: rounds half away from zero
    return first, np.ascontiguousarray(weights.T.astype(np.int32))


def _box(x: Float64) -> Float64:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: Float64) -> Float64:
    weights: Float64 = np.maximum(1 - np.abs(x), 0)
    return weights


def _hamming(x: Float64) -> Float64:
    x = np.abs(x)
    # Pillow has these two in single precision.
    return np.where(x < 1, np.sinc(x) * (np.float32(0.54) + np.float32(0.46) * np.cos(np.pi * x)), 0)


def _bicubic(x: Float64) -> Float64:
    x, a = np.abs(x), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _lanczos(x: Float64) -> Float64:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0)


_FILTERS: Final = {
    "box": (0.5, _box),
    "bilinear": (1.0, _bilinear),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}
