"""Files, PIL images and arrays become uint8 RGB, as a person sees them.

Upright (EXIF), on white where they are transparent, 16 bits scaled to 8, the first frame of an animation.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from threading import Lock
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fieldshot.errors import MissingFileError, PictureError
from fieldshot.images.files import FORMATS, reason
from fieldshot.images.preprocessing import Picture

__all__ = ["MAX_PIXELS", "Pixels", "as_items", "decode", "encode", "read"]

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS: Final = 178_956_970
"""Pictures with more pixels are refused before they are decoded, as Pillow does, which warns from half of it on."""

_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_AT_ONCE_BYTES: Final = 1 << 24

# An image that the caller opened but did not load yet may stand twice in one list; Pillow's load is not thread-safe.
_LOADING = Lock()


def read(image: object) -> Pixels:
    """Read a picture as a person sees it.

    Parameters
    ----------
    image : str or os.PathLike or PIL.Image.Image or ndarray
        A file, a Pillow image, or a uint8 RGB array of shape (H, W, 3).

    Returns
    -------
    ndarray of shape (H, W, 3), dtype uint8
        RGB, C-contiguous; an array that already is comes back as it is, not copied.

    Raises
    ------
    PictureError
        If it is no picture, damaged, of more than ``MAX_PIXELS`` pixels, or an array of another form.
    MissingFileError
        If there is no such file.
    """
    return np.ascontiguousarray(decode(image))


def decode(image: object) -> Picture:
    """Read a picture like ``read``, but leave what Pillow decoded in Pillow's hands: an RGB image, not copied."""
    if isinstance(image, np.ndarray):
        return _check_array(image)
    if isinstance(image, Image.Image):
        return _upright_rgb(image, f"image {getattr(image, 'filename', '') or 'from PIL'}", shared=True)
    if isinstance(image, (str, os.PathLike)):
        return _read_file(os.fspath(image))
    hint = "pass a path, a PIL image or a uint8 array of shape (height, width, 3)"
    if isinstance(image, (bytes, bytearray, memoryview)):
        hint = "open encoded bytes with PIL.Image.open(io.BytesIO(data))"
    elif hasattr(image, "__array__"):
        hint = "convert a tensor with tensor.numpy(), as uint8 of shape (height, width, 3)"
    raise PictureError(f"picture must be a path, a PIL image or an array (got {type(image).__name__})", hint=hint)


def as_items(images: object) -> Iterable[object]:
    """Take one path, image or array for a list of one picture; everything else must be iterable.

    Raises
    ------
    PictureError
        If it is not.
    """
    single = isinstance(images, (str, bytes, os.PathLike, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim in (2, 3)
    )
    if single:
        return [images]
    if not isinstance(images, Iterable):
        raise PictureError(
            f"images must be a picture or an iterable of pictures (got {type(images).__name__})",
            hint="pass paths, PIL images or uint8 arrays of shape (height, width, 3)",
        )
    return images


def encode(pixels: Pixels) -> bytes:
    """Encode uint8 RGB pixels of shape (H, W, 3) as a PNG file, without loss."""
    buffer = io.BytesIO()
    # level 1: most of the gain at a fraction of the time
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _read_file(path: str | bytes) -> Image.Image:
    name = os.fsdecode(path)
    try:
        # A folder, a pipe or a device must not be opened: reading them may block for ever.
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise PictureError(f"picture {name} must be a file (got a folder)", hint="name the pictures inside it")
        if not stat.S_ISREG(status.st_mode):
            raise PictureError(f"picture {name} must be a file (got a pipe or a device)", hint="save it to a file")
        if status.st_size == 0:
            raise PictureError(f"picture {name} must hold data (got an empty file)", hint="take or copy it again")
        with _opened(name, status.st_size) as file, Image.open(file, formats=tuple(FORMATS)) as image:
            return _upright_rgb(image, f"picture {name}")
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"picture {name} must exist", hint="check the path") from error
    except Image.DecompressionBombError as error:
        raise _too_large(f"picture {name}", "far more by its header") from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"picture {name} must be a picture (got something else)",
            hint=f"the formats read are {', '.join(FORMATS)}",
        ) from error
    except Exception as error:  # Pillow raises nearly anything on damaged data
        raise PictureError(f"picture {name} must be readable (got: {reason(error)})", hint="check the file") from error


def _opened(path: str, size: int) -> BinaryIO:
    """A file of so many bytes, open; a small one is read at once, where Pillow would ask for it piece by piece."""
    if size > _AT_ONCE_BYTES:
        return open(path, "rb")
    with open(path, "rb", buffering=0) as file:
        return io.BytesIO(file.read(size))


def _upright_rgb(image: Image.Image, name: str, *, shared: bool = False) -> Image.Image:
    """Decode an opened image, after its header was checked."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width} x {image.height}")
    if image.width == 0 or image.height == 0:
        raise PictureError(f"{name} must have pixels (got {image.width} x {image.height})", hint="pass another picture")
    try:
        if shared:
            with _LOADING:
                image.load()
        else:
            image.load()
    except MemoryError as error:
        raise PictureError(
            f"{name} must fit into memory (got {image.width} x {image.height})", hint="make it smaller first"
        ) from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise PictureError(
            f"{name} must be whole (got damaged or truncated data: {reason(error)})",
            hint="take or copy the picture again",
        ) from error
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image, name)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF: the picture itself is fine
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = _from_16_bits(image, name)
    elif image.mode == "F":
        raise PictureError(
            f"{name} must have 8 or 16 bits a channel (got floating point)",
            hint="scale the values to 0..255 and save them as uint8",
        )
    if not _is_transparent(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    alpha = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, alpha).convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _from_16_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grey to 8 bits, 65535 to 255, rounded: Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise PictureError(
            f"{name} must have 8 or 16 bits a channel (got values of {values.min()} to {values.max()})",
            hint="scale the values to 0..255 and save them as uint8",
        )
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _check_array(array: npt.NDArray[Any]) -> Pixels:
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        if array.size == 0:
            raise PictureError(f"array must have pixels (got shape {array.shape})", hint="pass another picture")
        if array.shape[0] * array.shape[1] > MAX_PIXELS:
            raise _too_large("array", f"{array.shape[1]} x {array.shape[0]}")
        return array
    steps = []
    if array.ndim == 2:
        steps.append("repeat grey with np.stack([a] * 3, axis=-1)")
    elif array.ndim == 3 and array.shape[2] == 4:
        steps.append("drop alpha with a[:, :, :3], or pass PIL.Image.fromarray(a)")
    elif array.ndim == 3 and array.shape[2] == 1:
        steps.append("repeat grey with np.repeat(a, 3, axis=2)")
    elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
        steps.append("put channels last with a.transpose(1, 2, 0)")
    elif array.ndim != 3 or array.shape[2] != 3:
        steps.append("pass one picture of shape (height, width, 3)")
    if array.dtype != np.uint8:
        if np.issubdtype(array.dtype, np.floating):
            steps.append("convert values in [0, 1] with (a * 255).round().astype(np.uint8)")
        else:
            steps.append("scale the values to 0..255 and convert with a.astype(np.uint8)")
    raise PictureError(
        f"array must be uint8 RGB of shape (height, width, 3) (got {array.dtype} of shape {array.shape})",
        hint="; ".join(steps),
    )


def _too_large(name: str, got: str) -> PictureError:
    return PictureError(
        f"{name} must have at most {MAX_PIXELS:,} pixels (got {got})",
        hint="make it smaller first: the network sees a few hundred pixels a side",
    )
