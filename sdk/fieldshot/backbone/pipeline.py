"""Many pictures through a network: several workers, each of which prepares a few pictures and runs them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from math import ceil
from time import perf_counter
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["outputs"]

Floats = npt.NDArray[np.float32]
Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def outputs(
    items: Iterable[Item],
    prepare: Callable[[list[Item]], Prepared],
    run: Callable[[Prepared], Floats],
    *,
    batch_size: int,
    workers: int,
) -> Generator[Floats, None, None]:
    """Yield what the network makes of items, in their order, batch by batch.

    At most ``3 * workers`` batches are on their way, however many items there are.

    Parameters
    ----------
    items : iterable
        Taken as the batches go.
    prepare : callable
        ``prepare(batch)`` makes a list of items ready for `run`, which follows on the same thread. The first error in
        the order of the items is raised here.
    run : callable
        ``run(prepared)`` returns the outputs of a batch, (n, ...); called in as many threads at once as there are
        workers.
    batch_size : int
        Most items in a batch.
    workers : int
        Threads.
    """
    turns = _Turns(workers)

    def work(batch: list[Item]) -> Floats:
        with turns.preparing():
            prepared = prepare(batch)
        with turns.running():
            return run(prepared)

    iterator = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fieldshot-embed")
    pending: deque[Future[Floats]] = deque()
    try:
        while batch := list(islice(iterator, batch_size)):
            pending.append(pool.submit(work, batch))
            if len(pending) == 3 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Turns:
    """Lets only so many workers prepare at once as it takes to keep the others running.

    Preparing holds Python's lock much of the time, and workers that do it together wait for each other at every
    release: two cores took a quarter longer for small pictures that way. By Little's law the workers in a stage are
    its share of the time; where decoding large pictures takes nearly all of it, nearly all may.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._preparing = 0
        self._prepare_s = self._run_s = 0.0
        self._changed = threading.Condition()

    def _allowed(self) -> int:
        if not self._run_s:
            return 1  # nothing measured yet
        return ceil(self._workers * self._prepare_s / (self._prepare_s + self._run_s))

    @contextmanager
    def preparing(self) -> Iterator[None]:
        with self._changed:
            while self._preparing >= self._allowed():
                self._changed.wait()
            self._preparing += 1
        started = perf_counter()
        try:
            yield
        finally:
            with self._changed:
                self._prepare_s += perf_counter() - started
                self._preparing -= 1
                self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[None]:
        started = perf_counter()
        try:
            yield
        finally:
            with self._changed:
                self._run_s += perf_counter() - started
