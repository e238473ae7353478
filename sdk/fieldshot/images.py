"""Pictures: files, PIL images and arrays become uint8 RGB, as a person sees them.

Upright (EXIF), on white where they are transparent, 16 bits scaled to 8, the first frame of an animation. What a
network then sees of them is ``Preprocessing`` (fieldshot.preprocessing), which stands here too by name.
"""

from __future__ import annotations

import io
import logging
import os
import stat
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from fieldshot.errors import MissingFileError, PictureError
from fieldshot.preprocessing import Preprocessing

__all__ = ["MAX_PIXELS", "SUFFIXES", "Pixels", "Preprocessing", "find", "find_classes", "read"]

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS: Final = 178_956_970
"""Pictures with more pixels than this are refused before they are decoded (Pillow's own limit: 512 MiB of RGB)."""

# Only formats of photographs and drawings: Pillow also opens formats that start other programs (EPS) or only
# describe pictures, which a file of unknown origin must not reach.
_FORMATS: Final = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

SUFFIXES: Final = frozenset(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
"""Endings of picture files, in lower case with the dot."""

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

_LOG = logging.getLogger("fieldshot")

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
    if isinstance(image, np.ndarray):
        return _check_array(image)
    if isinstance(image, Image.Image):
        return _pixels(image, f"image {getattr(image, 'filename', '') or 'from PIL'}", shared=True)
    if isinstance(image, (str, os.PathLike)):
        return _read_file(os.fspath(image))
    hint = "pass a path, a PIL image or a uint8 array of shape (height, width, 3)"
    if isinstance(image, (bytes, bytearray, memoryview)):
        hint = "open encoded bytes with PIL.Image.open(io.BytesIO(data))"
    elif hasattr(image, "__array__"):
        hint = "convert a tensor with tensor.numpy(), as uint8 of shape (height, width, 3)"
    raise PictureError(f"picture must be a path, a PIL image or an array (got {type(image).__name__})", hint=hint)


def find(folder: str | os.PathLike[str]) -> list[Path]:
    """List the pictures that lie directly in a folder, by their endings, sorted; hidden files are left out.

    Raises
    ------
    MissingFileError
        If there is no such folder.
    PictureError
        If it is not a folder, or holds no picture.
    """
    paths = _pictures(folder)
    if not paths:
        raise PictureError(
            f"folder {os.fspath(folder)} must hold pictures (got none)",
            hint=f"picture files end in {', '.join(sorted(SUFFIXES))}",
        )
    return paths


def find_classes(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """List the pictures of a folder of classes: one sub-folder a class, named by its label.

    Returns
    -------
    dict
        Label -> sorted paths, in the order of the labels. Sub-folders without pictures are left out, with a warning in
        the log.

    Raises
    ------
    MissingFileError
        If there is no such folder.
    PictureError
        If it is not a folder, or no sub-folder holds a picture.
    """
    classes = {}
    for entry in _scan(folder):
        if entry.is_dir():
            paths = _pictures(entry.path)
            if paths:
                classes[entry.name] = paths
            else:
                _LOG.warning("folder %s holds no pictures and is left out", entry.path)
    if not classes:
        raise PictureError(
            f"folder {os.fspath(folder)} must hold one sub-folder of pictures for each class (got none)",
            hint="put the pictures of each class into a sub-folder with the name of the class",
        )
    return classes


def encode(pixels: Pixels) -> bytes:
    """Encode uint8 RGB pixels of shape (H, W, 3) as a PNG file, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)  # 1: most of the gain at a fraction of the time
    return buffer.getvalue()


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError as error:
        raise MissingFileError(f"folder {os.fspath(folder)} must exist", hint="check the path") from error
    except (OSError, ValueError) as error:
        raise PictureError(
            f"{os.fspath(folder)} must be a folder that can be read (got: {_reason(error)})", hint="check the path"
        ) from error


def _pictures(folder: str | os.PathLike[str]) -> list[Path]:
    entries = _scan(folder)
    return [Path(e.path) for e in entries if os.path.splitext(e.name)[1].lower() in SUFFIXES and e.is_file()]


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def _read_file(path: str | bytes) -> Pixels:
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
        with Image.open(name, formats=tuple(_FORMATS)) as image:
            return _pixels(image, f"picture {name}")
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"picture {name} must exist", hint="check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(f"picture {name}", "far more by its header") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError(
            f"picture {name} must be a picture (got something else)",
            hint=f"the formats read are {', '.join(_FORMATS)}",
        ) from error
    except (OSError, ValueError) as error:
        raise PictureError(f"picture {name} must be readable (got: {_reason(error)})", hint="check the file") from error


def _pixels(image: Image.Image, name: str, *, shared: bool = False) -> Pixels:
    """Decode an opened image to uint8 RGB, after its header was checked."""
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
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise PictureError(
            f"{name} must be whole (got damaged or truncated data: {_reason(error)})",
            hint="take or copy the picture again",
        ) from error
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image, name)
    return np.ascontiguousarray(rgb if turn is None else rgb.transpose(turn))


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
    values = np.asarray(image).astype(np.int64)
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
        return np.ascontiguousarray(array)
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
