"""Pictures through a network: made ready on the CPU, or sent as they are to the device that runs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.engine import Engine
from fieldshot.backbone.pipeline import outputs
from fieldshot.backbone.views import views_of
from fieldshot.errors import OptionError, PictureError
from fieldshot.images import Picture, Preprocessing, size_of
from fieldshot.ops import Pending
from fieldshot.ops.pictures import at_hand, prepare

__all__ = ["check_batch_size", "embedded", "embedded_alone"]

Floats = npt.NDArray[np.float32]
Item = TypeVar("Item")

_SENT = 2  # pictures at once to a device: reading them is the longer part, and photographs in memory are large


def embedded(
    engine: Engine,
    spec: Preprocessing,
    items: Iterable[Item],
    read: Callable[[Item], Picture],
    *,
    views: int,
    batch_size: int,
) -> Generator[Floats, None, None]:
    """Turn items into embeddings, given out batch by batch; parameters as for `Backbone.stream`."""
    feed = _Feed(engine, spec, read, views)
    numbered = enumerate(items)
    if feed.sends:
        size = min(batch_size, _SENT)
        yield from _closed(outputs(numbered, feed.pictures, feed.send, batch_size=size, workers=engine.workers))
    else:
        size = min(batch_size, max(1, engine.batch_size // views))
        yield from _closed(outputs(numbered, feed.inputs, feed.run, batch_size=size, workers=engine.workers))


def embedded_alone(engine: Engine, spec: Preprocessing, picture: Picture, *, views: int) -> Floats | Pending:
    """Turn a picture into its embedding (1, D), as `Backbone.embed_alone`."""
    if engine.pending is not None and views == 1:
        return engine.pending([picture], spec)
    inputs = np.empty((views, 3, *spec.size), np.float32)
    _prepare(picture, spec, inputs, threads=engine.workers)
    embeddings = engine.run(inputs)
    return embeddings if views == 1 else embeddings.mean(axis=0, keepdims=True)


def check_batch_size(batch_size: object) -> None:
    """Refuse what is no number of pictures.

    Raises
    ------
    OptionError
        If it is not a whole number above 0.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number above 0 (got {batch_size!r})", hint="leave it at 32")


def _closed(stream: Generator[Floats, None, None]) -> Iterator[Floats]:
    """The threads end here and now when the network, a picture or the caller raises."""
    with closing(stream):
        yield from stream


class _Feed(Generic[Item]):
    """What is done to a batch of numbered items."""

    def __init__(self, engine: Engine, spec: Preprocessing, read: Callable[[Item], Picture], views: int) -> None:
        self._engine, self._spec, self._read, self._views = engine, spec, read, views
        self._make = engine.pending if views == 1 else None
        self.sends = self._make is not None
        self._room = threading.local()  # for inputs, a worker's batches one after the other

    def inputs(self, batch: list[tuple[int, Item]]) -> Floats:
        """Inputs (n, views, 3, height, width); gone with the thread's next batch."""
        if getattr(self._room, "size", 0) < len(batch):
            self._room.size = len(batch)
            self._room.inputs = np.empty((len(batch), self._views, 3, *self._spec.size), np.float32)
        inputs: Floats = self._room.inputs[: len(batch)]
        for (number, item), out in zip(batch, inputs, strict=True):
            with _naming(number, item):
                _prepare(self._read(item), self._spec, out)
        return inputs

    def run(self, inputs: Floats) -> Floats:
        """Embeddings (n, D) of inputs, beside other threads."""
        n, views, *shape = inputs.shape
        embeddings = self._engine.run_beside(inputs.reshape(n * views, *shape))
        return embeddings if views == 1 else embeddings.reshape(n, views, -1).mean(axis=1)

    def pictures(self, batch: list[tuple[int, Item]]) -> list[Picture]:
        """The pictures themselves."""
        pictures = []
        for number, item in batch:
            with _naming(number, item):
                picture = self._read(item)
                self._spec.placed(*size_of(picture))  # where one is refused it still has its name
                pictures.append(picture)
        return pictures

    def send(self, pictures: list[Picture]) -> Floats:
        """Embeddings (n, D) of pictures, by the device."""
        assert self._make is not None  # `sends`
        return self._make(pictures, self._spec).fetch()


def _prepare(picture: Picture, spec: Preprocessing, out: Floats, *, threads: int = 1) -> None:
    """Make each view of a picture ready: out (views, 3, height, width)."""
    if len(out) == 1:
        prepare(picture, spec, out[0], threads=threads)
        return
    for view, seen in zip(views_of(at_hand(picture), len(out)), out, strict=True):
        prepare(view, spec, seen, threads=threads)


@contextmanager
def _naming(number: int, item: object) -> Iterator[None]:
    """Say which picture of several it was, where nothing else does."""
    try:
        yield
    except PictureError as error:
        if isinstance(item, (str, os.PathLike)):
            raise
        raise PictureError(f"picture {number}: {error.message}", hint=error.hint) from error
