"""What the operating system knows, asked in one place."""

from __future__ import annotations

import os

__all__ = ["cores"]


def cores() -> int:
    """CPU cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
