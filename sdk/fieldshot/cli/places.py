"""Files that commands write: looked at before hours of work, and none replaced that holds something else."""

from __future__ import annotations

import json
from pathlib import Path

from fieldshot.errors import OptionError

__all__ = ["check_document", "check_file"]

# So far into a file its mark stands.
_HEAD_BYTES = 4096


def check_document(path: Path) -> None:
    """Refuse a place for a JSON document that cannot be written, or that holds something else.

    Raises
    ------
    OptionError
        If there is a file that is neither empty nor JSON.
    OSError
        If it cannot be written.
    """
    _check_writable(path)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(1)  # of a file of embeddings no more is read
            if not start or (start == b"{" and _is_json(start + file.read())):
                return
        raise _refusal(path, "a JSON document")


def check_file(path: Path, mark: bytes) -> None:
    """Refuse a place for a file that cannot be written, or that holds one without `mark` near its start.

    Raises
    ------
    OptionError, OSError
        As `check_document`.
    """
    _check_writable(path)
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if head and mark not in head:
            raise _refusal(path, "one that fieldshot wrote")


def _check_writable(path: Path) -> None:
    """Raise the system's error if a file cannot be written; it stays as it was."""
    if path.exists() and not path.is_file():
        if path.is_dir():
            path.open("a")  # the system says why not
        return  # a pipe or a device must not be opened twice
    there = path.exists()
    path.open("a").close()
    if not there:
        path.unlink()


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _refusal(path: Path, wanted: str) -> OptionError:
    return OptionError(
        f"{path} must be a new file, or {wanted} to be replaced (got a file of another kind)",
        hint="name another place, or take that file away",
    )
