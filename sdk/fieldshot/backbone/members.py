"""The members of a bundle on disk, a zip file or a folder: listed with suspicion, read one by one, written whole."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from fieldshot.backbone.manifest import is_plain_name
from fieldshot.errors import BundleError
from fieldshot.writing import replacing

__all__ = ["list_members", "open_member", "write_zip"]

_HINT: Final = "copy or export the bundle again"


def list_members(path: Path) -> dict[str, int]:
    """Return the sizes in bytes of the members by their names.

    Raises
    ------
    BundleError
        If it is neither a zip file nor a folder, or a member is not a plain file at the top level.
    """
    return _list_folder(path) if path.is_dir() else _list_zip(path)


def _list_folder(path: Path) -> dict[str, int]:
    sizes = {}
    with os.scandir(path) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(
                    f"bundle {path} must hold plain files only (got {entry.name}, a folder or a link)",
                    hint="remove it, or copy the file that it points to",
                )
            sizes[entry.name] = status.st_size
    return sizes


def _list_zip(path: Path) -> dict[str, int]:
    if not path.is_file() or not zipfile.is_zipfile(path):  # opening a pipe would block
        raise BundleError(f"bundle {path} must be a zip file or a folder (got something else)", hint=_HINT)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    for info in infos:
        # orig_filename: zipfile itself cuts a name at its first NUL byte
        if not is_plain_name(info.orig_filename):
            raise BundleError(
                f"bundle {path} must hold files at its top level only (got the name {info.orig_filename!r})",
                hint="do not use this file; get the bundle from where it was exported",
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"bundle {path} must be stored or deflated (got another compression)", hint=_HINT)
    sizes = {info.filename: info.file_size for info in infos}
    if len(sizes) != len(infos):
        raise BundleError(f"bundle {path} must hold each name once (got one twice)", hint=_HINT)
    return sizes


def open_member(path: Path, name: str) -> IO[bytes]:
    """Open a member for reading, without unpacking anything to disk."""
    if path.is_dir():
        return (path / name).open("rb")
    with zipfile.ZipFile(path) as archive:
        return archive.open(name)  # keeps the file of the archive open until it is closed itself


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a zip file, whole or not at all: a power cut leaves the old file or the new one.

    Nothing is compressed (weights hardly shrink), times and modes are fixed: equal members give equal bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    with replacing(path) as file:
        file.write(buffer.getbuffer())
