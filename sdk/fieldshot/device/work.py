"""How long devices work, as they count it themselves: by events on the streams of workspaces. Off until asked for."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Stopwatch", "count_work", "worked_ns"]

_lock = threading.Lock()
_counted = False
_worked_ms = 0.0


def count_work() -> None:
    """From now on events are recorded with each operation, which takes some microseconds of the processor."""
    global _counted
    _counted = True


def worked_ns() -> int:
    """What all operations since `count_work` took on devices, each from its first copy or kernel to its last.

    What the device waits within an operation, because the next kernel was not launched yet, is in it; what others than
    fieldshot start on streams of their own is not.
    """
    return round(1e6 * _worked_ms)


class Stopwatch:
    """Of the operations of one stream, one after the other; the device's context must be current in all methods.

    Parameters
    ----------
    cuda : module
        pycuda.driver.
    stream : pycuda.driver.Stream
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._events: tuple[Any, Any] | None = None
        self._running = False

    def start(self) -> None:
        """Work is sent off now; again before `stop` it does nothing."""
        if not _counted or self._running:
            return
        if self._events is None:
            self._events = self._cuda.Event(), self._cuda.Event()
        self._events[0].record(self._stream)
        self._running = True

    def stop(self) -> None:
        """All work is sent off: wait until it is done."""
        global _worked_ms
        if not self._running:
            self._stream.synchronize()
            return
        assert self._events is not None  # it runs
        start, end = self._events
        end.record(self._stream)
        self._running = False
        self._stream.synchronize()
        with _lock:
            _worked_ms += start.time_till(end)
