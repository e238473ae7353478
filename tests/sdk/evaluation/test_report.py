"""The numbers of a report, that its figures show them, and that its page is whole."""

from __future__ import annotations

import base64
import io
import itertools
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import sem

from fieldshot.errors import MissingDependencyError
from fieldshot.evaluation import Row
from fieldshot.evaluation.report import figures, page, regret, summary, table
from fieldshot.evaluation.report.drawing import drawings
from fieldshot.evaluation.report.style import spread

METHODS = {"fieldshot": 0.02, "ridge 0.1": 0.01, "5-NN": -0.1, "logistic C=1": 0.0}
SEEING = {"fieldshot, adapted": 0.05, "TIM": 0.06, "LaplacianShot": 0.03}


def row(method="fieldshot", data="screws", ways=5, shots=1, balance="balanced", accuracies=(0.5, 0.7), **kwargs):
    values = {
        "queries": 15,
        "episodes": len(accuracies),
        "accuracy": float(np.mean(accuracies)),
        "interval": float(1.96 * sem(accuracies)) if len(accuracies) > 1 else np.nan,
        "worst_decile": min(accuracies),
        "ece": 0.1,
        "brier": 0.3,
        "fit_ms": 0.4,
        "hardness": [1.3 + 0.01 * number for number in range(len(accuracies))],
    }
    return Row(data, method, ways, shots, balance=balance, accuracies=list(accuracies), **{**values, **kwargs})


def grid(data=("screws", "leaves"), shots=(1, 5, 20), methods=None, ways=5, balance="balanced"):
    """Rows of methods that differ from each other by about what METHODS says."""
    found = []
    for number, name in enumerate(data):
        for shot in shots:
            level = 0.5 + 0.1 * number + 0.1 * np.log10(shot if isinstance(shot, int) else 7)
            for method, gain in {**METHODS, **(methods or {})}.items():
                rng = np.random.default_rng([number, len(method), len(str(shot))])
                accuracies = np.clip(level + gain + rng.normal(0, 0.03, 12), 0, 1).tolist()
                found.append(row(method, name, ways, shot, balance, accuracies, ece=0.2 - gain, fit_ms=0.5 + gain))
    return found


def test_regret_is_against_the_best_mean_and_paired_by_episode():
    ours, best = [0.6, 0.5, 0.9, 0.4], [0.7, 0.5, 0.8, 0.6]
    rows = [
        row("ridge 0.1", accuracies=best),
        row("fieldshot", accuracies=ours),
        row("5-NN", accuracies=[0.9, 0.3, 0.3, 0.3]),
        row("TIM", accuracies=[1.0, 1.0, 1.0, 1.0]),  # sees the queries
        row("ridge 0.1", shots=5, accuracies=best),  # alone in its cell
    ]
    (found,) = regret(rows)
    gaps = 100 * (np.array(best) - ours)
    assert (found.data, found.ways, found.shots, found.balance) == ("screws", 5, 1, "balanced")
    assert found.baseline == "ridge 0.1"
    assert found.points == pytest.approx(gaps.mean())
    assert found.interval == pytest.approx(1.96 * sem(gaps))


def test_regret_of_seeing_the_queries_is_against_those_that_see_them():
    rows = [
        *(row("fieldshot", accuracies=[0.5, 0.6]), row("ridge 0.1", accuracies=[0.9, 0.9])),
        *(row("fieldshot, adapted", accuracies=[0.6, 0.8]), row("TIM", accuracies=[0.5, 0.7])),
    ]
    (found,) = regret(rows, sees_queries=True)
    assert (found.baseline, found.points, found.interval) == ("TIM", pytest.approx(-10), pytest.approx(0))


def test_summary_compares_on_the_cells_of_both_only():
    rows = [
        *(row("fieldshot", shots=1, accuracies=[0.4, 0.6]), row("TIM", shots=1, accuracies=[0.6, 0.8], ece=0.3)),
        row("fieldshot", shots=5, accuracies=[0.8, 0.8]),
        row("5-NN", shots=20, accuracies=[0.9, 0.9]),
    ]
    ours, tim, neighbours = summary(rows)
    assert (ours.method, ours.cells, ours.accuracy, ours.gain) == ("fieldshot", 2, pytest.approx(0.65), 0)
    assert (tim.method, tim.cells, tim.gain, tim.ece) == ("TIM", 1, pytest.approx(20), 0.3)
    assert neighbours.cells == 1 and np.isnan(neighbours.gain)


def test_table_has_a_block_each_of_data_ways_and_balance_with_the_best_marked():
    rows = [*grid(shots=("all", 20, 1, "drawn")), *grid(data=["leaves"], shots=[5], balance=2.0)]
    lines = table(rows).splitlines()
    titles = [line for line in lines if "accuracy in %" in line]
    assert [title.split(":")[0] for title in titles] == [
        "screws, 5 ways, balanced",
        "leaves, 5 ways, balanced",
        "leaves, 5 ways, queries ~ Dirichlet(2)",
    ]
    header, first = lines[1], next(line for line in lines if line.startswith("  fieldshot"))
    assert re.findall(r"\S+ shots?|shots drawn", header) == ["1 shot", "20 shots", "all shots", "shots drawn"]
    shown = next(of for of in rows if (of.data, of.method, of.shots) == ("screws", "fieldshot", 1))
    assert f"{100 * shown.accuracy:.1f} ± {100 * shown.interval:.1f}" in first
    block = lines[2 : 2 + len(METHODS)]
    assert sum(line.count("*") for line in block) == 4  # one a column


def test_findings_name_the_worst_cell_beyond_its_interval():
    rows = [
        *(row("fieldshot", shots=1, accuracies=[0.5, 0.6]), row("5-NN", shots=1, accuracies=[0.6, 0.72])),
        *(row("fieldshot", shots=5, accuracies=[0.5, 0.6]), row("5-NN", shots=5, accuracies=[0.9, 0.5])),
    ]
    assert "beyond its interval: screws, 5 ways, 1 shot: +11.0 ± 2.0 to 5-NN" in table(rows)
    assert "+13.00 points over 2 cells; level or better in 1" in table(rows)  # the mean of 11 and 15
    assert "beyond its interval: none" in table(rows[2:])


def test_one_episode_gives_no_interval(tmp_path):
    rows = [row("fieldshot", accuracies=[0.5]), row("5-NN", accuracies=[0.6])]
    text = table(rows)
    assert "50.0 ± - " in text and "60.0 ± -*" in text
    assert "+10.00 points over 1 cell; level or better in 1" in text
    assert "beyond its interval: none" in text
    page(rows, tmp_path / "page.html")
    said = (tmp_path / "page.html").read_text("utf-8")
    assert "<td>50.0 ± -</td>" in said and "<td>+10.0 ± \N{MINUS SIGN}</td>" in said
    assert "2 methods on the same 1 episode." in said and "1 shot, 1 episode<" in said
    page(rows[:1], tmp_path / "page.html")
    assert "<p>1 method on the same 1 episode.</p>" in (tmp_path / "page.html").read_text("utf-8")
    assert "nan" not in re.sub('src="[^"]*"', "", said)
    assert drawings([replace(of, interval=np.nan) for of in grid()])


def test_nothing_measured_is_no_text():
    assert table([]) == ""


def test_figures_are_png_files_with_something_on_them(tmp_path):
    rows = [*grid(methods=SEEING), *grid(balance=2.0), *grid(ways="drawn", shots=["drawn"])]
    paths = figures(rows, tmp_path / "made" / "here")
    assert [path.name for path in paths] == [
        "regret-inductive.png",
        "regret-transductive.png",
        "accuracy-5-ways.png",
        "accuracy-5-ways-transductive.png",
        "accuracy-5-ways-alpha-2.png",
        "calibration-5-ways.png",
        "calibration-5-ways-alpha-2.png",
        "hardness.png",
        "fit-time.png",
    ]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 200
            assert len(np.unique(np.asarray(image.convert("L")))) > 50, path.name


def lines_of(drawing, panel=0):
    return drawing.figure.axes[panel].get_lines()


def test_accuracy_figure_shows_ours_bold_and_the_best_of_the_others():
    rows = grid()
    drawing = next(of for of in drawings(rows) if of.name == "accuracy-5-ways")
    assert [plot.get_title(loc="left") for plot in drawing.figure.axes] == ["screws", "leaves"]
    for panel, data in enumerate(("screws", "leaves")):
        ours = [100 * of.accuracy for of in rows if (of.data, of.method) == (data, "fieldshot")]
        best = [
            100 * max(of.accuracy for of in rows if (of.data, of.shots) == (data, shots) and of.method != "fieldshot")
            for shots in (1, 5, 20)
        ]
        bold = max(lines_of(drawing, panel), key=lambda line: line.get_linewidth())
        assert bold.get_ydata() == pytest.approx(ours)
        (dashed,) = [line for line in lines_of(drawing, panel) if line.get_linestyle() == "--"]
        assert dashed.get_ydata() == pytest.approx(best)
        assert list(dashed.get_xdata()) == [1, 5, 20]


def test_calibration_figure_has_room_for_the_worst_panel():
    rows = [replace(of, ece=0.9) if (of.data, of.method) == ("leaves", "5-NN") else of for of in grid()]
    drawing = next(of for of in drawings(rows) if of.name == "calibration-5-ways")
    for panel in (0, 1):
        low, high = drawing.figure.axes[panel].get_ylim()
        assert low == 0 and high > 90
    assert any(line.get_ydata() == pytest.approx([90] * 3) for line in lines_of(drawing, 1))


def test_heat_map_has_the_numbers_of_regret():
    rows = grid(shots=[5])
    drawing = next(of for of in drawings(rows) if of.name == "regret-inductive")
    shown = [text.get_text() for text in drawing.figure.axes[0].texts]
    for of in regret(rows):
        assert f"{of.points:+.1f} ± {of.interval:.1f}".replace("-", "\N{MINUS SIGN}") in shown
        assert of.baseline in shown


def boxes(figure, texts):
    """Where texts stand, in inches."""
    figure.draw_without_rendering()
    return [text.get_window_extent().transformed(figure.dpi_scale_trans.inverted()) for text in texts]


SHOTS = (1, 2, 3, 5, 10, 20, 50, 100, "all")
WIDE = {
    "many ways": [of for ways in (2, 5, 10, 20, 30) for of in grid(["screws"], SHOTS, SEEING, ways=ways)],
    "many shots": grid(shots=range(1, 24)),
}


@pytest.mark.parametrize("rows", WIDE.values(), ids=WIDE)
def test_heat_map_of_a_wide_grid_goes_on_below(rows):
    figure = next(of for of in drawings(rows) if of.name == "regret-inductive").figure
    assert figure.get_figwidth() < 13.2
    shown = [text.get_text() for plot in figure.axes for text in plot.texts]
    assert sorted(text for text in shown if "±" in text) == sorted(
        f"{of.points:+.1f} ± {of.interval:.1f}".replace("-", "\N{MINUS SIGN}") for of in regret(rows)
    )
    heads = [f"{ways} ways" for ways in dict.fromkeys(of.ways for of in rows)]
    assert [text for text in shown if text.endswith("ways")] == (heads if len(heads) > 1 else heads * 3)


@pytest.mark.parametrize("rows", WIDE.values(), ids=WIDE)
def test_names_below_an_axis_never_touch(rows):
    for drawing in drawings(rows):
        if drawing.name.startswith(("accuracy", "calibration", "fit-time")):
            for plot in drawing.figure.axes:
                ticks = [tick for tick in plot.get_xticklabels() if tick.get_text()]
                assert len(ticks) > 4 and ticks[0].get_text() == str(min(plot.get_xticks().astype(int)))
                places = boxes(drawing.figure, ticks)
                assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places)), drawing.name


def test_long_names_of_data_and_many_methods_stay_on_the_figure():
    data = ["a folder with a name that is too long for its panel / mobilenet_v1_0.5", "b"]
    methods = {f"method {number} of my own": 0.0 for number in range(20)}
    drawing = next(of for of in drawings(grid(data, methods=methods)) if of.name == "accuracy-5-ways")
    first, second = drawing.figure.axes
    (title,) = boxes(drawing.figure, [first._left_title])
    (other,) = boxes(drawing.figure, [second._left_title])
    assert first.get_title(loc="left").replace("\n", " ") == data[0]
    assert title.x1 < other.x0
    alone = next(of for of in drawings(grid(data[:1])) if of.name == "accuracy-5-ways").figure
    assert boxes(alone, alone.legends)[0].x1 <= alone.get_figwidth()
    assert boxes(drawing.figure, drawing.figure.legends)[0].x1 <= drawing.figure.get_figwidth()


def test_what_there_are_no_rows_for_is_not_drawn():
    assert drawings([]) == []
    assert drawings([row()]) == []
    alone = [of for of in grid() if of.method == "fieldshot"]
    assert [of.name for of in drawings(alone)] == ["accuracy-5-ways", "calibration-5-ways", "fit-time"]
    others = [of for of in grid(methods=SEEING) if not of.method.startswith("fieldshot")]
    assert "accuracy-5-ways" in [of.name for of in drawings(others)]


def test_a_method_that_is_missing_in_some_cells_is_drawn_where_it_is():
    rows = [of for of in grid(methods=SEEING) if of.shots != 5 or of.method not in ("TIM", "5-NN", "fieldshot")]
    assert len(drawings(rows)) == 7


class Whole(HTMLParser):
    """Checks that tags close in order, and keeps what was said and what is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text, self.rows = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        self.rows += tag == "tr"
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_whole_and_needs_nothing_beside_it(tmp_path):
    rows = [replace(of, data=of.data.replace("screws", "<b>nuts & bolts")) for of in grid(methods=SEEING)]
    page(rows, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text("utf-8")
    reader = Whole()
    reader.feed(text)
    assert reader.open == []
    assert len(reader.sources) == len(drawings(rows))
    for source in reader.sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            image.verify()
    said = "".join(reader.text)
    assert "<b>nuts & bolts, 5 ways, balanced" in said
    assert "Mean regret of fieldshot" in said and "Worst cell" in said and "Mean calibration error" in said
    # Headers and lines of: all methods, all regrets of two kinds, and all rows under six cells.
    assert reader.rows == 1 + 7 + 1 + 12 + 6 + len(rows)
    assert not re.search(r"https?:|url\(|<script", text)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.floats(1, 20))
def test_names_are_spread_without_changing_their_order_or_centre(places, gap):
    places = sorted(places)
    found = spread(places, gap)
    assert all(high - low >= gap - 1e-6 for low, high in itertools.pairwise(found))
    assert np.mean(found) == pytest.approx(np.mean(places), abs=1e-6)
    if all(high - low >= gap for low, high in itertools.pairwise(places)):
        assert found == pytest.approx(places)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fieldshot\[eval\]'"):
        figures(grid(), tmp_path)
    assert "fieldshot" in table(grid())
