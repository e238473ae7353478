"""Pictures through a network: made ready on the CPU, or sent as they are to the device that runs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import closing, contextmanager
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.engine import Engine
from fieldshot.backbone.pipeline import outputs
from fieldshot.backbone.views import views_of
from fieldshot.errors import OptionError, PictureError
from fieldshot.images import Picture, Preprocessing, size_of
from fieldshot.ops.pictures import at_hand, prepare

__all__ = ["embedded"]

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
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise OptionError(f"batch_size must be a whole number above 0 (got {batch_size!r})", hint="leave it at 32")
    alone = isinstance(items, Sized) and len(items) == 1
    feed = _Feed(engine, spec, read, views, alone)
    numbered = enumerate(items)
    if alone:
        yield feed.one(next(numbered))
    elif feed.sends:
        size = min(batch_size, _SENT)
        yield from _closed(outputs(numbered, feed.pictures, feed.send, batch_size=size, workers=engine.workers))
    else:
        size = min(batch_size, max(1, engine.batch_size // views))
        yield from _closed(outputs(numbered, feed.inputs, feed.run, batch_size=size, workers=engine.workers))


def _closed(stream: Generator[Floats, None, None]) -> Iterator[Floats]:
    """The threads end here and now when the network, a picture or the caller raises."""
    with closing(stream):
        yield from stream


class _Feed(Generic[Item]):
    """What is done to a batch of numbered items."""

    def __init__(
        self, engine: Engine, spec: Preprocessing, read: Callable[[Item], Picture], views: int, alone: bool
    ) -> None:
        self._engine, self._spec, self._read, self._views, self._alone = engine, spec, read, views, alone
        self._make = engine.pending if views == 1 else None
        self.sends = self._make is not None
        self._room = threading.local()  # for inputs, a worker's batches one after the other

    def one(self, numbered: tuple[int, Item]) -> Floats:
        """The embedding (1, D) of a lone picture, soonest."""
        if self.sends:
            return self.send(self.pictures([numbered]))
        return self._averaged(self._engine.run, self.inputs([numbered]))

    def inputs(self, batch: list[tuple[int, Item]]) -> Floats:
        """Inputs (n, views, 3, height, width); gone with the thread's next batch."""
        if getattr(self._room, "size", 0) < len(batch):
            self._room.size = len(batch)
            self._room.inputs = np.empty((len(batch), self._views, 3, *self._spec.size), np.float32)
        inputs: Floats = self._room.inputs[: len(batch)]
        for (number, item), out in zip(batch, inputs, strict=True):
            with self._naming(number, item):
                for view, seen in zip(views_of(at_hand(self._read(item)), self._views), out, strict=True):
                    prepare(view, self._spec, seen)
        return inputs

    def run(self, inputs: Floats) -> Floats:
        """Embeddings (n, D) of inputs, beside other threads."""
        return self._averaged(self._engine.run_beside, inputs)

    def pictures(self, batch: list[tuple[int, Item]]) -> list[Picture]:
        """The pictures themselves."""
        pictures = []
        for number, item in batch:
            with self._naming(number, item):
                picture = self._read(item)
                self._spec.placed(*size_of(picture))  # where one is refused it still has its name
                pictures.append(picture)
        return pictures

    def send(self, pictures: list[Picture]) -> Floats:
        """Embeddings (n, D) of pictures, by the device."""
        assert self._make is not None  # `sends`
        return self._make(pictures, self._spec).fetch()

    def _averaged(self, run: Callable[[Floats], Floats], inputs: Floats) -> Floats:
        n, views, *shape = inputs.shape
        embeddings = run(inputs.reshape(n * views, *shape))
        return embeddings if views == 1 else embeddings.reshape(n, views, -1).mean(axis=1)

    @contextmanager
    def _naming(self, number: int, item: Item) -> Iterator[None]:
        """Say which picture it was, where nothing else does."""
        try:
            yield
        except PictureError as error:
            if isinstance(item, (str, os.PathLike)) or self._alone:
                raise
            raise PictureError(f"picture {number}: {error.message}", hint=error.hint) from error
