"""Charts as SVG: a line over commits with its band, and a bar of parts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median

__all__ = ["bar", "line"]

WIDTH, HEIGHT = 340, 130
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 22, 20
COLOURS = ("#0b5fa5", "#d9875a", "#74a98f", "#8a7fc4", "#b5b5b5")


def line(
    title: str,
    unit: str,
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    names: Sequence[str],
    changes: Sequence[int],
    differences: Sequence[str],
) -> str:
    """One benchmark over its entries: middle, band from low to high, and a mark at each change with its size.

    `differences` say for each entry what about it is not as before, if anything: marked below, told where one points.
    """
    top = max(high) * 1.1
    count = len(middle)

    def x(number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (number / (count - 1) if count > 1 else 0.5)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    def path(values: Sequence[float], numbers: Sequence[int]) -> str:
        return " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in zip(numbers, values, strict=True))

    forth = list(range(count))
    band = f"{path(high, forth)} {path(list(reversed(low)), list(reversed(forth)))}"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="12" class="title">{escape(title)}</text>',
    ]
    for share in (0, 0.5, 1):
        value = share * top / 1.1
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>'
            f'<text x="{LEFT - 5}" y="{y(value) + 3.5:.1f}" class="tick end">{value:.3g}</text>'
        )
    for at in changes:
        before, after = map(median, _around(middle, changes, at))
        change = 100 * (after / before - 1)
        parts.append(
            f'<line x1="{x(at - 0.5):.1f}" x2="{x(at - 0.5):.1f}" y1="{TOP - 4}" y2="{HEIGHT - BOTTOM}"'
            f' class="{"worse" if change > 0 else "better"}"/><text x="{x(at - 0.5) + 4:.1f}" y="{TOP + 4}"'
            f' class="tick {"worse" if change > 0 else "better"}">{change:+.0f} % {escape(names[at])}</text>'
        )
    parts += [
        f'<polygon points="{band}" class="band"/>' if count > 1 else "",
        f'<polyline points="{path(middle, forth)}" class="line"/>',
        *(
            f'<circle cx="{x(number):.1f}" cy="{y(value):.1f}" r="2"><title>{escape(names[number])}: {value:.4g}'
            f" {unit}</title></circle>"
            for number, value in enumerate(middle)
        ),
        *(
            f'<path d="M{x(number - 0.5):.1f} {HEIGHT - BOTTOM - 6} l3.5 6 h-7 z" class="other"><title>'
            f"{escape(names[number])}: {escape(difference)}</title></path>"
            for number, difference in enumerate(differences)
            if difference
        ),
        f'<text x="{LEFT}" y="{HEIGHT - 5}" class="tick">{escape(names[0])}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" class="tick end">{escape(names[-1])}</text>' if count > 1 else "",
        f'<text x="{LEFT - 5}" y="{HEIGHT - 5}" class="tick end">{escape(unit)}</text></svg>',
    ]
    return "".join(parts)


def _around(values: Sequence[float], changes: Sequence[int], at: int) -> tuple[Sequence[float], Sequence[float]]:
    """Values from the change before to this one, and from this one to the next."""
    edges = [0, *changes, len(values)]
    place = edges.index(at, 1)
    return values[edges[place - 1] : at], values[at : edges[place + 1]]


def bar(parts: Sequence[tuple[str, float]], whole: float, unit: str) -> str:
    """Parts side by side, as wide as they take long, with names where there is room; a line ends a shorter whole."""
    scale = 720 / max(whole, sum(value for _, value in parts))
    at, drawn = 0.0, []
    for number, (name, value) in enumerate(parts):
        width = scale * value
        colour = COLOURS[number % len(COLOURS)]
        about = f"{name} {value:.2f} {unit}"
        drawn.append(
            f'<rect x="{at:.1f}" y="0" width="{width:.1f}" height="34" fill="{colour}"><title>{escape(about)}</title>'
            "</rect>"
        )
        if width > 7 * len(name):
            drawn.append(f'<text x="{at + 6:.1f}" y="15" class="inside">{escape(name)}</text>')
            drawn.append(f'<text x="{at + 6:.1f}" y="28" class="inside">{value:.2f} {escape(unit)}</text>')
        at += width
    if round(scale * whole, 1) < 720:
        end = f'x1="{scale * whole:.1f}" x2="{scale * whole:.1f}"'
        drawn.append(
            f'<line {end} y1="-4" y2="38" class="whole"><title>the whole {whole:.2f} {escape(unit)}</title></line>'
        )
    return f'<svg viewBox="0 0 720 34" role="img" aria-label="parts" class="wide">{"".join(drawn)}</svg>'
