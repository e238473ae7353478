"""One page of a measurement that needs nothing beside it: what to know first, figures, and every number."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshot.evaluation.report.drawing import Drawing, drawings
from fieldshot.evaluation.report.numbers import ADAPTED, OURS, regret, summary
from fieldshot.evaluation.report.text import accuracy, blocks, cell_words, count, findings, points, shots_words

if TYPE_CHECKING:
    from fieldshot.evaluation.rows import Row

__all__ = ["MARK", "page"]

MARK = b"<title>Few-shot evaluation</title>"
"""What a page of this module has near its start."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.6rem }
dl { display: grid; grid-template-columns: max-content auto; gap: .3rem 1.4rem } dt { color: #666 } dd { margin: 0 }
figure { margin: 1.8rem 0 } figure img { max-width: 100% } figcaption { color: #666; font-size: .87rem }
table { border-collapse: collapse; font-size: .87rem; margin: .6rem 0 1.4rem }
th, td { padding: .22rem .8rem .22rem 0; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap }
th { color: #666; font-weight: 600 } th:first-child, td:first-child { text-align: left }
tr.ours td { color: #0b5fa5; font-weight: 600 } .wide { overflow-x: auto } summary { cursor: pointer; color: #0b5fa5 }
@media (max-width: 700px) { dl { display: block } dd { margin-bottom: .6rem } }
"""


def page(rows: Iterable[Row], path: str | Path) -> None:
    """Write a measurement as one HTML file, with the figures in it.

    Parameters
    ----------
    rows : iterable of Row
    path : str or Path
        Its folder is made if it is missing.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    rows, path = list(rows), Path(path)
    episodes = sum(max(row.episodes for row in of.values()) for cells in blocks(rows).values() for of in cells.values())
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(finding)}</dd>" for name, finding in findings(rows))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"{MARK.decode()}<style>{_STYLE}</style></head><body>",
        "<h1>Few-shot evaluation</h1>",
        f"<p>{count(len({row.method for row in rows}), 'method')} on the same {count(episodes, 'episode')}.</p>",
        f"<dl>{facts}</dl>",
        "<h2>Figures</h2>",
        *map(_figure, drawings(rows)),
        "<h2>Methods over all their cells</h2>",
        "<p>Means over the cells of each method, which may differ; gain is against fieldshot on the cells of both.</p>",
        _methods(rows),
        "<h2>Regret of each cell</h2>",
        _regrets(rows),
        "<h2>Every cell</h2>",
        *_cells(rows),
        "</body></html>",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _figure(drawing: Drawing) -> str:
    file = io.BytesIO()
    drawing.figure.savefig(file, format="png", dpi=150)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    caption = escape(drawing.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}.</figcaption></figure>'
    )


def _methods(rows: Sequence[Row]) -> str:
    lines = [
        [
            *(of.method, str(of.cells), f"{100 * of.accuracy:.1f}", f"{100 * of.worst_decile:.1f}"),
            *(
                "" if math.isnan(of.gain) else f"{of.gain:+.1f}".replace("-", "\N{MINUS SIGN}"),
                f"{100 * of.ece:.1f}",
                f"{of.brier:.3f}",
            ),
            f"{of.fit_ms:.2f}",
        ]
        for of in summary(rows)
    ]
    header = ["method", "cells", "accuracy %", "worst tenth %", "gain, points", "ECE %", "Brier", "fit ms"]
    return _table(header, lines)


def _regrets(rows: Sequence[Row]) -> str:
    lines = [
        [cell_words(of), ours, of.baseline, points(of.points, of.interval)]
        for ours, sees_queries in ((OURS, False), (ADAPTED, True))
        for of in regret(rows, sees_queries=sees_queries)
    ]
    return _table(["cell", "of", "best baseline", "points behind"], lines, ours=False)


def _cells(rows: Sequence[Row]) -> Iterable[str]:
    for title, cells in blocks(rows).items():
        tables = []
        for key, methods in cells.items():
            lines = [
                [
                    *(name, accuracy(row), f"{100 * row.worst_decile:.1f}"),
                    *(f"{100 * row.ece:.1f}", f"{row.brier:.3f}", f"{row.fit_ms:.2f}"),
                ]
                for name, row in sorted(methods.items(), key=lambda item: -item[1].accuracy)
            ]
            first = f"{shots_words(key.shots)}, {count(key.episodes, 'episode')}"
            tables.append(_table([first, "accuracy %", "worst tenth %", "ECE %", "Brier", "fit ms"], lines))
        yield f"<details><summary>{escape(title)}</summary>{''.join(tables)}</details>"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]], *, ours: bool = True) -> str:
    """A table; lines of fieldshot stand out where the first column is methods."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        ('<tr class="ours">' if ours and line[0] in (OURS, ADAPTED) else "<tr>")
        + "".join(f"<td>{escape(value)}</td>" for value in line)
        + "</tr>"
        for line in lines
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
