"""A measurement as text for a terminal, and the words that figures and the page share with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from fieldshot.evaluation.report.numbers import ADAPTED, OURS, CellKey, Regret, by_cell, regret, summary

if TYPE_CHECKING:
    from fieldshot.evaluation.rows import Row

__all__ = [
    "accuracy",
    "blocks",
    "cell_words",
    "count",
    "findings",
    "number",
    "points",
    "queries_words",
    "shots_words",
    "table",
    "ways_words",
]


def count(number: int, what: str) -> str:
    """Like "1 cell", "2 cells"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def ways_words(ways: int | str) -> str:
    """Like "5 ways"."""
    return "ways drawn" if ways == "drawn" else f"{ways} ways"


def shots_words(shots: int | str) -> str:
    """Like "1 shot", "all shots"."""
    return "shots drawn" if shots == "drawn" else f"{shots} shot" if shots == 1 else f"{shots} shots"


def queries_words(balance: float | str) -> str:
    """How queries are spread over classes."""
    return balance if isinstance(balance, str) else f"queries ~ Dirichlet({balance:g})"


def number(value: float) -> str:
    """Like "61.0"; a dash for nan."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def accuracy(row: Row) -> str:
    """In percent with its interval, like "61.0 ± 1.7"."""
    return f"{100 * row.accuracy:.1f} ± {number(100 * row.interval)}"


def points(value: float, interval: float) -> str:
    """A difference in points, like "+1.2 ± 0.4"."""
    return f"{value:+.1f} ± {number(interval)}".replace("-", "\N{MINUS SIGN}")


def cell_words(of: Regret) -> str:
    """Data, ways, shots and balance of a cell."""
    words = [of.data, ways_words(of.ways), shots_words(of.shots)]
    return ", ".join(words if of.balance == "balanced" else [*words, queries_words(of.balance)])


def blocks(rows: Iterable[Row]) -> dict[str, dict[CellKey, dict[str, Row]]]:
    """Title -> cells that differ in shots (and what shots leave room for) only."""
    found: dict[str, dict[CellKey, dict[str, Row]]] = {}
    for key, methods in by_cell(rows).items():
        title = f"{key.data}, {ways_words(key.ways)}, {queries_words(key.balance)}"
        found.setdefault(title, {})[key] = methods
    return found


def findings(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """What to know first, as (name, finding) pairs."""
    rows = list(rows)
    found = []
    for sees_queries, ours, kind in ((False, OURS, "inductive"), (True, ADAPTED, "transductive")):
        regrets = regret(rows, sees_queries=sees_queries)
        if not regrets:
            continue
        mean = float(np.mean([of.points for of in regrets]))
        behind = [of for of in regrets if of.certain and of.points > 0]
        found.append(
            (
                f"Mean regret of {ours} to the best {kind} baseline of each cell",
                f"{mean:+.2f} points over {count(len(regrets), 'cell')};".replace("-", "\N{MINUS SIGN}")
                + f" level or better in {len(regrets) - len(behind)}",
            )
        )
        worst = max(behind, key=lambda of: of.points - of.interval, default=None)
        found.append(
            (
                f"Worst cell of {ours} beyond its interval",
                f"{cell_words(worst)}: {points(worst.points, worst.interval)} to {worst.baseline}" if worst else "none",
            )
        )
    errors = sorted((of.ece, of.method) for of in summary(rows))
    best = [of for of in errors if of[1] not in (OURS, ADAPTED)][:1]
    shown = [of for of in errors if of[1] in (OURS, ADAPTED)] + best
    found.append(("Mean calibration error", "; ".join(f"{name} {100 * error:.1f} %" for error, name in shown)))
    return found


def table(rows: Iterable[Row]) -> str:
    """Accuracy of all methods over shots, a block each of data, ways and balance; then what to know first.

    The best accuracy of a column is marked with a star. Beside the accuracies stand each method's mean calibration
    error over the block and its longest fit.
    """
    rows = list(rows)
    lines: list[str] = []
    for title, cells in blocks(rows).items():
        names = list(dict.fromkeys(name for methods in cells.values() for name in methods))
        width = max(map(len, [*names, ""]))
        header = "".join(f"{shots_words(key.shots):>14}" for key in cells)
        lines += [f"{title}: accuracy in %, 95 % interval", f"  {'':{width}}{header}{'ECE %':>9}{'fit ms':>9}"]
        for name in names:
            line = f"  {name:{width}}"
            for methods in cells.values():
                best = max(row.accuracy for row in methods.values())
                row = methods.get(name)
                mark = "*" if row and row.accuracy == best else " "
                line += f"{accuracy(row) + mark if row else '':>14}"
            of = [methods[name] for methods in cells.values() if name in methods]
            error, longest = 100 * np.mean([row.ece for row in of]), max(row.fit_ms for row in of)
            lines.append(f"{line}{error:9.1f}{longest:9.2f}")
        lines.append("")
    return "\n".join([*lines, *(f"{name}: {finding}" for name, finding in findings(rows))]) if rows else ""
