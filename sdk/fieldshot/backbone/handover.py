"""An engine that serves at once, and hands over to a faster one as soon as that is ready."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.engine import Engine, FromPictures

__all__ = ["Handover"]

Floats = npt.NDArray[np.float32]

_log = logging.getLogger("fieldshot")


class Handover:
    """An engine, and meanwhile a thread that prepares another of the same precision.

    Parameters
    ----------
    serving : Engine
        Runs until the other is ready, and for good where that fails.
    prepare : callable
        ``prepare(progress)`` makes the other and checks it; ``progress(share)`` raises when the process ends.
    """

    def __init__(self, serving: Engine, prepare: Callable[[Callable[[float], object]], Engine]) -> None:
        self._engine = serving  # replaced by one assignment: a run sees one engine from start to end
        self.passed_over = "tensorrt: its plan is being built"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._replace, args=(prepare,), name="fieldshot-tensorrt", daemon=True)
        # A build calls back into Python: it must be over before that ends.
        atexit.register(self._end)
        self._thread.start()

    def _replace(self, prepare: Callable[[Callable[[float], object]], Engine]) -> None:
        def progress(share: float) -> None:
            if self._ending.is_set():
                raise KeyboardInterrupt
            self.passed_over = f"tensorrt: its plan is being built, {share:.0%} done"

        try:
            self._engine = prepare(progress)
            self.passed_over = ""
            _log.info("%s serves now in the place of onnxruntime", self._engine.name)
        except KeyboardInterrupt:
            _log.debug("the plan is left unbuilt, as the process ends")
        except Exception as error:  # whatever it is, the engine that serves goes on
            self.passed_over = f"tensorrt: {error}"
            _log.warning("%s goes on serving, for tensorrt is passed over: %s", self._engine.name, error)
        finally:
            atexit.unregister(self._end)

    def _end(self) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def name(self) -> str:
        """The word that chooses the engine that serves."""
        return self._engine.name

    @property
    def precision(self) -> str:
        """Which of the bundle's networks it is."""
        return self._engine.precision

    @property
    def workers(self) -> int:
        """Calls of ``run_beside`` at once that make the most of the device."""
        return self._engine.workers

    @property
    def batch_size(self) -> int:
        """Pictures in each of them, at most, that do."""
        return self._engine.batch_size

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Sizes of batches that run differently."""
        return self._engine.batch_sizes

    @property
    def pending(self) -> FromPictures | None:
        """As `Engine.pending`."""
        return self._engine.pending

    def run(self, batch: Floats) -> Floats:
        """As `Engine.run`."""
        return self._engine.run(batch)

    def run_beside(self, batch: Floats) -> Floats:
        """As `Engine.run_beside`."""
        return self._engine.run_beside(batch)

    def info(self) -> dict[str, Any]:
        """As `Engine.info`."""
        return self._engine.info()
