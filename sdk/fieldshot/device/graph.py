"""CUDA graphs: work of a stream, launched again as a whole. By the driver's own functions, for PyCUDA has none."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["Graphs"]

_log = logging.getLogger("fieldshot")

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
_KEPT = 8  # pictures of so many sizes, and heads, in turn
_TRIES = 3  # another library may spoil a capture by what it does at that moment


class _GraphError(Exception):
    """Work that does not become a graph, or a graph that does not start; the stream is as before."""


class Graphs:
    """Work of a stream that came before, as graphs; the device's context must be current in all methods.

    The first time work runs as it is: whoever takes part may then allocate, which no graph can hold. The second time it
    is captured.

    Parameters
    ----------
    stream : pycuda.driver.Stream
    alone : threading.Lock
        Of the device: held while work is captured.
    """

    def __init__(self, stream: Any, alone: threading.Lock) -> None:
        self._stream, self._alone = stream, alone
        self._kept: OrderedDict[object, _Graph | None] = OrderedDict()  # None: it is none yet
        self._refused: Counter[object] = Counter()

    def run(self, key: object, work: Callable[[], object]) -> None:
        """Do work; of equal keys it is the same, on the same memory."""
        if key not in self._kept:
            self._kept[key] = None
            if len(self._kept) > _KEPT:
                self._drop(next(iter(self._kept)))
        elif self._kept[key] is None and self._refused[key] < _TRIES:
            self._capture(key, work)
        self._kept.move_to_end(key)
        graph = self._kept[key]
        if graph is not None:
            try:
                graph.launch(self._stream)
                return
            except _GraphError as error:
                self._refuse(key, error)
        work()

    def _capture(self, key: object, work: Callable[[], object]) -> None:
        try:
            with self._alone:
                self._kept[key] = _captured(self._stream, work)
        except _GraphError as error:
            self._refuse(key, error)

    def _refuse(self, key: object, error: _GraphError) -> None:
        _log.debug("work goes on kernel by kernel: %s", error)
        self._refused[key] += 1
        graph, self._kept[key] = self._kept[key], None
        if graph is not None:
            graph.close()

    def _drop(self, key: object) -> None:
        del self._refused[key]
        graph = self._kept.pop(key)
        if graph is not None:
            graph.close()

    def close(self) -> None:
        """Give all back."""
        for key in list(self._kept):
            self._drop(key)


class _Graph:
    """Work that was captured."""

    def __init__(self, graph: ctypes.c_void_p) -> None:
        self._work = ctypes.c_void_p()
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._work), graph, ctypes.c_ulonglong(0))
        finally:
            _driver().cuGraphDestroy(graph)

    def launch(self, stream: Any) -> None:
        """Start it on a stream."""
        _call("cuGraphLaunch", self._work, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Give it back."""
        _driver().cuGraphExecDestroy(self._work)


def _captured(stream: Any, work: Callable[[], object]) -> _Graph:
    """Take down what `work` starts on a stream, which does not run by that."""
    handle, graph = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
    _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
    try:
        work()
    except BaseException as error:  # the stream must not be left as it is
        _driver().cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph:
            _driver().cuGraphDestroy(graph)
        if isinstance(error, Exception):
            raise _GraphError(str(error)) from error
        raise
    _call("cuStreamEndCapture", handle, ctypes.byref(graph))
    return _Graph(graph)


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_driver(), name)(*arguments)
    if code:
        raise _GraphError(f"{name} answers {code}")
