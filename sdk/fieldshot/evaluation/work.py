"""Running methods on episodes, here or in processes beside; the outcome is the same."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fieldshot.errors import FieldshotError, OptionError
from fieldshot.evaluation.episodes import Cell, Pool, draw
from fieldshot.evaluation.features import unit
from fieldshot.evaluation.measures import brier, calibration_bins, hardness
from fieldshot.evaluation.methods import Factory, Method, find, probabilities

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32, Float64

__all__ = ["Outcome", "Problem", "Task", "outcomes"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


@dataclass
class Problem:
    """All that the episodes of a measurement share.

    Attributes
    ----------
    pool : Pool
    Z, asked : ndarray (N, D), (M, D), float32
        Embeddings that support and queries are rows of; the same one without a test set.
    methods : mapping of str to callable
        Name -> what makes the method, of those that `find` does not know.
    seed : int
    """

    pool: Pool
    Z: Float32
    asked: Float32
    methods: Mapping[str, Factory]
    seed: int
    units: tuple[Float32, Float32] = field(init=False)

    def __post_init__(self) -> None:
        unit_Z = unit(self.Z, np.float32)
        self.units = unit_Z, unit_Z if self.asked is self.Z else unit(self.asked, np.float32)


class Task(NamedTuple):
    """A method on the episodes `start` to before `stop` of a cell."""

    cell: Cell
    method: str
    start: int
    stop: int


class Outcome(NamedTuple):
    """One method on one episode.

    Attributes
    ----------
    accuracy, brier, hardness : float
    queries : int
        How many there were.
    bins : ndarray (3, 15)
        Of the calibration error.
    fit_ms : float
    """

    accuracy: float
    brier: float
    hardness: float
    queries: int
    bins: Float64
    fit_ms: float


def outcomes(problem: Problem, tasks: Sequence[Task], jobs: int) -> Generator[tuple[Task, list[Outcome]], None, None]:
    """Outcomes of tasks in their order, as they come; close the generator to end its processes early.

    Parameters
    ----------
    problem : Problem
        With more than one job, one whose `methods` can be pickled.
    tasks : sequence of Task
    jobs : int
        Processes; one means this one.
    """
    if jobs == 1:
        for task in tasks:
            # Not around the whole loop: between its steps the caller has its threads.
            with _one_thread():
                done = _run(problem, task)
            yield task, done
        return
    with _one_thread_in_children():
        # Spawned, not forked: ONNX Runtime and CUDA do not survive a fork.
        executor = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_prepare, initargs=(problem,))
        try:
            waiting: deque[tuple[Task, Future[list[Outcome]]]] = deque()
            for task in tasks:
                waiting.append((task, executor.submit(_work, task)))
                while waiting and (len(waiting) > 8 * jobs or waiting[0][1].done()):
                    yield waiting[0][0], waiting.popleft()[1].result()
            while waiting:
                yield waiting[0][0], waiting.popleft()[1].result()
        except BrokenProcessPool as error:
            raise FieldshotError(
                "processes must live to the end of a measurement (got: one was ended from outside)",
                hint="it may have run out of memory: use fewer (--jobs)",
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def _run(problem: Problem, task: Task) -> list[Outcome]:
    make = problem.methods.get(task.method) or find(task.method)
    return [_episode(problem, task, make(), number) for number in range(task.start, task.stop)]


def _episode(problem: Problem, task: Task, method: Method, number: int) -> Outcome:
    episode = draw(problem.pool, task.cell, problem.seed, number)
    support, queries = problem.Z[episode.support], problem.asked[episode.query]
    seen = {"unlabelled": queries} if "unlabelled" in signature(method.fit).parameters else {}
    started = time.perf_counter()
    method.fit(support, episode.classes, **seen)
    fit_ms = 1e3 * (time.perf_counter() - started)
    found = probabilities(method, queries)
    shape = len(queries), int(episode.classes.max()) + 1
    if found.shape != shape or not np.isfinite(found).all():
        raise OptionError(
            f"method {task.method!r} must give finite probabilities of shape {shape} (got shape {found.shape})",
            hint="leave this method out",
        )
    own, asked = problem.units
    return Outcome(
        accuracy=float(np.mean(found.argmax(axis=1) == episode.truth)),
        brier=brier(found, episode.truth),
        hardness=hardness(own[episode.support], episode.classes, asked[episode.query], episode.truth),
        queries=len(queries),
        bins=calibration_bins(found, episode.truth),
        fit_ms=fit_ms,
    )


# --- in a process beside ------------------------------------------------------------------------------------------

_problem: Problem | None = None


def _prepare(problem: Problem) -> None:
    global _problem
    # An interrupt from the terminal reaches every process: these end at once, without a traceback each.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _problem = problem


def _work(task: Task) -> list[Outcome]:
    assert _problem is not None  # _prepare ran
    return _run(_problem, task)


@contextmanager
def _one_thread_in_children() -> Iterator[None]:
    """Processes started meanwhile give linear algebra one thread: it reads this when it is loaded, so only then."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_thread() -> AbstractContextManager[object]:
    """Keep linear algebra to one thread here, where threadpoolctl (which scikit-learn brings) can."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits
