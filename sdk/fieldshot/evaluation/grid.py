"""`evaluate`: every method on the same episodes of every cell, one row each."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldshot import __version__
from fieldshot.evaluation.cells import Axis, plan, whole
from fieldshot.evaluation.episodes import Cell, Pool
from fieldshot.evaluation.measures import calibration_error, mean_interval, worst_decile
from fieldshot.evaluation.methods import Factory, check, select
from fieldshot.evaluation.rows import Journal, Row
from fieldshot.evaluation.work import Outcome, Problem, Task, outcomes
from fieldshot.head.contract import checked_embeddings, checked_labels

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32

__all__ = ["checked_samples", "evaluate"]

_LOG = logging.getLogger("fieldshot")

# What one task is at most: a process beside gives its outcomes back often enough to be watched and interrupted.
_TASK_EPISODES, _TASK_WORK = 10, 20_000
# To start a process takes about as long as this much work, in embeddings of episodes.
_JOB_WORK = 40_000


def evaluate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    ways: Axis | None = None,
    shots: Axis | None = None,
    queries: int = 15,
    episodes: int = 200,
    seed: int = 0,
    methods: Sequence[str] | Mapping[str, Factory] = ("fieldshot",),
    balance: float | None = None,
    heterogeneous: bool = False,
    name: str = "data",
    progress: Callable[[int, int], None] | None = None,
    done: str | os.PathLike[str] | None = None,
    jobs: int = 1,
) -> list[Row]:
    """Accuracy and calibration of methods over random episodes, one row a cell (ways, shots) and method.

    An episode draws `ways` classes, then from each `shots` support and `queries` query samples, all different; a
    method is fitted on the support and judged on the queries. All methods see the same episodes.

    Parameters
    ----------
    embeddings : array-like (N, D)
    labels : array-like (N,)
    test : (array-like (M, D), array-like (M,)), optional
        Embeddings and labels that queries are drawn from instead, of the same classes.
    ways, shots : int, "all", a sequence of these, or "grid", optional
        Left out, 5 ways, and 1 and 5 shots. All ways are all classes; all shots are all samples of a class but the
        queries. In a grid, ways 2, 5, 10, 20 and all by shots 1, 2, 3, 5, 10, 20, 50, 100 and all, what the data do not
        have is left out with a word in the log, a cell has fewer queries where a class has no more (5 at least), and
        large cells have fewer episodes.
    queries, episodes : int
        Query samples a class, and episodes a cell; both at most in a grid.
    seed : int
        Of the drawing, from 0.
    methods : sequence of str, or mapping of str to callable
        Names or groups (`fieldshot.evaluation.select`), or one's own: name -> what makes a `Method`, such as the class
        of a scikit-learn classifier.
    balance : float, optional
        Draw how the queries of an episode spread over its classes from a symmetric Dirichlet distribution with this
        alpha (Veilleux et al., NeurIPS 2021, section 3), as far as each class has so many; a class may have none.
        Left out, each has `queries`.
    heterogeneous : bool
        Draw ways and the shots of each class too, as Meta-Dataset does (Triantafillou et al., ICLR 2020, section
        3.2): one cell, with at most 10 queries a class; `ways` and `shots` must be left out.
    name : str
        Of the data, for the rows.
    progress : callable, optional
        Called with (work done, work in all), whole numbers that grow with the embeddings of finished episodes.
    done : str or os.PathLike, optional
        File of finished rows, made where it is missing: rows of the same data and settings are taken from it, with a
        word in the log, new ones are added as they are finished.
    jobs : int
        Processes to share the work, at most; rows do not depend on it, but for `fit_ms`.

    Returns
    -------
    list of Row
        By ways, then shots, then method.

    Raises
    ------
    OptionError
        If there are fewer classes than `ways`, or a class has too few samples, and it says how many there are; if an
        argument or a method makes no sense.
    EmbeddingError, LabelError
        If embeddings or labels make no sense.
    """
    seed, jobs = whole("seed", seed, 0), whole("jobs", jobs, 1)
    own = dict(methods) if isinstance(methods, Mapping) else {}
    for word, make in own.items():
        check(word, make)
    names = list(own) or select([methods] if isinstance(methods, str) else methods)
    problem = _problem(embeddings, labels, test, own, seed)
    cells, left_out = plan(problem.pool, ways, shots, queries, episodes, balance, heterogeneous=heterogeneous)
    for reason in left_out:
        _LOG.warning("%s: the grid leaves out %s", name, reason)
    journal = None if done is None else Journal(done)
    rows: dict[tuple[Cell, str], Row] = {}
    keys = {}
    if journal is not None:
        shared = _digest(problem)
        for pair in ((cell, method) for cell in cells for method in names):
            keys[pair] = _key(shared, name, seed, *pair)
            found = journal.get(keys[pair])
            if found is not None:
                rows[pair] = found
        if rows:  # as loud as what a grid leaves out: it was another run, at another speed
            _LOG.warning(
                "%s: %d of %d rows were measured before: they are taken from %s", name, len(rows), len(keys), done
            )
    works = {cell: _work(problem.pool, cell) for cell in cells}
    tasks = [
        task for cell in cells for method in names if (cell, method) not in rows for task in _tasks(cell, method, works)
    ]
    total = sum(works[cell] * cell.episodes for cell in cells) * len(names)
    finished = total - sum(works[task.cell] * (task.stop - task.start) for task in tasks)
    collected: list[Outcome] = []
    with closing(outcomes(problem, tasks, min(jobs, 1 + (total - finished) // _JOB_WORK))) as stream:
        for task, part in stream:
            collected += part
            if task.stop == task.cell.episodes:
                pair = task.cell, task.method
                rows[pair] = _row(name, *pair, collected)
                collected = []
                if journal is not None:
                    journal.add(keys[pair], rows[pair])
            finished += works[task.cell] * (task.stop - task.start)
            if progress is not None:
                progress(finished, total)
    return [rows[cell, method] for cell in cells for method in names]


def _problem(
    embeddings: ArrayLike,
    labels: ArrayLike,
    test: tuple[ArrayLike, ArrayLike] | None,
    methods: Mapping[str, Factory],
    seed: int,
) -> Problem:
    Z, y = checked_samples(embeddings, labels, None)
    if test is None:
        return Problem(Pool.of(y), Z, Z, methods, seed)
    asked, named = checked_samples(*test, Z.shape[1])
    return Problem(Pool.of(y, named), Z, asked, methods, seed)


def checked_samples(embeddings: ArrayLike, labels: ArrayLike, dim: int | None) -> tuple[Float32, NDArray[Any]]:
    """Embeddings (N, D) float32 and labels (N,), of dimension `dim` if it is given; an error if they make no sense."""
    Z = checked_embeddings(embeddings, expected=dim, name="the measurement").astype(np.float32, copy=False)
    return Z, checked_labels(labels, len(Z), "the measurement")


def _work(pool: Pool, cell: Cell) -> int:
    """Embeddings of one episode, about: what its time grows with."""
    if isinstance(cell.ways, str):
        return 300
    shots = float(pool.left(cell.queries).mean()) if isinstance(cell.shots, str) else cell.shots
    return round(cell.ways * (shots + cell.queries))


def _tasks(cell: Cell, method: str, works: Mapping[Cell, int]) -> list[Task]:
    step = max(1, min(_TASK_EPISODES, _TASK_WORK // works[cell]))
    return [Task(cell, method, start, min(start + step, cell.episodes)) for start in range(0, cell.episodes, step)]


def _row(name: str, cell: Cell, method: str, parts: Sequence[Outcome]) -> Row:
    accuracies = [part.accuracy for part in parts]
    accuracy, interval = mean_interval(accuracies)
    counts = np.array([part.queries for part in parts])
    return Row(
        data=name,
        method=method,
        ways=cell.ways,
        shots=cell.shots,
        queries=cell.queries,
        balance=cell.balance,
        episodes=cell.episodes,
        accuracy=accuracy,
        interval=interval,
        worst_decile=worst_decile(accuracies),
        ece=calibration_error(np.sum([part.bins for part in parts], axis=0)),
        brier=float(counts @ [part.brier for part in parts] / counts.sum()),
        fit_ms=float(np.median([part.fit_ms for part in parts])),
        accuracies=accuracies,
        hardness=[part.hardness for part in parts],
    )


def _digest(problem: Problem) -> str:
    """Of embeddings and classes."""
    digest = hashlib.sha256(json.dumps(problem.pool.labels).encode())
    parts: list[NDArray[Any]] = [problem.Z, *problem.pool.members]
    if problem.pool.asked is not None:
        parts += [problem.asked, *problem.pool.asked]
    for part in parts:
        digest.update(f"{part.dtype} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


@cache
def _code() -> str:
    """Digest of the code that rows come from: a version stands still while it is worked on."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(
        path for part in ("evaluation", "head", "kernels", "ops") for path in (package / part).rglob("*")
    ):
        if path.suffix in (".py", ".cu", ".cuh", ".cpp"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _key(digest: str, name: str, seed: int, cell: Cell, method: str) -> str:
    """Digest of all that a row depends on."""
    device = os.environ.get("FIELDSHOT_DEVICE") or "auto"
    parts = [__version__, _code(), device, digest, name, seed, method, asdict(cell)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
