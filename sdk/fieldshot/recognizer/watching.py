"""A camera that does not wait: frames are taken as they come, and the newest ones are answered."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

from fieldshot.errors import MissingFileError, OptionError, PictureError

__all__ = ["newest"]

_log = logging.getLogger("fieldshot")

_PATIENCE_S = 1.0

Frame = TypeVar("Frame")
Answer = TypeVar("Answer")


def newest(
    frames: Iterable[Frame],
    answer: Callable[[Frame], Answer],
    *,
    waiting: int,
    timeout_s: float | None,
    skip_unreadable: bool = False,
) -> Generator[tuple[Frame, Answer], None, None]:
    """Answer frames while a thread takes the next ones; of those that wait, the oldest give way.

    Parameters
    ----------
    frames : iterable
        Taken in a thread of its own, as fast as it gives.
    answer : callable
        Called here, one frame at a time.
    waiting : int
        Most frames that wait.
    timeout_s : float or None
        Most seconds from one frame to the next.
    skip_unreadable : bool
        Log frames that are no pictures, and go on.

    Yields
    ------
    (frame, answer)
        In the order of the frames.

    Raises
    ------
    OptionError
        If ``waiting`` is not a whole number above 0, ``timeout_s`` not above 0, or ``frames`` one picture.
    PictureError
        If no frame came for ``timeout_s``.
    Exception
        Whatever ``frames`` or ``answer`` raises.
    """
    if not isinstance(waiting, int) or isinstance(waiting, bool) or waiting < 1:
        raise OptionError(f"waiting must be a whole number above 0 (got {waiting!r})", hint="leave it at 1")
    number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if timeout_s is not None and not (number and 0 < timeout_s <= threading.TIMEOUT_MAX):
        raise OptionError(f"timeout_s must be seconds above 0, or None (got {timeout_s!r})", hint="1 is a second")
    alone = isinstance(frames, (str, os.PathLike)) or (isinstance(frames, np.ndarray) and frames.ndim != 4)
    if alone or not isinstance(frames, Iterable):
        raise OptionError(
            f"frames must be an iterable of pictures (got {type(frames).__name__})",
            hint="write a generator that reads the camera and yields its frames",
        )
    return _answered(_Camera(frames, waiting), answer, timeout_s, skip_unreadable)


def _answered(
    camera: _Camera[Frame], answer: Callable[[Frame], Answer], timeout_s: float | None, skip_unreadable: bool
) -> Generator[tuple[Frame, Answer], None, None]:
    try:
        for frame in camera.taken(timeout_s):
            try:
                found = answer(frame)
            except (PictureError, MissingFileError) as error:
                if not skip_unreadable:
                    raise
                _log.warning("a frame is left out: %s", error)
            else:
                yield frame, found
    finally:
        camera.stop()


class _Camera(Generic[Frame]):
    """Takes frames in a thread, and keeps the newest."""

    def __init__(self, frames: Iterable[Frame], waiting: int) -> None:
        self._frames: deque[Frame] = deque(maxlen=waiting)
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._raised: BaseException | None = None
        self._source = frames
        self._thread: threading.Thread | None = None

    def _take(self, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                with self._changed:
                    if self._stopped:
                        return
                    # A camera may read the next frame into the same memory.
                    self._frames.append(frame.copy() if isinstance(frame, np.ndarray) else frame)
                    self._changed.notify()
        except BaseException as error:  # raised where the answers are asked for
            self._raised = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def taken(self, timeout_s: float | None) -> Iterator[Frame]:
        """The frames that are still there when it is their turn; the last ones too when the camera ends."""
        # A camera that hangs cannot be woken: a daemon does not keep the process.
        self._thread = threading.Thread(
            target=self._take, args=(iter(self._source),), name="fieldshot-camera", daemon=True
        )
        self._thread.start()
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._frames or self._ended, timeout_s):
                    raise PictureError(
                        f"a frame must come within {timeout_s:g} s of the one before (got none)",
                        hint="look whether the camera is connected and delivers, or allow it more time",
                    )
                if not self._frames:
                    break
                frame = self._frames.popleft()
            yield frame
        if self._raised is not None:
            raise self._raised

    def stop(self) -> None:
        """Take no more: the thread ends at the next frame, for which this waits a little."""
        with self._changed:
            self._stopped = True
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
