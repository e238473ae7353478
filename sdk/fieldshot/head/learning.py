"""Labelled samples become statistics: in chunks, and the classes of a chunk on all cores where that pays."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldshot.errors import LabelError
from fieldshot.head.contract import finite
from fieldshot.head.statistics import ClassStatistics, added

if TYPE_CHECKING:
    from fieldshot.ops import Ops

__all__ = ["Progress", "learned", "unsortable"]

Progress = Callable[[int, int], object]

# In a chunk each of a hundred classes has enough samples for its second moment to take its time for them.
_CHUNK_BYTES = 1 << 28
# Of a chunk so much is worked on at once, to stay in the cache; less of it all is done before threads have started.
_PIECE_BYTES = 1 << 21


def learned(
    known: dict[Any, ClassStatistics],
    Z: ArrayLike,
    labels: NDArray[Any],
    ops: Ops,
    progress: Progress | None = None,
) -> dict[Any, ClassStatistics]:
    """Statistics of what is known and of more samples; `known` stays as it is.

    Memory holds a piece of the samples for each thread, and where they lie in a file (`numpy.memmap`), a chunk of it.

    Parameters
    ----------
    known : dict of label to ClassStatistics
    Z : (N, D) of real numbers.
    labels : (N,)
    ops : Ops
    progress : callable, optional
        Called as ``progress(done, N)`` after each chunk; what it raises ends it.

    Raises
    ------
    EmbeddingError
        For values that are not finite.
    LabelError
        For labels that do not sort.
    """
    rows = np.asarray(Z)
    if ops.threads == 1 or 4 * rows.size <= _PIECE_BYTES:
        return _learned(known, Z, rows, labels, ops, progress, map)
    with ThreadPoolExecutor(ops.threads, thread_name_prefix="fieldshot-learn") as pool:
        return _learned(known, Z, rows, labels, ops, progress, pool.map)


def _learned(
    known: dict[Any, ClassStatistics],
    Z: ArrayLike,
    rows: NDArray[Any],
    labels: NDArray[Any],
    ops: Ops,
    progress: Progress | None,
    mapped: Callable[..., Iterable[dict[Any, ClassStatistics]]],
) -> dict[Any, ClassStatistics]:
    statistics = dict(known)
    size, piece = (max(1, most // (4 * rows.shape[1])) for most in (_CHUNK_BYTES, _PIECE_BYTES))
    for first in range(0, len(rows), size):
        chunk = slice(first, first + size)
        order, starts = _by_label(labels[chunk])
        group = partial(_group, statistics, rows, labels, order + first if first else order, piece, ops)
        for new in list(mapped(group, _groups(starts, piece))):
            statistics.update(new)
        _let_go(Z)
        if progress is not None:
            progress(min(first + size, len(rows)), len(rows))
    return statistics


def _by_label(labels: NDArray[Any]) -> tuple[NDArray[np.intp], list[int]]:
    """The samples in order of their labels, and where in it each label starts, with the end."""
    try:
        order = np.argsort(labels, kind="stable")
    except TypeError as error:
        raise unsortable(error) from error
    ordered = labels[order]
    return order, [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(labels)]


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
        for name, (a, b), total in zip(labels[chosen[inner[:-1]]].tolist(), pairwise(inner), sums, strict=True):
            new[name] = added(new.get(name, known.get(name)), U[a:b], total, ops)
    return new


def _let_go(Z: ArrayLike) -> None:
    """Give back the memory that a file's pages took, or a file larger than the memory would fill it for a while."""
    if isinstance(Z, np.memmap) and Z.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        base: Any = Z
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)


def unsortable(error: TypeError) -> LabelError:
    """The error for labels of which none comes before the other."""
    return LabelError(f"labels must sort among themselves (got: {error})", hint="use one type of label")
