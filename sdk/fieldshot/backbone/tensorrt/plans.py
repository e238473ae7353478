"""Plans on disk: built once for a device, found again by all that they depend on, checked before TensorRT sees them.

A plan is one file, `plans/<digest of its terms>.plan` in the cache: a line of JSON, then what TensorRT built. Upgrades
and other bundles leave plans that nobody asks for any more: they go when another is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from fieldshot.system import cache_folder
from fieldshot.writing import replacing

__all__ = ["Plan", "Terms", "find", "obtain"]

Terms = Mapping[str, object]
"""All that a plan depends on: network, versions, device, shapes; JSON can hold it."""

_log = logging.getLogger("fieldshot")

_POLL_S = 0.2
_KEPT_S = 90 * 24 * 3600  # since it was last used


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes
    ----------
    data : bytes
        For TensorRT.
    built : str
        When, ISO 8601.
    kept : bool
        It was found on disk.
    """

    data: bytes
    built: str
    kept: bool


def find(terms: Terms) -> Plan | None:
    """The plan of these terms, if it is on disk and whole."""
    path = _path(terms)
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
            data = file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("plan %s is built anew, for it cannot be read: %s", path, error)
        return None
    if not isinstance(header, dict) or header.get("terms") != terms or header.get("sha256") != _digest(data):
        _log.warning("plan %s is built anew, for it is damaged", path)
        return None
    with suppress(OSError):  # a folder that is only read
        os.utime(path)
    return Plan(data, str(header.get("built")), True)


def obtain(terms: Terms, build: Callable[[], bytes], waiting: Callable[[], object], *, anew: bool = False) -> Plan:
    """The plan of these terms from disk, or built and kept there; with `anew` in the place of the one on disk.

    Of several processes that want it at once one builds, and the others wait and call `waiting` now and then, which
    may raise to give up. Where it cannot be kept it serves this process alone.
    """
    found = None if anew else find(terms)
    if found is not None:
        return found
    with _turn(terms, waiting):
        found = None if anew else find(terms)  # by another process meanwhile
        if found is not None:
            return found
        data = build()
        built = datetime.now(timezone.utc).isoformat(timespec="seconds")
        header = {"terms": dict(terms), "built": built, "sha256": _digest(data)}
        path = _path(terms)
        try:
            with replacing(path) as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(data)
            _clear(path.parent)
        except OSError as error:
            _log.warning("the plan is built but cannot be kept in %s, so it will be built again: %s", path, error)
        return Plan(data, built, False)


@contextmanager
def _turn(terms: Terms, waiting: Callable[[], object]) -> Iterator[None]:
    import fcntl

    lock, told = _path(terms).with_suffix(".lock"), False
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("wb")
    except OSError as error:
        _log.debug("no lock %s: %s", lock, error)  # then nothing can be kept there either, which `obtain` says
        yield
        return
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    _log.warning("another process builds the plan: this one waits for it")
                    told = True
                waiting()
                time.sleep(_POLL_S)
            except OSError as error:  # some network file systems lock nothing: then another process builds it too
                _log.debug("no lock %s: %s", lock, error)
                break
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # a fork made meanwhile has the file open too, and would hold the lock


def _clear(folder: Path) -> None:
    """Remove what has not been used for long; its time is that of its last use."""
    for path in [*folder.glob("*.plan"), *folder.glob("*.lock")]:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink()


def _path(terms: Terms) -> Path:
    canonical = json.dumps(terms, sort_keys=True, separators=(",", ":")).encode()
    return cache_folder() / "plans" / f"{_digest(canonical)[:24]}.plan"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
