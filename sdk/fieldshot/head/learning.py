"""Labelled samples become statistics: in chunks, and the classes of a chunk on all cores where that pays."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.head.contract import finite
from fieldshot.head.labels import unsortable
from fieldshot.head.statistics import ClassStatistics, added, apart

if TYPE_CHECKING:
    from fieldshot.ops import Ops

__all__ = ["Progress", "learned"]

Progress = Callable[[int, int], object]

# In a chunk each of a hundred classes has enough samples for its second moment to take its time for them.
_CHUNK_BYTES = 1 << 28
# Of a chunk so much is worked on at once, to stay in the cache; less of it all is done before threads have started.
_PIECE_BYTES = 1 << 21


def learned(
    known: dict[Any, ClassStatistics],
    rows: NDArray[Any],
    labels: NDArray[Any],
    ops: Ops,
    progress: Progress | None = None,
) -> dict[Any, ClassStatistics]:
    """Statistics of what is known and of more samples; `known` stays as it is.

    Memory holds a piece of the samples for each thread, and where they lie in a file (`numpy.memmap`), a chunk of it.

    Parameters
    ----------
    known : dict of label to ClassStatistics
    rows : (N, D) of real numbers.
    labels : (N,)
    ops : Ops
    progress : callable, optional
        Called as ``progress(done, N)`` after each group of classes of a chunk; what it raises ends it.

    Raises
    ------
    EmbeddingError
        For values that are not finite.
    LabelError
        For labels that do not sort.
    """
    statistics = apart(known)
    size, piece = (max(1, most // (4 * rows.shape[1])) for most in (_CHUNK_BYTES, _PIECE_BYTES))
    alone = ops.threads == 1 or len(rows) <= piece
    with nullcontext() if alone else ThreadPoolExecutor(ops.threads, thread_name_prefix="fieldshot-learn") as pool:
        for first in range(0, len(rows), size):
            order, ordered, starts = _by_label(labels[first : first + size])
            group = partial(_group, statistics, rows, ordered, order + first if first else order, piece, ops)
            groups = _groups(starts, piece)
            # Where progress raises, the results that are waited for go, and what has not begun never does.
            for each, new in zip(groups, map(group, groups) if pool is None else pool.map(group, groups), strict=True):
                statistics.update(new)
                if progress is not None:
                    progress(first + each[-1], len(rows))
            _let_go(rows)
    return statistics


def _by_label(labels: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any], list[int]]:
    """The samples in order of their labels, these in that order, and where in it each starts, with the end."""
    try:
        order = np.argsort(labels, kind="stable")
    except TypeError as error:
        raise unsortable(error) from error
    ordered = labels[order]
    return order, ordered, [0, *((ordered[1:] != ordered[:-1]).nonzero()[0] + 1).tolist(), len(labels)]


def _groups(starts: list[int], size: int) -> list[list[int]]:
    """The starts, with the end, of classes that together have so many samples at least."""
    groups, group = [], starts[:1]
    for start in starts[1:]:
        group.append(start)
        if start - group[0] >= size or start == starts[-1]:
            groups.append(group)
            group = [start]
    return groups


def _group(
    known: dict[Any, ClassStatistics],
    rows: NDArray[Any],
    labels: NDArray[Any],
    order: NDArray[np.intp],
    size: int,
    ops: Ops,
    starts: list[int],
) -> dict[Any, ClassStatistics]:
    """New statistics of the classes from one of `starts` to the next; a single one takes `size` samples at a time."""
    pieces, length = [starts], starts[-1] - starts[0]
    if len(starts) == 2 and length > size:
        count = -(-length // size)
        pieces = [[starts[0] + length * i // count, starts[0] + length * (i + 1) // count] for i in range(count)]
    new: dict[Any, ClassStatistics] = {}
    for piece in pieces:
        chosen = order[piece[0] : piece[-1]]
        scattered = bool((chosen[1:] != chosen[:-1] + 1).any())
        Z = finite(rows[chosen] if scattered else rows[chosen[0] : chosen[-1] + 1], chosen)
        inner = [start - piece[0] for start in piece]
        U, sums = ops.absorb(Z, np.array(inner, np.int32))
        for name, (a, b), total in zip(labels[piece[:-1]].tolist(), pairwise(inner), sums, strict=True):
            new[name] = added(new.get(name, known.get(name)), U[a:b], total, ops)
    parts = sum(len(each.samples) for each in new.values() if each.samples.base is not None)
    return new if parts == length else apart(new)  # or they would keep the rest of the batch in memory too


def _let_go(rows: NDArray[Any]) -> None:
    """Give back the memory that a file's pages took, or a file larger than the memory would fill it for a while."""
    base: Any = rows
    unwritten = False  # in a copy-on-write map pages may hold what the file does not
    while isinstance(base, np.ndarray):
        unwritten |= isinstance(base, np.memmap) and base.mode == "r"
        base = base.base
    if unwritten and isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
