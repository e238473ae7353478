"""Pictures made ready for a network on this CPU: by kernels where there are any, else by Pillow and NumPy."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np

from fieldshot.errors import DeviceError
from fieldshot.images import InPlace, Picture, Preprocessing, pixels_in_place
from fieldshot.images.preprocessing import Interpolation
from fieldshot.ops.host import HostRunner, address_of, library
from fieldshot.ops.interface import Float32
from fieldshot.ops.preprocessing import launch_preprocess

__all__ = ["at_hand", "prepare", "prepared_by"]

_log = logging.getLogger("fieldshot")

_BAND_BYTES = 1 << 22  # of pixels; what a band is made of overlaps with the next by the reach of the filter
_SHARE_PIXELS = 1_000_000  # for each thread at least: of smaller pictures starting one takes as long as it saves


def at_hand(picture: Picture) -> Picture:
    """The picture where it can be cut up and prepared without a copy, which may be an array on an image's memory."""
    pixels = pixels_in_place(picture) if _host() else None
    return picture if pixels is None else np.asarray(pixels)


def prepare(picture: Picture, spec: Preprocessing, out: Float32, *, threads: int = 1) -> None:
    """Do what ``spec.apply(picture, out)`` does, the quickest way there is on this CPU.

    Pillow does it where there are no kernels, and if it is of a version that resizes another way than they do. Kernels
    share a large picture among `threads`, by bands.
    """
    runner = _runner(spec)
    fits = out.shape == (3, *spec.size) and out.dtype == np.float32 and out.flags.c_contiguous
    if runner is None or not fits:
        spec.apply(picture, out)
        return
    pixels = pixels_in_place(picture)
    if pixels is None:
        # A large image of Pillow's lies in several pieces. It is cut into bands that the cache holds, one a few rows.
        assert not isinstance(picture, np.ndarray)
        to_height, to_width = spec.resized(picture.height, picture.width)
        row_bytes = 4 * spec.size[1] * picture.width / to_width * picture.height / to_height
        count = max(1, int(_BAND_BYTES / row_bytes))
        for first in range(0, spec.size[0], count):
            _prepare_band(runner, picture, spec, out, first, count)
        return
    threads = min(threads, pixels.height * pixels.width // _SHARE_PIXELS)
    if threads < 2:
        _prepare(runner, pixels, spec, out)
        return
    count = -(-spec.size[0] // threads)
    with ThreadPoolExecutor(threads - 1, thread_name_prefix="fieldshot-prepare") as pool:
        band = partial(_prepare_band, runner, pixels, spec, out, count=count)
        others = [pool.submit(band, first) for first in range(count, spec.size[0], count)]
        band(0)
        for other in others:
            other.result()


def prepared_by(spec: Preprocessing) -> str:
    """What `prepare` uses, in words for a person."""
    runner = _runner(spec)
    return "Pillow" if runner is None else runner.about


def _runner(spec: Preprocessing) -> HostRunner | None:
    runner = _host()
    return runner if runner is not None and _agrees(spec.interpolation) else None


def _prepare(
    runner: HostRunner,
    picture: Picture | InPlace,
    spec: Preprocessing,
    out: Float32,
    rows: tuple[int, int] | None = None,
) -> None:
    with runner.call() as call:
        launch_preprocess(call, [picture], spec, address_of(out), rows)


def _prepare_band(
    runner: HostRunner, picture: Picture | InPlace, spec: Preprocessing, out: Float32, first: int, count: int
) -> None:
    """Make so many rows of the crop, or what is left of them."""
    band = np.empty((3, min(count, spec.size[0] - first), spec.size[1]), np.float32)
    _prepare(runner, picture, spec, band, (first, band.shape[1]))
    out[:, first : first + count] = band


@cache
def _host() -> HostRunner | None:
    """The CPU kernels, if there are any."""
    try:
        return HostRunner(library(), "host")
    except DeviceError as error:
        _log.info("pictures are resized by Pillow, slower: %s", error)
        return None


@cache
def _agrees(interpolation: Interpolation) -> bool:
    """Whether the kernels resize as this Pillow does, to the bit: wide pictures, tall ones, and larger ones."""
    runner = _host()
    assert runner is not None
    spec = Preprocessing(size=(7, 11), resize="stretch", interpolation=interpolation)
    out = np.empty((3, *spec.size), np.float32)
    for shape in ((9, 24), (31, 12), (40, 10), (203, 2), (3, 4)):
        numbers = np.arange(3 * shape[0] * shape[1])
        pixels = np.array([0, 90, 255], np.uint8)[numbers * numbers % 31 % 3].reshape(*shape, 3)
        _prepare(runner, pixels, spec, out)
        if not np.array_equal(out, spec.apply(pixels)):
            _log.warning(
                "pictures are resized by Pillow, slower: this version of it does %s another way", interpolation
            )
            return False
    return True
