"""The TensorRT that is installed: TensorRT 10.3 to 11, or TensorRT-RTX, whose interface is the same.

Importing this module imports it.

Raises
------
MissingDependencyError
    If there is none.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fieldshot.errors import EngineError, MissingDependencyError

if TYPE_CHECKING:
    import tensorrt as trt
else:

    def _installed() -> Any:
        refusals = []
        for name in ("tensorrt", "tensorrt_rtx"):
            try:
                module = __import__(name)
                if not hasattr(module, "Builder"):
                    continue  # just a folder of this name beside the program
                if name == "tensorrt" and tuple(map(int, module.__version__.split(".")[:2])) < (10, 3):
                    refusals.append(f"TensorRT {module.__version__}, older than 10.3")
                    continue
                return module
            except (ImportError, OSError, RuntimeError) as error:  # the latter where its libraries do not load
                refusals.append(str(error))
        raise MissingDependencyError(
            f"TensorRT 10.3 or newer must be installed (got: {'; '.join(refusals) or 'none'})",
            hint="JetPack brings it; elsewhere pip install tensorrt, or tensorrt-rtx for GeForce and RTX cards",
        )

    trt = _installed()

__all__ = ["LOGGER", "NAME", "VERSION", "made", "refusals", "trt"]

Made = TypeVar("Made")

NAME: Final = "TensorRT-RTX" if trt.__name__.startswith("tensorrt_rtx") else "TensorRT"
VERSION: Final = trt.__version__

_log = logging.getLogger("fieldshot.tensorrt")


class _Logger(trt.ILogger):  # type: ignore[misc]
    """Passes on what TensorRT logs, and its errors to all who listen: they say what a result of None does not."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.listening: dict[int, deque[str]] = {}  # any thread may log: TensorRT does not say what it is about
        self.interrupted: BaseException | None = None  # for `refusals` to raise

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Take a message; TensorRT calls it from any thread."""
        try:
            self._take(severity, msg)
        except BaseException as error:  # TensorRT would swallow it: Control-C arrives wherever Python runs
            self.interrupted = self.interrupted or error

    def _take(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            for errors in list(self.listening.values()):
                errors.append(" ".join(msg.split()))
        if severity != trt.ILogger.Severity.VERBOSE:  # thousands of lines a build
            _log.debug("%s", msg)


LOGGER: Final = _Logger()  # TensorRT wants one for all that it makes


def made(kind: Callable[[Any], Made]) -> Made:
    """A builder or a runtime.

    Raises
    ------
    EngineError
        If TensorRT cannot start, for instance for want of memory or with a driver that is too old for it.
    """
    with refusals() as errors:
        try:
            return kind(LOGGER)
        except TypeError as error:  # what pybind11 makes of a null pointer
            raise EngineError(
                f"{NAME} {VERSION} must start (got: {'; '.join(errors) or error})",
                hint="install a TensorRT for this driver, free memory on the device, or use engine='onnxruntime'",
            ) from error


@contextmanager
def refusals() -> Iterator[deque[str]]:
    """What TensorRT logs as errors meanwhile, the last ones; raises at its end what TensorRT swallowed."""
    errors: deque[str] = deque(maxlen=8)
    LOGGER.listening[id(errors)] = errors
    try:
        yield errors
    finally:
        del LOGGER.listening[id(errors)]
    interrupted, LOGGER.interrupted = LOGGER.interrupted, None
    if interrupted is not None:
        raise interrupted
