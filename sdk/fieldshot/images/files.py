"""Picture files: which formats are read, and where the pictures of a folder are."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from fieldshot.errors import MissingFileError, PictureError

__all__ = ["FORMATS", "SUFFIXES", "find", "find_classes", "reason"]

# Only formats of photographs and drawings: Pillow also opens formats that start other programs (EPS) or only
# describe pictures, which a file of unknown origin must not reach.
FORMATS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),  # first, for files are tried in this order
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

SUFFIXES: Final = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Endings of picture files, in lower case with the dot."""

_LOG = logging.getLogger("fieldshot")


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


def reason(error: BaseException) -> str:
    """Say in words what an error says, without the path that the message names already."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def _scan(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError as error:
        raise MissingFileError(f"folder {os.fspath(folder)} must exist", hint="check the path") from error
    except (OSError, ValueError) as error:
        raise PictureError(
            f"{os.fspath(folder)} must be a folder that can be read (got: {reason(error)})",
            hint="check the path",
        ) from error


def _pictures(folder: str | os.PathLike[str]) -> list[Path]:
    entries = _scan(folder)
    return [Path(e.path) for e in entries if os.path.splitext(e.name)[1].lower() in SUFFIXES and e.is_file()]
