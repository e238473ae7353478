"""Few-shot accuracy on anybody's classes, measured over episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldshot.errors import OptionError
from fieldshot.head import FewShotHead

__all__ = ["Row", "evaluate", "mean_interval"]


@dataclass(frozen=True)
class Row:
    """Accuracy of one number of shots, over episodes.

    Attributes
    ----------
    ways, shots, queries : int
        Classes an episode, support and query samples a class.
    episodes : int
    accuracy : float
        Mean over episodes, in [0, 1].
    interval : float
        Half width of its 95 % confidence interval.
    fit_ms : float
        Median time of one `FewShotHead.fit`, in milliseconds.
    """

    ways: int
    shots: int
    queries: int
    episodes: int
    accuracy: float
    interval: float
    fit_ms: float


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of values and the half width of its 95 % confidence interval (normal approximation)."""
    array = np.asarray(values, dtype=np.float64)
    deviation = array.std(ddof=1) if len(array) > 1 else 0.0
    return float(array.mean()), float(1.96 * deviation / np.sqrt(len(array)))


def evaluate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    ways: int = 5,
    shots: Sequence[int] = (1, 5),
    queries: int = 15,
    episodes: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Accuracy of `FewShotHead` over random episodes, one row a number of shots.

    An episode draws `ways` classes, then from each `shots` support and `queries` query samples, all
    different; the head is fitted on the support and judged on the queries.

    Parameters
    ----------
    embeddings : array-like (N, D)
    labels : array-like (N,)
    test : (array-like (M, D), array-like (M,)), optional
        Embeddings and labels that queries are drawn from instead, of the same classes.
    progress : callable, optional
        Called with (episodes done, episodes in all).

    Raises
    ------
    OptionError
        If there are fewer classes than `ways`, or a class has too few samples; it says how many there are.
    """
    Z = np.asarray(embeddings, dtype=np.float32)
    classes, index = np.unique(np.asarray(labels), return_inverse=True)
    _check_ranges(len(classes), ways, shots, queries, episodes)
    members = _members(index, len(classes))
    if test is None:
        queried, truth, asked = Z, index, None
        _check(classes, members, max(shots) + queries, "pictures to learn from and to recognise")
    else:
        queried = np.asarray(test[0], dtype=np.float32)
        named = np.asarray(test[1])
        if not np.array_equal(np.unique(named), classes):
            raise OptionError(
                f"the test set must have the same classes (got {len(np.unique(named))} beside {len(classes)})",
                hint="leave out classes that are in one of the two only",
            )
        truth = np.searchsorted(classes, named)
        asked = _members(truth, len(classes))
        _check(classes, members, max(shots), "pictures to learn from")
        _check(classes, asked, queries, "pictures to recognise")
    rows = []
    for done, shot in enumerate(shots):
        # Seeded by the number of shots, so that a row does not depend on which others are asked for.
        rng = np.random.default_rng([seed, shot])
        accuracies, times = [], []
        for episode in range(episodes):
            support, query = _draw(rng, members, asked, ways, shot, queries)
            head = FewShotHead()
            started = time.perf_counter()
            head.fit(Z[support], index[support])
            times.append(time.perf_counter() - started)
            accuracies.append(float(np.mean(head.predict(queried[query]) == truth[query])))
            if progress is not None:
                progress(done * episodes + episode + 1, len(shots) * episodes)
        accuracy, interval = mean_interval(accuracies)
        rows.append(Row(ways, shot, queries, episodes, accuracy, interval, 1e3 * float(np.median(times))))
    return rows


def _members(index: NDArray[np.intp], classes: int) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(index == k) for k in range(classes)]


def _draw(
    rng: np.random.Generator,
    members: list[NDArray[np.intp]],
    asked: list[NDArray[np.intp]] | None,
    ways: int,
    shots: int,
    queries: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of support and query samples; queries come from `asked` where it is given."""
    support, query = [], []
    for k in rng.choice(len(members), size=ways, replace=False):
        drawn = rng.permutation(members[k])
        support.append(drawn[:shots])
        query.append(drawn[shots : shots + queries] if asked is None else rng.permutation(asked[k])[:queries])
    return np.concatenate(support), np.concatenate(query)


def _check(classes: NDArray[Any], members: list[NDArray[np.intp]], needed: int, what: str) -> None:
    for label, rows in zip(classes, members, strict=True):
        if len(rows) < needed:
            raise OptionError(
                f"each class must have {needed} {what} (got {len(rows)} of {str(label)[:80]!r})",
                hint="add pictures to it, leave it out, or ask for fewer shots or queries",
            )


def _check_ranges(classes: int, ways: int, shots: Sequence[int], queries: int, episodes: int) -> None:
    for name, value, least in (
        ("ways", ways, 2),
        ("queries", queries, 1),
        ("episodes", episodes, 1),
        ("shots", min(shots, default=0), 1),
    ):
        if value < least:
            raise OptionError(f"{name} must be at least {least} (got {value})", hint=f"pass a larger {name}")
    if classes < ways:
        fewer = f"add classes, or ask for fewer ways (--ways {classes})"
        raise OptionError(
            f"there must be at least {ways} classes for {ways} ways (got {classes})",
            hint=fewer if classes > 1 else "add at least a second class",
        )
