"""The figure of regrets: one coloured cell each, data by (ways, shots, queries)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from fieldshot.evaluation.report.numbers import Regret, column_order
from fieldshot.evaluation.report.style import INK, QUIET, panels
from fieldshot.evaluation.report.text import points, shots_words, ways_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["heatmap"]


_WIDEST = 10  # columns in a line: as wide as the other figures

# Ways, balance, shots of the cells below each other.
Column = tuple["int | str", "float | str", "int | str"]


def heatmap(regrets: Sequence[Regret]) -> Figure:
    """Blue where fieldshot is better, orange where it is behind, bold where that is beyond the interval."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    data = list(dict.fromkeys(of.data for of in regrets))
    lines = _lines(sorted({(of.ways, of.balance, of.shots) for of in regrets}, key=column_order))
    colours = LinearSegmentedColormap.from_list("regret", ["#7fb2e0", "#d5e6f5", "#ffffff", "#f9dcc8", "#eb9a63"])
    limit = float(np.clip(max(abs(of.points) for of in regrets), 2, 8))
    widest = max(map(len, lines))
    figure, axes = panels(
        [""] * len(lines), share_y=False, width=1.06 * widest + 1.2, height=0.55 * len(data) + 0.9, across=1
    )
    places = {column: (plot, x) for plot, line in zip(axes, lines, strict=True) for x, column in enumerate(line)}
    for of in regrets:
        (plot, x), y = places[of.ways, of.balance, of.shots], data.index(of.data)
        colour = colours(0.5 + 0.5 * float(np.clip(of.points / limit, -1, 1)))
        plot.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=2))
        plot.text(
            x,
            y - 0.13,
            points(of.points, of.interval),
            ha="center",
            va="center",
            color=INK if of.certain else "#666666",
            fontweight="bold" if of.certain and of.points > 0 else "normal",
        )
        plot.text(x, y + 0.24, _short(of.baseline), ha="center", va="center", fontsize=6.5, color="#5f5f5f")
    for plot, line in zip(axes, lines, strict=True):
        plot.set_xlim(-0.5, widest - 0.5)
        plot.set_ylim(len(data) - 0.5, -0.5)
        plot.set_yticks(range(len(data)), data)
        plot.set_xticks(range(len(line)), [shots_words(shots) for _, _, shots in line])
        plot.xaxis.tick_top()
        plot.tick_params(length=0, labelcolor=INK)
        plot.spines[:].set_visible(False)
        plot.grid(visible=False)
        _group_titles(plot, [(ways, balance) for ways, balance, _ in line])
    figure.supxlabel(
        "points behind the best baseline, ± 95 %",
        fontsize=8.5,
        color=QUIET,
        x=0.01,
        ha="left",
    )
    return figure


def _lines(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns in lines: those of the same ways and balance together, as far as a line has room for them."""
    lines: list[list[Column]] = []
    for _, group in groupby(columns, key=lambda column: column[:2]):
        together = list(group)
        for start in range(0, len(together), _WIDEST):
            part = together[start : start + _WIDEST]
            if lines and len(lines[-1]) + len(part) <= _WIDEST:
                lines[-1] += part
            else:
                lines.append(part)
    return lines


def _group_titles(plot: Axes, groups: Sequence[tuple[int | str, float | str]]) -> None:
    """Above the shots: ways and balance, once over the columns that share them."""
    for group in dict.fromkeys(groups):
        first, last = groups.index(group), len(groups) - 1 - groups[::-1].index(group)
        ways, balance = group
        words = ways_words(ways) if isinstance(balance, str) else f"{ways_words(ways)}, Dirichlet({balance:g})"
        plot.annotate(
            words,
            ((first + last) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 24),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            fontweight="bold",
        )
        if first:
            plot.axvline(first - 0.5, color="#bbbbbb", linewidth=1.2, zorder=3)


def _short(name: str) -> str:
    """Names that would not fit into a cell."""
    for long, short in (
        ("nearest mean", "mean"),
        ("centred", "c."),
        ("Ledoit-Wolf", "LW"),
        ("transductive", "tr."),
    ):
        name = name.replace(long, short)
    return name
