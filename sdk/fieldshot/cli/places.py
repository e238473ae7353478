"""Files that commands write: looked at before hours of work, and none replaced that holds something else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from fieldshot.errors import OptionError

__all__ = ["check_apart", "check_document", "check_file", "check_text"]

# So far into a file its mark stands.
_HEAD_BYTES = 4096


def check_document(path: Path, kind: str) -> None:
    """Refuse a place for a JSON document that cannot be written, or that holds something else.

    Parameters
    ----------
    path : Path
    kind : str
        What stands under the document's first name, ``"fieldshot"``: only one of the same kind is replaced.

    Raises
    ------
    OptionError
        If there is a file that is neither empty nor such a document.
    OSError
        If it cannot be written.
    """
    head = _head(path)
    if head and not re.match(rb'\s*\{\s*"fieldshot":\s*"%s"' % kind.encode(), head):
        raise _refusal(path, f"a JSON document of fieldshot ({kind}) to be replaced")


def check_file(path: Path, mark: bytes, *, appended: bool = False) -> None:
    """Refuse a place for a file that cannot be written, or that holds one without `mark` near its start.

    Parameters
    ----------
    path : Path
    mark : bytes
    appended : bool
        The file is added to, and not replaced.

    Raises
    ------
    OptionError, OSError
        As `check_document`.
    """
    head = _head(path)
    if head and mark not in head:
        raise _refusal(path, f"one that fieldshot wrote to be {'appended to' if appended else 'replaced'}")


def check_text(path: Path) -> None:
    """Refuse a place for text to be appended that cannot be written, or that holds something else than text.

    Raises
    ------
    OptionError, OSError
        As `check_document`.
    """
    _check_writable(path)
    if path.is_file():
        try:
            path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise _refusal(path, "UTF-8 text to be appended to") from error


def check_apart(path: Path, others: Iterable[Path]) -> None:
    """Refuse a place that the same command reads, or writes something else to.

    Raises
    ------
    OptionError
        If it is one of them.
    """
    if path.resolve() in {each.resolve() for each in others}:
        raise OptionError(
            f"{path} must be a file that the command neither reads nor writes something else to (got one of those)",
            hint="name another place",
        )


def _head(path: Path) -> bytes:
    """What a file begins with, of a place that can be written; empty where there is none."""
    _check_writable(path)
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


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


def _refusal(path: Path, wanted: str) -> OptionError:
    return OptionError(
        f"{path} must be a new file, or {wanted} (got a file of another kind)",
        hint="name another place, or take that file away",
    )
