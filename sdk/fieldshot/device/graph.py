"""CUDA graphs: work of a stream, launched again as a whole. By the driver's own functions, for PyCUDA has none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["Graph", "GraphError", "captured"]

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class GraphError(Exception):
    """Work that cannot become a graph; the stream is as before."""


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_driver(), name)(*arguments)
    if code:
        raise GraphError(f"{name} answers {code}")


class Graph:
    """Work that was captured; the device's context must be current in all methods."""

    def __init__(self, graph: ctypes.c_void_p) -> None:
        self._work = ctypes.c_void_p()
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._work), graph, ctypes.c_ulonglong(0))
        finally:
            _driver().cuGraphDestroy(graph)

    def launch(self, stream: Any) -> None:
        """Start it on a stream.

        Raises
        ------
        GraphError
            If the driver refuses.
        """
        _call("cuGraphLaunch", self._work, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Give it back."""
        _driver().cuGraphExecDestroy(self._work)


def captured(stream: Any, work: Callable[[], object]) -> Graph:
    """Take down what `work` starts on a stream, which does not run by that.

    Raises
    ------
    GraphError
        If some of it cannot be in a graph.
    """
    handle, graph = ctypes.c_void_p(stream.handle), ctypes.c_void_p()
    _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
    try:
        work()
    except Exception as error:
        _driver().cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph:
            _driver().cuGraphDestroy(graph)
        raise GraphError(str(error)) from error
    _call("cuStreamEndCapture", handle, ctypes.byref(graph))
    return Graph(graph)
