"""Time of a stage: on the wall, on the processor, and on CUDA devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Reading", "read", "watch_devices"]


class Reading(NamedTuple):
    """Nanoseconds on the wall, on the processor by all threads of the process, and of fieldshot's work on devices."""

    wall: int
    cpu: int
    gpu: int

    def since(self, start: Reading) -> Reading:
        """What passed between two readings."""
        return Reading(self.wall - start.wall, self.cpu - start.cpu, self.gpu - start.gpu)


_worked: Callable[[], int] = int


def watch_devices() -> None:
    """From now on readings have the time of devices; that of a side which does not tell it stays 0."""
    global _worked
    try:
        from fieldshot.device import count_work, worked_ns
    except ImportError:
        return
    count_work()
    _worked = worked_ns


def read() -> Reading:
    """Time now, of any origin; takes 2 microseconds."""
    return Reading(time.perf_counter_ns(), time.process_time_ns(), _worked())
