"""What an episode is, and how it is drawn: the same one for every method, whatever else is measured."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import OptionError

__all__ = ["Cell", "Episode", "Pool", "draw"]

# Meta-Dataset (Triantafillou et al., ICLR 2020, section 3.2): ways, queries a class, and support samples an episode,
# of which a class brings at most 100 into the count.
_LEAST_WAYS, _MOST_WAYS = 5, 50
_MOST_QUERIES, _MOST_SUPPORT, _MOST_OF_A_CLASS = 10, 500, 100

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Cell:
    """A kind of episode, and how many of them.

    Attributes
    ----------
    ways : int or "drawn"
        Classes an episode.
    shots : int, "all" or "drawn"
        Support samples a class; all are all but the queries.
    queries : int
        Query samples a class, at most.
    balance : float or "balanced"
        Queries are as many of each class, or in proportions of a symmetric Dirichlet distribution with this alpha.
    episodes : int
    """

    ways: int | str
    shots: int | str
    queries: int
    balance: float | str
    episodes: int


class Episode(NamedTuple):
    """Rows of embeddings; `classes` and `truth` are numbers 0..ways-1.

    Attributes
    ----------
    support, classes : ndarray (N,)
        Rows to learn from, and their classes.
    query, truth : ndarray (M,)
        Rows to recognise (of the test set where there is one), and their classes.
    """

    support: Rows
    classes: NDArray[np.int32]
    query: Rows
    truth: NDArray[np.int32]


class Pool:
    """What episodes are drawn from: the rows of each class.

    Parameters
    ----------
    labels : sequence of str
        Names of the K classes, for messages.
    members : list of ndarray
        Rows of each class to learn from.
    asked : list of ndarray, optional
        Rows of each class in a test set to recognise; left out, queries come from `members` too.
    """

    def __init__(self, labels: Sequence[str], members: list[Rows], asked: list[Rows] | None = None) -> None:
        self.labels = list(labels)
        self.members = members
        self.asked = asked
        self._sizes = np.array([len(rows) for rows in members])
        self._asked_sizes = self._sizes if asked is None else np.array([len(rows) for rows in asked])

    @classmethod
    def of(cls, labels: NDArray[Any], test_labels: NDArray[Any] | None = None) -> Pool:
        """The pool of labels (N,) and, where queries come from a test set, of its labels (M,).

        Raises
        ------
        OptionError
            If the test set has other classes.
        """
        classes, index = np.unique(labels, return_inverse=True)
        words = [str(label) for label in classes.tolist()]
        members = [np.flatnonzero(index == k) for k in range(len(classes))]
        if test_labels is None:
            return cls(words, members)
        tested = np.unique(test_labels)
        if not np.array_equal(tested, classes):
            raise OptionError(
                f"the test set must have the same classes (got {len(tested)} beside {len(classes)})",
                hint="leave out classes that are in one of the two only",
            )
        return cls(words, members, [np.flatnonzero(test_labels == label) for label in classes])

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.members)

    def sizes(self) -> dict[str, tuple[int, int | None]]:
        """By label: how many samples to learn from, and to recognise where they are others."""
        asked = [None] * self.classes if self.asked is None else self._asked_sizes.tolist()
        return dict(zip(self.labels, zip(self._sizes.tolist(), asked, strict=True), strict=True))

    def left(self, queries: int) -> Rows:
        """Samples of each class to learn from, (K,), beside so many queries."""
        return self._sizes - queries if self.asked is None else self._sizes

    def queries_beside(self, shots: int, most: int) -> int:
        """Queries that every class has beside so many shots, `most` at most and never below 0."""
        if self.asked is None:
            return max(0, min(most, int(self._sizes.min()) - shots))
        return min(most, int(self._asked_sizes.min())) if self._sizes.min() >= shots else 0


def draw(pool: Pool, cell: Cell, seed: int, number: int) -> Episode:
    """Draw episode `number` of a cell.

    It depends on these and the sizes of the classes only: not on methods, other cells or embeddings, so that backbones
    can be compared in pairs too. The balance changes which queries there are, but neither classes nor support.

    Parameters
    ----------
    pool : Pool
        Every class of which has what the cell needs.
    cell : Cell
    seed, number : int
        From 0.
    """
    rng = np.random.default_rng([seed, *_key(cell.ways), *_key(cell.shots), number])
    if cell.ways == "drawn":
        chosen = rng.choice(pool.classes, _drawn_ways(rng, pool.classes), replace=False)
        shots, queries = _drawn_shots(rng, pool, chosen, cell.queries)
    else:
        assert isinstance(cell.ways, int)
        chosen = rng.choice(pool.classes, cell.ways, replace=False)
        queries = cell.queries
        shots = pool.left(queries)[chosen] if isinstance(cell.shots, str) else np.full(len(chosen), cell.shots)
    support = [rng.permutation(pool.members[k]) for k in chosen]
    if pool.asked is None:
        query = [rows[count:] for rows, count in zip(support, shots, strict=True)]
    else:
        query = [rng.permutation(pool.asked[k]) for k in chosen]
    wanted = np.full(len(chosen), queries)
    if not isinstance(cell.balance, str):
        own = np.random.default_rng([seed, *_key(cell.ways), *_key(cell.shots), number, *_key(cell.balance)])
        wanted = _apportioned(own.dirichlet(np.full(len(chosen), cell.balance)), queries * len(chosen))
    return Episode(*_gathered(support, shots), *_gathered(query, wanted))


def _key(value: float | str) -> tuple[int, ...]:
    """Whole numbers that stand for a setting in a seed."""
    if isinstance(value, str):
        return (0, 0)
    return struct.unpack("<II", struct.pack("<d", value))


def _gathered(rows: list[Rows], counts: Rows) -> tuple[Rows, NDArray[np.int32]]:
    """The first rows of each class, as many as there are up to its count, and their classes."""
    taken = [of[:count] for of, count in zip(rows, counts, strict=True)]
    return np.concatenate(taken), np.repeat(np.arange(len(taken), dtype=np.int32), [len(of) for of in taken])


def _apportioned(shares: NDArray[np.float64], total: int) -> Rows:
    """Whole numbers in the proportions of shares (K,) that sum to a total: the largest remainders are rounded up."""
    exact = shares * total
    counts = np.floor(exact).astype(np.intp)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def _drawn_ways(rng: np.random.Generator, classes: int) -> int:
    """5 to 50, or to as many classes as there are; where those are below 5, from 2."""
    least = _LEAST_WAYS if classes >= _LEAST_WAYS else 2
    return int(rng.integers(least, min(classes, _MOST_WAYS), endpoint=True))


def _drawn_shots(rng: np.random.Generator, pool: Pool, chosen: Rows, most: int) -> tuple[Rows, int]:
    """Support samples of each chosen class, and the queries of every one (Meta-Dataset, section 3.2).

    q = min(10, half the smallest class); with beta ~ U(0, 1], |S| = min(500, sum_c ceil(beta min(100, n_c - q)));
    a class's share R_c is proportional to n_c exp(a_c) with a_c ~ U[log 1/2, log 2), and its shots are
    min(floor(R_c (|S| - ways)) + 1, n_c - q). A test set has its own queries: q is then its smallest class at most.
    """
    sizes = np.array([len(pool.members[k]) for k in chosen])
    if pool.asked is None:
        queries = min(_MOST_QUERIES, most, int(sizes.min()) // 2)
        left = sizes - queries
    else:
        queries = min(_MOST_QUERIES, most, *(len(pool.asked[k]) for k in chosen))
        left = sizes
    beta = 1.0 - rng.random()
    support = min(_MOST_SUPPORT, int(np.ceil(beta * np.minimum(_MOST_OF_A_CLASS, left)).sum()))
    weights = sizes * np.exp(rng.uniform(np.log(0.5), np.log(2.0), len(chosen)))
    shares = weights / weights.sum() * (support - len(chosen))
    return np.minimum(np.floor(shares).astype(np.intp) + 1, left), queries
