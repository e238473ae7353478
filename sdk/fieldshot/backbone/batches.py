"""Batches of inputs, prepared ahead of the network by a few threads; Pillow and ONNX Runtime release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from math import ceil
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["batches"]

Floats = npt.NDArray[np.float32]
Item = TypeVar("Item")

# Pictures a worker in one group: fewer, and small batches wait for the slowest picture each time.
_PER_WORKER: Final = 4


def batches(
    items: Iterable[Item],
    prepare: Callable[[Item, Floats], object],
    shape: tuple[int, int, int],
    *,
    batch_size: int,
    workers: int,
) -> Generator[Floats, None, None]:
    """Yield the inputs of items in their order, while the next ones are prepared.

    At most two groups of inputs are in memory, however many items there are; a group is one batch, or so many small
    ones as keep all threads busy. A single item is prepared without threads.

    Parameters
    ----------
    items : iterable
        Taken two groups ahead at most.
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
    group_size = batch_size * ceil(_PER_WORKER * workers / batch_size)
    groups = iter(lambda: list(islice(iterator, group_size)), [])
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
        for group in chain([second], groups, [[]]):
            ready = buffers[0][: _finish(pending)]
            # The other buffer is free: all of it went through the network before this group was asked for.
            buffers.reverse()
            pending = start(group, buffers[0])
            for row in range(0, len(ready), batch_size):
                yield ready[row : row + batch_size]
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(pending: list[Future[object]]) -> int:
    for future in pending:
        future.result()
    return len(pending)
