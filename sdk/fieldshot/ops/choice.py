"""Which operations run, and why: asked for by an argument or by FIELDSHOT_DEVICE, else the best that is there."""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass

from fieldshot.errors import DeviceError, MissingDependencyError, OptionError
from fieldshot.ops.interface import Ops
from fieldshot.ops.reference import ReferenceOps

__all__ = ["Choice", "choose", "find_ops"]

_log = logging.getLogger("fieldshot")
_lock = threading.Lock()
_chosen: dict[tuple[str, str], Choice] = {}
_made: dict[str, Ops] = {}


@dataclass(frozen=True)
class Choice:
    """Operations, and why it is these.

    Attributes
    ----------
    ops : Ops
    asked : str
        What was asked for, and by whom.
    passed_over : tuple of str
        Better ones that are not usable here, each with its reason.
    """

    ops: Ops
    asked: str
    passed_over: tuple[str, ...]


def find_ops(device: str | None = None) -> Ops:
    """The operations for a device; the same object each time.

    Parameters
    ----------
    device : str, optional
        ``auto``, ``cuda`` (also ``cuda:1``), ``host`` or ``reference``; left out, FIELDSHOT_DEVICE, else ``auto``.

    Raises
    ------
    OptionError
        For another word.
    DeviceError, MissingDependencyError
        If what was asked for by name is not usable here; nothing else is taken in its place.
    """
    return choose(device).ops


def choose(device: str | None = None) -> Choice:
    """As `find_ops`, with the reason."""
    asked = device if device is not None else os.environ.get("FIELDSHOT_DEVICE") or "auto"
    by = "FIELDSHOT_DEVICE" if device is None else "argument"
    found = _chosen.get((asked, by))
    if found is None:
        with _lock:
            found = _chosen[asked, by] = _choose(asked, by)
    return found


def _choose(asked: str, by: str) -> Choice:
    if not isinstance(asked, str) or not re.fullmatch(r"auto|cuda(:\d+)?|host|reference", asked):
        what = "device" if by == "argument" else by
        raise OptionError(
            f"{what} must be auto, cuda (cuda:N for the N-th), host (the CPU) or reference (NumPy) (got {asked!r})",
            hint="leave it out" if by == "argument" else "unset it",
        )
    if asked != "auto":
        choice = Choice(_make(asked), f"{asked} ({by})", ())
        _log.info("head computes on %s, as %s asked", choice.ops.name, by)
        return choice
    passed_over: list[str] = []
    for name in ("cuda", "host"):
        try:
            ops = _make(name)
        except (DeviceError, MissingDependencyError) as error:
            passed_over.append(f"{name}: {error}")
        else:
            _log.info("head computes on %s%s", ops.name, "".join(f"; not on {reason}" for reason in passed_over))
            return Choice(ops, "auto", tuple(passed_over))
    _log.warning("head computes with NumPy, several times slower: %s", passed_over[-1])
    return Choice(_make("reference"), "auto", tuple(passed_over))


def _make(name: str) -> Ops:
    name = "cuda:0" if name == "cuda" else name
    if name not in _made:
        _made[name] = _new(name)
    return _made[name]


def _new(name: str) -> Ops:
    if name == "reference":
        return ReferenceOps()
    if name == "host":
        from fieldshot.ops.host import HostOps

        return HostOps()
    from fieldshot.ops.cuda import CudaOps

    return CudaOps(int(name.partition(":")[2]))
