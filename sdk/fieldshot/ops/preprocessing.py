"""Pictures to the input of a network by a kernel: to the bit what ``Preprocessing.apply`` makes of them with Pillow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fieldshot.images import Picture, Preprocessing, pixels_in_place, size_of
from fieldshot.images.resampling import axis_of, down_first
from fieldshot.ops import sources
from fieldshot.ops.runner import Call

__all__ = ["launch_preprocess"]

_TALL, _WIDE = 8, 32  # of a tile on a GPU, kernels/preprocess.cu


def launch_preprocess(
    call: Call, pictures: Sequence[Picture], spec: Preprocessing, out: int, rows: tuple[int, int] | None = None
) -> None:
    """Resize, crop and normalise pictures of any sizes in one launch.

    Parameters
    ----------
    call : Call
        Only what the crops are made of is put into its memory.
    pictures : sequence of uint8 arrays of shape (H, W, 3) or PIL images of mode RGB
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
    kind = sources.structs()["PreprocessPicture"]
    records = (kind * len(pictures))(*(kind(*_record(call, picture, spec, start, height)) for picture in pictures))
    tiles = max(-(-a // _TALL) * -(-b // _WIDE) for a, b in ((height, width), (width, height)))
    call.launch(
        "preprocess",
        len(pictures) * tiles,
        pictures=call.put(np.frombuffer(bytes(records), np.uint8)),
        values=call.put(spec.values),
        out=out,
        N=len(pictures),
        height=height,
        width=width,
        reversed=spec.channels == "BGR",
    )


def _record(call: Call, picture: Picture, spec: Preprocessing, start: int, count: int) -> tuple[int | None, ...]:
    """Put a picture's pixels and weights; the fields of its struct."""
    height, width = size_of(picture)
    to_height, to_width, top, left = spec.placed(height, width)
    down = axis_of(spec.interpolation, height, to_height, top + start, count)
    across = axis_of(spec.interpolation, width, to_width, left, spec.size[1])
    part = _part(picture, down.first, down.last, across.first, across.last)
    rows, columns = part.shape[:2]
    address, row_bytes, pixel_bytes = call.put_pixels(part)
    if down_first(height, width, to_height, to_width):
        first, second, layout, turned = down, across, (pixel_bytes, row_bytes, columns, rows), 1
    else:
        first, second, layout, turned = across, down, (row_bytes, pixel_bytes, rows, columns), 0
    return address, call.put(first.table), call.put(second.table), *layout, first.taps, second.taps, turned


def _part(picture: Picture, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
    pixels = pixels_in_place(picture)
    if pixels is not None:
        return pixels[top:bottom, left:right]
    assert not isinstance(picture, np.ndarray)  # those are in place, or copied
    cut = picture.crop((left, top, right, bottom))
    pixels = pixels_in_place(cut)
    return np.asarray(cut) if pixels is None else pixels
