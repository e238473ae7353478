"""The numbers behind tables and figures: regret against the best baseline, and each method over all cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fieldshot.evaluation import transductive
from fieldshot.evaluation.measures import mean_interval

if TYPE_CHECKING:
    from fieldshot.evaluation.rows import Row

__all__ = [
    "ADAPTED",
    "OURS",
    "CellKey",
    "MethodSummary",
    "Regret",
    "by_cell",
    "column_order",
    "is_baseline",
    "regret",
    "summary",
]

OURS, ADAPTED = "fieldshot", "fieldshot, adapted"


class CellKey(NamedTuple):
    """What rows of the same episodes have in common; see `fieldshot.evaluation.Row`."""

    data: str
    ways: int | str
    shots: int | str
    balance: float | str
    queries: int
    episodes: int

    @property
    def columns(self) -> tuple[int | str, float | str, int | str]:
        """Ways, balance, shots: what a column of a table stands for."""
        return self.ways, self.balance, self.shots


@dataclass(frozen=True)
class Regret:
    """How far fieldshot is behind the best baseline of one cell, on the same episodes.

    Which baseline is best is read off those episodes too, so that with many baselines level in truth it is somewhat
    above 0 by chance.

    Attributes
    ----------
    data, ways, shots, balance
        The cell, as in its rows.
    baseline : str
        The method that fieldshot is compared with.
    points : float
        Its mean accuracy less fieldshot's, in percentage points; below 0 where fieldshot is better.
    interval : float
        Half width of the 95 % interval of the mean difference, paired by episode, in points; nan of one episode.
    """

    data: str
    ways: int | str
    shots: int | str
    balance: float | str
    baseline: str
    points: float
    interval: float

    @property
    def certain(self) -> bool:
        """Whether the points are beyond the interval, to either side."""
        return abs(self.points) > self.interval


@dataclass(frozen=True)
class MethodSummary:
    """One method over the cells that it was measured on.

    Attributes
    ----------
    method : str
    cells : int
    accuracy, worst_decile, ece, brier : float
        Means over cells.
    gain : float
        Mean accuracy less fieldshot's over the cells of both, in points; nan where there are none.
    fit_ms : float
        Median over cells, in milliseconds.
    """

    method: str
    cells: int
    accuracy: float
    worst_decile: float
    ece: float
    brier: float
    gain: float
    fit_ms: float


def by_cell(rows: Iterable[Row]) -> dict[CellKey, dict[str, Row]]:
    """Rows by cell and method; cells by data in the order of rows, then ways, balance and shots, words last."""
    found: dict[CellKey, dict[str, Row]] = {}
    for row in rows:
        key = CellKey(row.data, row.ways, row.shots, row.balance, row.queries, row.episodes)
        found.setdefault(key, {})[row.method] = row
    order = {data: number for number, data in enumerate(dict.fromkeys(key.data for key in found))}
    return dict(sorted(found.items(), key=lambda item: (order[item[0].data], column_order(item[0].columns))))


def column_order(columns: Iterable[int | float | str]) -> list[tuple[bool, float, str]]:
    """A key to sort by: numbers before words, but "balanced" before its alphas."""
    return [
        (isinstance(value, str) and value != "balanced", 0.0 if isinstance(value, str) else float(value), str(value))
        for value in columns
    ]


def is_baseline(method: str, *, sees_queries: bool = False) -> bool:
    """Whether a method is a baseline of the kind that sees the support only, or of that which sees the queries."""
    return method not in (OURS, ADAPTED) and (method in transductive.BASELINES) == sees_queries


def regret(rows: Iterable[Row], *, sees_queries: bool = False) -> list[Regret]:
    """Of each cell with both, fieldshot against the best inductive baseline.

    Parameters
    ----------
    rows : iterable of Row
    sees_queries : bool
        Compare "fieldshot, adapted" with the transductive baselines instead.
    """
    found = []
    for key, methods in by_cell(rows).items():
        ours = methods.get(ADAPTED if sees_queries else OURS)
        others = [row for name, row in methods.items() if is_baseline(name, sees_queries=sees_queries)]
        if ours is None or not others:
            continue
        best = max(others, key=lambda row: row.accuracy)
        points, interval = mean_interval(100 * (np.asarray(best.accuracies) - np.asarray(ours.accuracies)))
        found.append(Regret(key.data, key.ways, key.shots, key.balance, best.method, points, interval))
    return found


def summary(rows: Iterable[Row]) -> list[MethodSummary]:
    """Each method over all its cells, fieldshot's first."""
    cells = list(by_cell(rows).values())
    names = dict.fromkeys(name for methods in cells for name in methods)
    found = []
    for name in sorted(names, key=lambda name: (name != OURS, name != ADAPTED)):
        of = [methods[name] for methods in cells if name in methods]
        gains = [methods[name].accuracy - methods[OURS].accuracy for methods in cells if {name, OURS} <= methods.keys()]
        found.append(
            MethodSummary(
                method=name,
                cells=len(of),
                accuracy=float(np.mean([row.accuracy for row in of])),
                worst_decile=float(np.mean([row.worst_decile for row in of])),
                ece=float(np.mean([row.ece for row in of])),
                brier=float(np.mean([row.brier for row in of])),
                gain=100 * float(np.mean(gains)) if gains else float("nan"),
                fit_ms=float(np.median([row.fit_ms for row in of])),
            )
        )
    return found
