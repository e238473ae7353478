"""What the operating system knows, asked in one place."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "cores"]


def cache_folder() -> Path:
    """Where what can be made again is kept: FIELDSHOT_CACHE, else ~/.cache/fieldshot."""
    home = os.environ.get("FIELDSHOT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fieldshot")
    return Path(home).expanduser()


def cores() -> int:
    """CPU cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
