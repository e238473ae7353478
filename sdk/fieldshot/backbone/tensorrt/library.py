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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from fieldshot.errors import MissingDependencyError

if TYPE_CHECKING:
    import tensorrt as trt
else:

    def _installed() -> Any:
        refusals = []
        for name in ("tensorrt", "tensorrt_rtx"):
            try:
                module = __import__(name)
                if hasattr(module, "Builder"):  # not just a folder of this name beside the program
                    return module
            except (ImportError, OSError, RuntimeError) as error:  # the latter where its libraries do not load
                refusals.append(str(error))
        raise MissingDependencyError(
            f"TensorRT must be installed (got: {'; '.join(refusals)})",
            hint="JetPack brings it; elsewhere pip install tensorrt, or tensorrt-rtx for GeForce and RTX cards",
        )

    trt = _installed()

__all__ = ["LOGGER", "NAME", "VERSION", "refusals", "trt"]

NAME: Final = "TensorRT-RTX" if trt.__name__.startswith("tensorrt_rtx") else "TensorRT"
VERSION: Final = trt.__version__

_log = logging.getLogger("fieldshot.tensorrt")


class _Logger(trt.ILogger):  # type: ignore[misc]
    """Passes on what TensorRT logs, and remembers its errors: they say what a result of None does not."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: deque[str] = deque(maxlen=8)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Take a message; TensorRT calls it from any thread."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(" ".join(msg.split()))
        if severity != trt.ILogger.Severity.VERBOSE:  # thousands of lines a build
            _log.debug("%s", msg)


LOGGER: Final = _Logger()  # TensorRT wants one for all that it makes


@contextmanager
def refusals() -> Iterator[deque[str]]:
    """What TensorRT logs as errors meanwhile, the last ones."""
    LOGGER.errors.clear()
    yield LOGGER.errors
