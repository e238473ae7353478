"""Pixels where they lie: what reads them in place need not wait for a copy.

Pillow keeps four bytes a pixel, the last one unused, and lends its memory by the Arrow C data interface
(https://arrow.apache.org/docs/format/CDataInterface.html), as long as a picture lies in one piece: Pillow lays larger
ones, from 16 MB on, in several.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from fieldshot.images.preprocessing import Picture

__all__ = ["InPlace", "pixels_in_place"]


class InPlace:
    """Pixels of a picture in somebody's memory: ``np.asarray`` gives them, read-only, as uint8 (height, width, 3).

    The three bytes of a pixel lie together, and rows one after the other.

    Attributes
    ----------
    owner : object
        The memory is there as long as it is.
    address : int
        Of the first pixel.
    row_bytes, pixel_bytes : int
        From row to row and from pixel to pixel.
    """

    __slots__ = ("address", "height", "owner", "pixel_bytes", "row_bytes", "width")

    def __init__(self, owner: object, address: int, height: int, width: int, row_bytes: int, pixel_bytes: int) -> None:
        self.owner, self.address = owner, address
        self.height, self.width, self.row_bytes, self.pixel_bytes = height, width, row_bytes, pixel_bytes

    def part(self, rows: slice, columns: slice) -> InPlace:
        """Some of the rows and columns, from a first one to a last one."""
        address = self.address + rows.start * self.row_bytes + columns.start * self.pixel_bytes
        height, width = rows.stop - rows.start, columns.stop - columns.start
        return InPlace(self.owner, address, height, width, self.row_bytes, self.pixel_bytes)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "typestr": "|u1",
            "shape": (self.height, self.width, 3),
            "strides": (self.row_bytes, self.pixel_bytes, 1),
            "data": (self.address, True),
        }


def pixels_in_place(picture: Picture) -> InPlace | None:
    """Find the pixels of a picture.

    Parameters
    ----------
    picture : ndarray of shape (H, W, 3), dtype uint8, or PIL.Image.Image of mode RGB

    Returns
    -------
    InPlace or None
        Those of the array itself, or of a copy only if it runs another way, such as mirrored or channels first; or
        those of the image, which change with it. None for an image that does not lend its memory.
    """
    if isinstance(picture, np.ndarray):
        down, across, deep = picture.strides
        walks = deep == 1 and across >= 3 and down >= across * picture.shape[1]
        array = picture if walks else picture.copy("C")
        return InPlace(array, array.__array_interface__["data"][0], *array.shape[:2], *array.strides[:2])
    try:
        _, capsule = picture.__arrow_c_array__()
        pixels = _ArrowArray.from_address(_pointer(capsule, b"arrow_array"))
    except (AttributeError, ValueError, MemoryError):  # in several pieces, or not in Pillow's own memory
        return None
    width, height = picture.size
    if pixels.n_children != 1 or pixels.length != width * height or pixels.offset:
        return None  # not lists of as many as there are pixels
    levels = _ArrowArray.from_address(_address_at(pixels.children))
    if levels.n_buffers != 2 or levels.length != 4 * pixels.length or levels.offset:
        return None  # not of four bytes each
    return InPlace(capsule, _address_at(levels.buffers + _POINTER_BYTES), height, width, 4 * width, 4)


class _ArrowArray(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
        *((name, ctypes.c_void_p) for name in ("buffers", "children", "dictionary", "release", "private_data")),
    ]


_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)
# A function of its own: of `ctypes.pythonapi.PyCapsule_GetPointer` any other library may have changed the types.
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _address_at(address: int) -> int:
    return ctypes.c_void_p.from_address(address).value or 0
