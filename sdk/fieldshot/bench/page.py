"""One page of a history that needs nothing beside it: latency over commits, parts of a recognition, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from fieldshot.bench.anchors import HEADER, beside
from fieldshot.bench.budget import PARTS, REST
from fieldshot.bench.drawing import COLOURS, bar, line
from fieldshot.bench.history import Entry, change_points

__all__ = ["MARK", "page"]

MARK = b"<title>Latency over commits</title>"
"""What a page of this module has near its start."""

SHOWN = 60  # latest entries of a series

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.6rem } h3 { font-size: 1rem }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem 1.4rem }
svg { width: 100%; height: auto; overflow: visible } svg.wide { max-width: 1080px }
.title { font: 600 12px system-ui, sans-serif } .tick { font: 9.5px system-ui, sans-serif; fill: #666 }
.end { text-anchor: end } .inside { font: 10px system-ui, sans-serif; fill: #fff } .grid { stroke: #ececec }
.band { fill: #0b5fa5; opacity: .15 } .line { fill: none; stroke: #0b5fa5; stroke-width: 1.6 } circle { fill: #0b5fa5 }
line.worse { stroke: #c0392b; stroke-dasharray: 3 2 } line.better { stroke: #2e8b57; stroke-dasharray: 3 2 }
.other { fill: #7a5c00 } line.whole { stroke: #222; stroke-width: 1.5 }
text.worse { fill: #c0392b; font-weight: 600 } text.better { fill: #2e8b57; font-weight: 600 }
table { border-collapse: collapse; font-size: .87rem; margin: .6rem 0 1.4rem }
th, td { padding: .22rem .9rem .22rem 0; text-align: right; border-bottom: 1px solid #eee }
th { color: #666; font-weight: 600 } th:first-child, td:first-child, .texts :is(th, td) { text-align: left }
.texts td:nth-child(4) { white-space: nowrap }
p.quiet, li { color: #666 } li { font-size: .87rem }
.key span { margin-right: 1rem } .key i { display: inline-block; width: .7rem; height: .7rem; margin-right: .3rem }
"""


def page(entries: Sequence[Entry], path: str | Path) -> None:
    """Write a history as one HTML file.

    Parameters
    ----------
    entries : sequence of Entry
        Oldest first, of any number of boards, backbones and engines: each has its own lines.
    path : str or Path
        Its folder is made if it is missing.
    """
    series: dict[str, list[Entry]] = {}
    for entry in entries:
        series.setdefault(entry.series, []).append(entry)
    latest = entries[-1]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"{MARK.decode()}<style>{_STYLE}</style></head><body>",
        "<h1>Latency over commits</h1>",
        f'<p class="quiet">{len(entries)} result{"" if len(entries) == 1 else "s"}.'
        " Lines are processor time a call, or where a GPU takes part what one waits; bands are its"
        " least and most over the processes of a result; dashed lines mark where it changed for good, triangles below"
        " where a version or the state of the board was another than before.</p>",
        *(part for name, of in series.items() for part in _series(name, of[-SHOWN:])),
        "<h2>Published elsewhere</h2>",
        '<p class="quiet">Other networks on other hardware, as their authors state them. Here are medians of what one'
        f" waits, of {escape(_name(latest))} on {escape(latest.board)}; empty where that did not measure it.</p>",
        _table(HEADER, beside(latest), "texts"),
        "</body></html>",
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _name(entry: Entry) -> str:
    """Of a result outside any repository: the version, and when it was."""
    return entry.commit[:7] or " ".join(filter(None, [entry.about.get("fieldshot"), entry.when[5:16]]))


def _series(name: str, entries: Sequence[Entry]) -> Iterable[str]:
    latest = entries[-1]
    yield f"<h2>{escape(name)}</h2>"
    yield from _breakdown(latest)
    yield '<div class="charts">'
    for stage in dict.fromkeys(stage for entry in reversed(entries) for stage in entry.stages):
        of = [entry for entry in entries if stage in entry.stages]
        points = [entry.stages[stage] for entry in of]
        unit = points[-1].unit
        middle = [entry.watched(stage) for entry in of]
        yield line(
            stage if stage in latest.stages else f"{stage} (not in the latest)",
            unit,
            middle,
            [point.low for point in points],
            [point.high for point in points],
            list(map(_name, of)),
            change_points(middle, [entry.reference_ms for entry in of] if unit == "ms" else None),
            _differences(of),
        )
    yield "</div>"
    told = [(entry, text) for entry, text in zip(entries, _differences(entries), strict=True) if text]
    if told:
        yield "<h3>Changed beside the commit</h3><ul>"
        yield from (f"<li>{escape(_name(entry))}: {escape(text)}</li>" for entry, text in told)
        yield "</ul>"
    yield f"<h3>Latest: {escape(_name(latest))}, {escape(latest.when[:16])}</h3>"
    columns = {"p50": "p50", "p95": "p95", "p99": "p99", "processor": "cpu"}
    if any(of.gpu for of in latest.stages.values()):
        columns["GPU"] = "gpu"
    rows = [
        [stage, *(f"{getattr(of, field):.3f}" for field in columns.values()), of.unit]
        for stage, of in latest.stages.items()
    ]
    yield _table(["benchmark", *columns, "unit"], rows)


def _differences(entries: Sequence[Entry]) -> list[str]:
    """What about each is not as in the one before; empty for nothing."""
    return ["", *("; ".join(after.differences(before)) for before, after in pairwise(entries))]


def _breakdown(entry: Entry) -> Iterable[str]:
    """Where the time of one recognition goes."""
    if not {"recognize", *PARTS} <= set(entry.stages):
        return
    whole = entry.watched("recognize")
    parts = [(name, entry.watched(name)) for name in PARTS]
    together = sum(value for _, value in parts)
    if together < whole:
        parts.append((REST, whole - together))
    clock = "on the wall" if entry.clock == "wall" else "of processor time"
    yield f"<h3>One recognition: {whole:.2f} ms {clock}</h3>"
    yield bar(parts, whole, "ms")
    key = (
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(name)} {value:.2f} ms</span>'
        for number, (name, value) in enumerate(parts)
    )
    yield f'<p class="quiet key">{"".join(key)}</p>'
    if together > whole:
        yield (
            f'<p class="quiet">Its parts, which are timed apart, take {together:.2f} ms together, more than the whole,'
            " which ends at the line.</p>"
        )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
