"""Figures of a measurement, drawn with matplotlib without a display."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fieldshot.evaluation.report.heatmap import heatmap
from fieldshot.evaluation.report.numbers import ADAPTED, OURS, by_cell, is_baseline, regret
from fieldshot.evaluation.report.style import (
    INK,
    families,
    label_ends,
    legend,
    look,
    number_axis,
    panels,
    settings,
)
from fieldshot.evaluation.report.text import queries_words, ways_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fieldshot.evaluation.rows import Row

__all__ = ["Drawing", "drawings", "figures"]

_BEST: dict[str, Any] = {"color": INK, "linewidth": 1.3, "linestyle": (0, (4, 2)), "zorder": 4}

# Data -> shots, ascending -> method -> row.
Curves = dict[str, dict[int, dict[str, "Row"]]]


class Drawing(NamedTuple):
    """A figure, the name of its file without ending, and what it shows in words."""

    name: str
    caption: str
    figure: Figure


def figures(rows: Iterable[Row], folder: str | Path) -> list[Path]:
    """Draw all figures that rows have the numbers for, as PNG files.

    Parameters
    ----------
    rows : iterable of Row
    folder : str or Path
        Made if it is missing.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    folder, paths = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in drawings(rows):
        path = folder / f"{drawing.name}.png"
        drawing.figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


def drawings(rows: Iterable[Row]) -> list[Drawing]:
    """All figures that rows have the numbers for, in the order of a page."""
    rows, found = list(rows), []
    with settings():
        for (ways, balance), curves in _curves(rows).items():
            words = f"{ways_words(ways)}, {queries_words(balance)}"
            name = f"{ways}-ways" if isinstance(balance, str) else f"{ways}-ways-alpha-{balance:g}"
            found.append(_accuracy(curves, words, f"accuracy-{name}"))
            if _methods(curves, sees_queries=True):
                found.append(_accuracy(curves, words, f"accuracy-{name}-transductive", sees_queries=True))
            found.append(_calibration(curves, words, f"calibration-{name}"))
        found.sort(key=lambda drawing: drawing.name.startswith("calibration"))
        for sees_queries in (False, True):
            compared = regret(rows, sees_queries=sees_queries)
            if compared:
                ours, kind = (ADAPTED, "transductive") if sees_queries else (OURS, "inductive")
                caption = (
                    f"Regret: points that {ours} is behind the best {kind} baseline of each cell, paired by episode"
                )
                found.insert(0 if kind == "inductive" else 1, Drawing(f"regret-{kind}", caption, heatmap(compared)))
        found += [drawing for drawing in (_hardness(rows), _times(rows)) if drawing]
    return found


def _curves(rows: Iterable[Row]) -> dict[tuple[int | str, float | str], Curves]:
    """By ways and balance, what has at least two numbers of shots."""
    found: dict[tuple[int | str, float | str], Curves] = {}
    for key, methods in by_cell(rows).items():
        if isinstance(key.shots, int):
            found.setdefault((key.ways, key.balance), {}).setdefault(key.data, {})[key.shots] = methods
    for curves in found.values():
        for data in [data for data, of in curves.items() if len(of) < 2]:
            del curves[data]
    return {group: curves for group, curves in found.items() if curves}


def _methods(curves: Curves, *, sees_queries: bool) -> list[str]:
    names = dict.fromkeys(name for of in curves.values() for methods in of.values() for name in methods)
    return [name for name in names if is_baseline(name, sees_queries=sees_queries)]


def _line(of: dict[int, dict[str, Row]], method: str, value: str, scale: float = 100) -> tuple[list[int], list[float]]:
    """Shots and a value of one method, where it was measured."""
    shots = [shot for shot, methods in of.items() if method in methods]
    return shots, [scale * getattr(of[shot][method], value) for shot in shots]


def _accuracy(curves: Curves, words: str, name: str, *, sees_queries: bool = False) -> Drawing:
    """Accuracy over shots; the bands are 95 % intervals of fieldshot and of the best baseline."""
    names, ours = _methods(curves, sees_queries=sees_queries), ADAPTED if sees_queries else OURS
    figure, axes = panels(list(curves), share_y=False)
    ends = []
    for plot, everything in zip(axes, curves.values(), strict=True):
        of = {shot: methods for shot, methods in everything.items() if not names or methods.keys() & set(names)}
        for method in names:
            plot.plot(*_line(of, method, "accuracy"), **look(method).line, alpha=0.85)
        marks: list[tuple[float, float, str, str]] = []
        unadapted = _line(of, OURS, "accuracy")
        if sees_queries and unadapted[0]:
            plot.plot(*unadapted, **{**look(OURS).line, "linewidth": 1.1})
            marks.append((unadapted[0][-1], unadapted[1][-1], "not adapted", look(OURS).line["color"]))
        best = {
            shot: {"best": max((methods[name] for name in names if name in methods), key=lambda row: row.accuracy)}
            for shot, methods in of.items()
            if names
        }
        for method, source, label, line, shade in (
            ("best", best, "best baseline", _BEST, 0.07),
            (ours, of, ours, look(ours).line, 0.16),
        ):
            shots, level = (np.array(part) for part in _line(source, method, "accuracy"))
            if len(shots):
                width = np.array(_line(source, method, "interval")[1])
                plot.fill_between(shots, level - width, level + width, color=line["color"], alpha=shade, linewidth=0)
                plot.plot(shots, level, **line)
                marks.append((float(shots[-1]), float(level[-1]), label, line["color"]))
        number_axis(plot, of, "shots a class")
        ends.append(marks)
    axes[0].set_ylabel("accuracy, %")
    legend(figure, {family: of.line for family, of in families(names).items()})
    label_ends(axes, ends)
    kind = "transductive methods, which see all queries" if sees_queries else "methods that see the support only"
    caption = (
        f"Accuracy over shots of {kind}: {words}; bands are 95 % intervals, dashed is the best baseline of each cell"
    )
    return Drawing(name, caption, figure)


def _calibration(curves: Curves, words: str, name: str) -> Drawing:
    names = _methods(curves, sees_queries=False)
    figure, axes = panels(list(curves), share_y=True)
    ends = []
    for plot, of in zip(axes, curves.values(), strict=True):
        for method in [*names, OURS]:
            plot.plot(*_line(of, method, "ece"), **look(method).line)
        shots, errors = _line(of, OURS, "ece")
        ends.append([(shots[-1], errors[-1], OURS, look(OURS).line["color"])] if shots else [])
        number_axis(plot, of, "shots a class")
    axes[0].set_ylim(bottom=0)  # of all, and last: it ends the scaling to what is drawn
    axes[0].set_ylabel("calibration error, %")
    legend(figure, {family: of.line for family, of in families(names).items()})
    label_ends(axes, ends)
    caption = f"Expected calibration error over shots: {words}; lower is better"
    return Drawing(name, caption, figure)


def _hardness(rows: Sequence[Row]) -> Drawing | None:
    """Accuracy of episodes against their hardness, of fieldshot and the baseline that is best in most cells.

    Of balanced cells with the ways that most of them have: hardness grows with the logarithm of the ways.
    """
    compared = Counter(of.baseline for of in regret(rows))
    rival = compared.most_common(1)[0][0] if compared else ""
    usable = {
        key: methods
        for key, methods in by_cell(rows).items()
        if {OURS, rival} <= methods.keys() and isinstance(key.ways, int) and key.balance == "balanced"
    }
    if not usable:
        return None
    ways = Counter(key.ways for key in usable).most_common(1)[0][0]
    by_data: dict[str, list[dict[str, Row]]] = {}
    for key, methods in usable.items():
        if key.ways == ways:
            by_data.setdefault(key.data, []).append(methods)
    figure, axes = panels(list(by_data), share_y=True)
    ends = []
    for plot, cells in zip(axes, by_data.values(), strict=True):
        marks = []
        for method, line in ((rival, _BEST), (OURS, look(OURS).line)):
            hardness = np.concatenate([of[method].hardness for of in cells])
            accuracy = 100 * np.concatenate([of[method].accuracies for of in cells])
            if method == OURS:
                plot.scatter(hardness, accuracy, s=7, color=line["color"], alpha=0.18, linewidths=0, zorder=1)
            bins = [part for part in np.array_split(np.argsort(hardness, kind="stable"), 8) if len(part)]
            x, y = ([float(np.mean(of[part])) for part in bins] for of in (hardness, accuracy))
            plot.plot(x, y, **line)
            marks.append((x[-1], y[-1], method, line["color"]))
        plot.set_xlabel("hardness, mean log-odds against the truth")
        plot.locator_params(axis="x", nbins=4)
        ends.append(marks)
    axes[0].set_ylabel("accuracy of an episode, %")
    label_ends(axes, ends)
    caption = (
        f"Accuracy of episodes of {ways} ways against hardness (Dhillon et al. 2020); lines are means of eighths, "
        f"dashed is {rival}, the best baseline in most cells"
    )
    return Drawing("hardness", caption, figure)


def _times(rows: Sequence[Row]) -> Drawing | None:
    """Milliseconds a fit over the size of the support, the median over data."""
    times: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if isinstance(row.ways, int) and isinstance(row.shots, int):
            times.setdefault(row.method, {}).setdefault(row.ways * row.shots, []).append(row.fit_ms)
    medians = {
        method: {size: float(np.median(of[size])) for size in sorted(of)} for method, of in times.items() if len(of) > 1
    }
    kinds = {}
    for words, ours, sees_queries in (("sees the support only", OURS, False), ("sees all queries", ADAPTED, True)):
        names = [name for name in medians if name == ours or is_baseline(name, sees_queries=sees_queries)]
        slowest = {look(name).family: name for name in sorted(names, key=lambda name: max(medians[name].values()))}
        if slowest:
            kinds[words] = slowest
    if not kinds:
        return None
    figure, axes = panels(list(kinds), share_y=True, width=4.4, height=3.6)
    ends = []
    for plot, slowest in zip(axes, kinds.values(), strict=True):
        marks = []
        # Of fieldshot what the others were measured on too, so that the axis ends where they do.
        others = [name for name in slowest.values() if name not in (OURS, ADAPTED)] or list(slowest.values())
        sizes = {size for name in others for size in medians[name]}
        for family, name in slowest.items():
            line = look(name).line
            shown = {size: time for size, time in medians[name].items() if size in sizes}
            if not shown:
                continue
            plot.plot(list(shown), list(shown.values()), **line, marker="o", markersize=3)
            marks.append((max(shown), shown[max(shown)], family, line["color"] if name in (OURS, ADAPTED) else INK))
        plot.set_yscale("log")
        plot.yaxis.set_major_formatter("{x:g}")
        number_axis(plot, sizes, "samples in the support, N")
        ends.append(marks)
    axes[0].set_ylabel("time of a fit, ms")
    label_ends(axes, ends)
    return Drawing("fit-time", "Time of one fit over the samples it learns from; of each family the slowest", figure)
