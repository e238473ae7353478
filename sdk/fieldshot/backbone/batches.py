"""Batches of inputs, prepared ahead of the network by a few threads; Pillow and ONNX Runtime release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["batches"]

Floats = npt.NDArray[np.float32]
Item = TypeVar("Item")


def batches(
    items: Iterable[Item],
    prepare: Callable[[Item, Floats], object],
    shape: tuple[int, int, int],
    *,
    batch_size: int,
    workers: int,
) -> Generator[Floats, None, None]:
    """Yield the inputs of items in their order, while the next batch is prepared.

    At most two batches are in memory, however many items there are; a single item is prepared without threads.

    Parameters
    ----------
    items : iterable
        Taken two batches ahead at most.
    prepare : callable
        ``prepare(item, out)`` writes the input of one item into ``out``, of ``shape``, float32; called in threads.
        The first error in the order of the items is raised here, and nothing more is prepared.
    shape : (int, int, int)
        Channels, height and width of one input.
    batch_size : int
        Most items in a batch.
    workers : int
        Threads that prepare.

    Yields
    ------
    ndarray of shape (n, *shape), dtype float32
        Valid until the next one is asked for: its memory is used again.
    """
    iterator = iter(items)
    groups = iter(lambda: list(islice(iterator, batch_size)), [])
    first, second = next(groups, []), next(groups, [])
    if not first:
        return
    if len(first) == 1 and not second:
        batch = np.empty((1, *shape), np.float32)
        prepare(first[0], batch[0])
        yield batch
        return
    buffers = [np.empty((len(group), *shape), np.float32) for group in (first, second)]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fieldshot-prepare")

    def start(group: list[Item], buffer: Floats) -> list[Future[object]]:
        return [pool.submit(prepare, item, out) for item, out in zip(group, buffer, strict=False)]

    try:
        pending = start(first, buffers[0])
        for group in chain([second] if second else [], groups):
            ready = buffers[0][: _finish(pending)]
            # The other buffer is free: its batch went through the network before this one was asked for.
            buffers.reverse()
            pending = start(group, buffers[0])
            yield ready
        yield buffers[0][: _finish(pending)]
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(pending: list[Future[object]]) -> int:
    for future in pending:
        future.result()
    return len(pending)
