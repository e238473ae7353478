"""An engine that serves at once, and hands over to a faster one as soon as that is ready."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable

from fieldshot.backbone.engine import Engine

__all__ = ["Handover"]

_log = logging.getLogger("fieldshot")


class Handover:
    """An engine, and meanwhile a thread that prepares another of the same precision.

    Parameters
    ----------
    serving : Engine
        Runs until the other is ready, and for good where that fails.
    prepare : callable
        ``prepare(progress)`` makes the other and checks it; ``progress(share)`` raises when the process ends.

    Attributes
    ----------
    engine : Engine
        What serves at this moment; its ``passed_over`` says how far the other is, or why it is none.
    """

    def __init__(self, serving: Engine, prepare: Callable[[Callable[[float], object]], Engine]) -> None:
        self.engine = serving  # replaced by one assignment: who reads it once sees one engine from start to end
        self._also = serving.passed_over
        self._tell(serving, "its plan is being built")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._replace, args=(prepare,), name="fieldshot-tensorrt", daemon=True)
        # A build calls back into Python: it must be over before that ends.
        atexit.register(self._end)
        self._thread.start()

    def _tell(self, serving: Engine, why: str) -> None:
        serving.passed_over = "; ".join(filter(None, [f"tensorrt: {why}", self._also]))

    def _replace(self, prepare: Callable[[Callable[[float], object]], Engine]) -> None:
        serving = self.engine

        def progress(share: float) -> None:
            if self._ending.is_set():
                raise KeyboardInterrupt
            self._tell(serving, f"its plan is being built, {share:.0%} done")

        try:
            self.engine = prepare(progress)
            _log.info("%s serves now in the place of %s", self.engine.name, serving.name)
        except KeyboardInterrupt:
            _log.debug("the plan is left unbuilt, as the process ends")
        except Exception as error:  # whatever it is, the engine that serves goes on
            self._tell(serving, str(error))
            _log.warning("%s goes on serving, for tensorrt is passed over: %s", serving.name, error)
        finally:
            atexit.unregister(self._end)

    def _end(self) -> None:
        self._ending.set()
        self._thread.join()
