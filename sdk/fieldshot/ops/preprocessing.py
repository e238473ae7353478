"""Pictures to the input of a network by a kernel: to the bit what ``Preprocessing.apply`` makes of them with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fieldshot.images import InPlace, Picture, Preprocessing, pixels_in_place
from fieldshot.images.resampling import Axis, axis_of, down_first
from fieldshot.ops import sources
from fieldshot.ops.runner import Call

__all__ = ["launch_preprocess"]

_TALL, _WIDE = 8, 32  # of a tile on a GPU, kernels/preprocess.cu
_KEPT_SIZE = 1 << 15  # resizes of longer sides are not kept: their weights take megabytes


def launch_preprocess(
    call: Call,
    pictures: Sequence[Picture | InPlace],
    spec: Preprocessing,
    out: int,
    rows: tuple[int, int] | None = None,
) -> None:
    """Resize, crop and normalise pictures of any sizes in one launch.

    Parameters
    ----------
    call : Call
        Only what the crops are made of is put into its memory.
    pictures : sequence of uint8 arrays of shape (H, W, 3), PIL images of mode RGB, or what `pixels_in_place` gives
    spec : Preprocessing
    out : int
        Address where float32 (N, 3, height, width) goes: what ``call.out`` or ``call.scratch`` gives, or of memory of
        one's own. On a device it stays there, for what else runs on the call's stream.

    rows : (int, int), optional
        Make only some rows of the crop: the first one, and how many; ``height`` is their number.

    Raises
    ------
    PictureError
        As `Preprocessing.apply`.
    """
    start, height = rows or (0, spec.size[0])
    width = spec.size[1]
    pack = sources.structs()["PreprocessPicture"].pack
    records = bytearray().join([pack(*_record(call, picture, spec, start, height)) for picture in pictures])
    tiles = max(-(-height // _TALL) * -(-width // _WIDE), -(-width // _TALL) * -(-height // _WIDE))
    call.launch(
        "preprocess",
        len(pictures) * tiles,
        pictures=call.put(np.frombuffer(records, np.uint8)),
        affine=call.put(spec.affine),
        out=out,
        N=len(pictures),
        height=height,
        width=width,
        reversed=spec.channels == "BGR",
    )


class _Resize(NamedTuple):
    """What becomes of pictures of one size.

    part : rows and columns of the picture that take part.
    first, second : how pixels are made along lines, and over them.
    turned : whether lines are columns.
    """

    part: tuple[slice, slice]
    first: Axis
    second: Axis
    turned: bool


def _resize(spec: Preprocessing, height: int, width: int, start: int, count: int) -> _Resize:
    to_height, to_width, top, left = spec.placed(height, width)
    down = axis_of(spec.interpolation, height, to_height, top + start, count)
    across = axis_of(spec.interpolation, width, to_width, left, spec.size[1])
    part = slice(down.first, down.last), slice(across.first, across.last)
    turned = down_first(height, width, to_height, to_width)
    return _Resize(part, down, across, turned) if turned else _Resize(part, across, down, turned)


_kept_resize = lru_cache(maxsize=64)(_resize)


def _record(
    call: Call, picture: Picture | InPlace, spec: Preprocessing, start: int, count: int
) -> tuple[int | None, ...]:
    """Put a picture's pixels and weights; the fields of its struct."""
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)
    find = _kept_resize if max(height, width) <= _KEPT_SIZE else _resize
    (rows, columns), first, second, turned = find(spec, height, width, start, count)
    pixels = picture if isinstance(picture, InPlace) else pixels_in_place(picture)
    part = _cut(picture, rows, columns) if pixels is None else pixels.part(rows, columns)
    address, row_bytes, pixel_bytes = call.put_pixels(part)
    lines = (
        (pixel_bytes, row_bytes, part.width, part.height)
        if turned
        else (row_bytes, pixel_bytes, part.height, part.width)
    )
    return address, call.put(first.table), call.put(second.table), *lines, first.taps, second.taps, turned


def _cut(picture: Any, rows: slice, columns: slice) -> InPlace:
    """A copy of a part of an image that does not lend its memory."""
    cut = picture.crop((columns.start, rows.start, columns.stop, rows.stop))
    pixels = pixels_in_place(cut) or pixels_in_place(np.asarray(cut))
    assert pixels is not None  # of arrays they are
    return pixels
