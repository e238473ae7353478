"""How figures look: one colour for fieldshot, muted ones for families of baselines, names beside lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldshot.errors import MissingDependencyError
from fieldshot.evaluation.report.numbers import ADAPTED, OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "QUIET", "Look", "families", "label_ends", "legend", "look", "number_axis", "panels", "settings"]

INK, QUIET = "#222222", "#8a8a8a"
_BLUE = "#0b5fa5"

# Start of a method's name -> the family that it is drawn as, and the colour of that.
_FAMILIES = {
    "nearest mean": ("nearest mean", "#a3a3a3"),
    "SimpleShot": ("nearest mean", "#a3a3a3"),
    "5-NN": ("5-NN", "#cdb56a"),
    "logistic": ("logistic", "#d9875a"),
    "linear SVM": ("linear SVM", "#c58ab0"),
    "ridge": ("ridge", "#74a98f"),
    "LDA": ("LDA", "#8a7fc4"),
    "transductive fine-tuning": ("transductive fine-tuning", "#a3a3a3"),
    "TIM": ("TIM", "#d9875a"),
    "alpha-TIM": ("alpha-TIM", "#74a98f"),
    "LaplacianShot": ("LaplacianShot", "#8a7fc4"),
}


class Look(NamedTuple):
    """How a method is drawn: its name in a legend, and arguments of `plot`."""

    family: str
    line: dict[str, Any]


def look(method: str) -> Look:
    """How a method is drawn; an unknown one as a thin grey line."""
    if method in (OURS, ADAPTED):
        return Look(method, {"color": _BLUE, "linewidth": 2.4, "zorder": 5, "solid_capstyle": "round"})
    found = [value for start, value in _FAMILIES.items() if method.startswith(start)]
    family, colour = found[0] if found else (method, "#bbbbbb")
    return Look(family, {"color": colour, "linewidth": 1.1, "zorder": 2})


def families(methods: Iterable[str]) -> dict[str, Look]:
    """Family -> how it is drawn, each once."""
    return {look(method).family: look(method) for method in methods}


_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b5b5b5",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": "#b5b5b5",
    "ytick.color": "#b5b5b5",
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.labelcolor": "#555555",
    "ytick.labelcolor": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def settings() -> AbstractContextManager[Any]:
    """Within it figures are drawn with the settings of all of them.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingDependencyError(
            f"matplotlib must be installed to draw figures (got: {error})", hint="pip install 'fieldshot[eval]'"
        ) from error
    return rc_context(_SETTINGS)


def panels(
    titles: Sequence[str], *, share_y: bool, width: float = 3.1, height: float = 2.7, across: int = 4
) -> tuple[Figure, list[Axes]]:
    """A figure with a small plot for each title, at most `across` in a row."""
    from matplotlib.figure import Figure

    columns = min(across, len(titles))
    lines = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(max(width * columns + 0.8, 5.0), height * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=share_y, squeeze=False)
    axes = list(grid.flat)
    for spare in axes[len(titles) :]:
        spare.set_axis_off()
    for title, plot in zip(titles, axes, strict=False):
        plot.set_title(textwrap.fill(title, int(11 * width)))  # about as many letters as an inch has room for
    return figure, axes[: len(titles)]


def number_axis(plot: Axes, numbers: Iterable[int], words: str) -> None:
    """A logarithmic horizontal axis with a tick at each number that was measured, named where there is room."""
    ticks = sorted(set(numbers))
    names: list[str] = []
    free = 0.0
    for tick in ticks:
        names.append(str(tick) if tick >= free else "")
        if names[-1]:  # takes about so much of the axis
            free = tick * (ticks[-1] / ticks[0]) ** (0.03 * (1 + len(names[-1])))
    plot.set_xscale("log")
    plot.set_xticks(ticks, names)
    plot.set_xticks([], minor=True)
    plot.set_xlabel(words)


def label_ends(
    axes: Sequence[Axes], ends: Sequence[Sequence[tuple[float, float, str, str]]], *, gap: float = 11.0
) -> None:
    """Names to the right of the last points of lines, pushed apart where they would cover each other.

    Parameters
    ----------
    axes : sequence of Axes
        All of one figure; the last thing that is done to them.
    ends : sequence of sequences of (x, y, name, colour)
        Of each of the axes.
    gap : float
        Least distance of two names, in points of 1/72 inch.
    """
    figure = axes[0].get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # places the axes, and so says where the ends are on paper
    for plot, of in zip(axes, ends, strict=True):
        order = sorted(of, key=lambda end: end[1])
        at = [72 / figure.dpi * float(plot.transData.transform((x, y))[1]) for x, y, _, _ in order]
        for (x, y, name, colour), place, wanted in zip(order, spread(at, gap), at, strict=True):
            plot.annotate(
                name,
                (x, y),
                xytext=(6, place - wanted),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=8.5,
                fontweight="bold" if name in (OURS, ADAPTED) else "normal",
                annotation_clip=False,
            )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved as little as may be, so that neighbours are `gap` apart: groups round their means."""
    groups: list[list[float]] = []  # of places that touch
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _first(groups[-1], gap) - _last(groups[-2], gap) < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_first(group, gap) + gap * number for group in groups for number in range(len(group))]


def _first(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _last(group: list[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2


def legend(figure: Figure, looks: dict[str, dict[str, Any]]) -> None:
    """Names below the plots, as many in a line as there is room for: name -> arguments of its line."""
    from matplotlib.lines import Line2D

    if not looks:
        return
    longest = 0.075 * max(map(len, looks)) + 0.5  # inches, with its line
    figure.legend(
        handles=[Line2D([], [], **{"linewidth": 1.6, **line}) for line in looks.values()],
        labels=list(looks),
        loc="outside lower left",
        ncols=max(1, min(len(looks), int(figure.get_figwidth() / longest))),
        handlelength=1.6,
        columnspacing=1.6,
    )
