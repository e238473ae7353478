"""Pixels where they lie: what reads them in place need not wait for a copy.

Pillow keeps four bytes a pixel, the last one unused, and lends its memory by the Arrow C data interface
(https://arrow.apache.org/docs/format/CDataInterface.html), as long as a picture lies in one piece: Pillow lays larger
ones, from 16 MB on, in several.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldshot.images.preprocessing import Picture

__all__ = ["pixels_in_place"]


def pixels_in_place(picture: Picture) -> npt.NDArray[np.uint8] | None:
    """Give the pixels of a picture, the three bytes of each one after the other, and rows one after the other.

    Parameters
    ----------
    picture : ndarray of shape (H, W, 3), dtype uint8, or PIL.Image.Image of mode RGB

    Returns
    -------
    ndarray of shape (H, W, 3), dtype uint8, or None
        The array itself, copied only if it runs another way, such as mirrored or channels first; or a read-only view of
        the image's memory, which changes with it. None for an image that does not lend it.
    """
    if isinstance(picture, np.ndarray):
        down, across, deep = picture.strides
        return picture if deep == 1 and across >= 3 and down >= across * picture.shape[1] else picture.copy("C")
    try:
        _, array = picture.__arrow_c_array__()
        lent = _Lent(array, picture.size)
    except (AttributeError, ValueError, MemoryError):  # in several pieces, or not in Pillow's own memory
        return None
    return np.asarray(lent)


class _ArrowArray(ctypes.Structure):
    pass


_ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    *((name, ctypes.c_void_p) for name in ("dictionary", "release", "private_data")),
]

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.POINTER(_ArrowArray)
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Lent:
    """Memory of an image for NumPy; it is given back when the last array on it is gone."""

    def __init__(self, capsule: Any, size: tuple[int, int]) -> None:
        self._capsule = capsule
        pixels = _pointer(capsule, b"arrow_array").contents
        if pixels.n_children != 1 or pixels.children[0].contents.n_buffers != 2:
            raise ValueError("not lists of bytes")
        levels = pixels.children[0].contents
        width, height = size
        if pixels.length != width * height or levels.length != 4 * pixels.length or pixels.offset or levels.offset:
            raise ValueError("not four bytes a pixel")
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (height, width, 3),
            "strides": (4 * width, 4, 1),
            "data": (levels.buffers[1], True),
        }
