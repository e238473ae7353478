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
    progress : callable, optional
        Called with (episodes done, episodes in all).

    Raises
    ------
    OptionError
        If there are fewer classes than `ways`, or a class has too few samples; it says how many there are.
    """
    Z = np.asarray(embeddings, dtype=np.float32)
    classes, index = np.unique(np.asarray(labels), return_inverse=True)
    members = [np.flatnonzero(index == k) for k in range(len(classes))]
    _check(classes, members, ways, shots, queries, episodes)
    rows = []
    for done, shot in enumerate(shots):
        # Seeded by the number of shots, so that a row does not depend on which others are asked for.
        rng = np.random.default_rng([seed, shot])
        accuracies, times = [], []
        for episode in range(episodes):
            support, query = _draw(rng, members, ways, shot, queries)
            head = FewShotHead()
            started = time.perf_counter()
            head.fit(Z[support], index[support])
            times.append(time.perf_counter() - started)
            accuracies.append(float(np.mean(head.predict(Z[query]) == index[query])))
            if progress is not None:
                progress(done * episodes + episode + 1, len(shots) * episodes)
        accuracy, interval = mean_interval(accuracies)
        rows.append(Row(ways, shot, queries, episodes, accuracy, interval, 1e3 * float(np.median(times))))
    return rows


def _draw(
    rng: np.random.Generator, members: list[NDArray[np.intp]], ways: int, shots: int, queries: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    support, query = [], []
    for k in rng.choice(len(members), size=ways, replace=False):
        drawn = rng.permutation(members[k])[: shots + queries]
        support.append(drawn[:shots])
        query.append(drawn[shots:])
    return np.concatenate(support), np.concatenate(query)


def _check(
    classes: NDArray[Any],
    members: list[NDArray[np.intp]],
    ways: int,
    shots: Sequence[int],
    queries: int,
    episodes: int,
) -> None:
    for name, value, least in (
        ("ways", ways, 2),
        ("queries", queries, 1),
        ("episodes", episodes, 1),
        ("shots", min(shots, default=0), 1),
    ):
        if value < least:
            raise OptionError(f"{name} must be at least {least} (got {value})", hint=f"pass a larger {name}")
    if len(classes) < ways:
        raise OptionError(
            f"there must be at least {ways} classes for {ways} ways (got {len(classes)})",
            hint=f"add classes, or ask for {len(classes)} ways" if len(classes) > 1 else "add at least a second class",
        )
    smallest = min(range(len(members)), key=lambda k: len(members[k]))
    needed, there = max(shots) + queries, len(members[smallest])
    if there < needed:
        raise OptionError(
            f"each class must have {needed} pictures for {max(shots)} shots and {queries} queries "
            f"(got {there} of {str(classes[smallest])[:80]!r})",
            hint="add pictures to it, leave it out, or ask for fewer shots or queries",
        )
