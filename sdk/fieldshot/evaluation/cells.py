"""Which cells a measurement has: every number of ways with every number of shots, as far as the data go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from fieldshot.errors import OptionError
from fieldshot.evaluation.episodes import Cell, Pool

__all__ = ["Axis", "plan", "whole"]

# Numbers of ways or of shots: one, "all", several of these, or "grid".
Axis = int | str | Sequence[int | str]

_WAYS = (2, 5, 10, 20, "all")
_SHOTS = (1, 2, 3, 5, 10, 20, 50, 100, "all")
_LEAST_QUERIES = 5  # a class, in a grid: with fewer an accuracy says little
_LEAST_EPISODES, _MOST_SUPPORT = 10, 20_000  # of a cell of a grid: episodes, and support samples of all of them


def plan(
    pool: Pool,
    ways: Axis | None,
    shots: Axis | None,
    queries: int,
    episodes: int,
    balance: float | None,
    *,
    heterogeneous: bool = False,
) -> tuple[list[Cell], list[str]]:
    """Cells of all ways and shots, and what a grid is left without.

    What is asked for by its number must be there. Where ways or shots are ``"grid"`` its impossible numbers are left
    out, a cell has as many queries as the smallest class has beside its support (left out below 5), and the more
    support samples an episode has the fewer episodes there are (10 at least), so that a grid takes minutes.

    Parameters
    ----------
    pool : Pool
    ways, shots, queries, episodes, balance, heterogeneous
        As for `fieldshot.evaluation.evaluate`.

    Returns
    -------
    cells : list of Cell
    left_out : list of str
        Each with the reason.

    Raises
    ------
    OptionError
        If what was asked for cannot be drawn; it says how much there is.
    """
    queries, episodes = whole("queries", queries, 1), whole("episodes", episodes, 1)
    proportions = _proportions(balance)
    if heterogeneous:
        if ways is not None or shots is not None:
            given = " and ".join(word for word, value in (("ways", ways), ("shots", shots)) if value is not None)
            raise OptionError(
                f"heterogeneous episodes must draw their ways and shots (got {given} too)",
                hint=f"leave out {given}, or heterogeneous",
            )
        _check_ways(pool, 2)
        _check_sizes(pool, 1, 1)
        return [Cell("drawn", "drawn", min(10, queries), proportions, episodes)], []
    ways, shots = 5 if ways is None else ways, (1, 5) if shots is None else shots
    grid = _is_grid(ways) or _is_grid(shots)
    numbers, too_many = _ways(pool, ways)
    sizes, too_large = _sizes(pool, shots, queries, grid)
    left_out = too_many + too_large
    cells = []
    for way in numbers:
        for shot, asked in sizes:
            support = way * (float(pool.left(asked).mean()) if isinstance(shot, str) else shot)
            most = max(int(_MOST_SUPPORT / support), _LEAST_EPISODES) if grid else episodes
            cells.append(Cell(way, shot, asked, proportions, min(most, episodes)))
    if not cells:
        raise OptionError(
            f"a grid must have at least one cell (got none: left out are {'; '.join(left_out)})",
            hint="add pictures to the smallest classes or leave them out, or ask for fewer queries",
        )
    return cells, left_out


def _ways(pool: Pool, ways: Axis) -> tuple[list[int], list[str]]:
    asked = _axis("ways", ways, _WAYS, least=2)
    numbers = list(dict.fromkeys(pool.classes if isinstance(way, str) else way for way in asked))
    if not _is_grid(ways):
        _check_ways(pool, max(numbers))
        return numbers, []
    _check_ways(pool, 2)
    missing = [way for way in numbers if way > pool.classes]
    reasons = [f"{_listed(missing)} ways (there are {pool.classes} classes)"] if missing else []
    return [way for way in numbers if way <= pool.classes], reasons


def _sizes(pool: Pool, shots: Axis, queries: int, grid: bool) -> tuple[list[tuple[int | str, int]], list[str]]:
    """Shots with their queries a class."""
    numbers = _axis("shots", shots, _SHOTS, least=1)
    least = min(queries, _LEAST_QUERIES) if grid else queries
    if not _is_grid(shots):
        _check_sizes(pool, max(_least_of(shot) for shot in numbers), least)
    sizes: list[tuple[int | str, int]] = []
    missing: list[int | str] = []
    for shot in numbers:
        asked = pool.queries_beside(_least_of(shot), queries)
        left = pool.left(asked)
        if asked < least:
            missing.append(shot)
        # Where all classes are of one size, "all" may be a number that the grid has already.
        elif not (grid and shot == "all" and (left == left[0]).all() and (int(left[0]), asked) in sizes):
            sizes.append((shot, asked))
    if not missing:
        return sizes, []
    label, (learnt, asked_of) = min(pool.sizes().items(), key=lambda item: min(c for c in item[1] if c is not None))
    counts = f"{learnt}" if asked_of is None else f"{learnt} to learn from and {asked_of} to recognise"
    return sizes, [f"{_listed(missing)} shots (class {label[:80]!r} has {counts})"]


def _axis(name: str, asked: Axis, grid: Sequence[int | str], least: int) -> list[int | str]:
    if _is_grid(asked):
        return list(grid)
    numbers = list(asked) if isinstance(asked, Iterable) and not isinstance(asked, str) else [asked]
    for number in numbers or [0]:
        if isinstance(number, str) and number != "all":
            raise OptionError(
                f"{name} must be numbers or 'all', or 'grid' alone (got {number!r})", hint="pass 5, or [2, 5, 'all']"
            )
        if not isinstance(number, str):
            whole(name, number, least)
    return list(dict.fromkeys(number if isinstance(number, str) else int(number) for number in numbers))


def _is_grid(asked: Axis) -> bool:
    return isinstance(asked, str) and asked == "grid"


def _least_of(shots: int | str) -> int:
    return 1 if isinstance(shots, str) else shots


def _listed(numbers: Sequence[int | str]) -> str:
    return ", ".join(map(str, numbers))


def _proportions(alpha: float | None) -> float | str:
    if alpha is None:
        return "balanced"
    if not (0 < alpha < math.inf):
        raise OptionError(f"balance must be above 0 (got {alpha})", hint="2 is usual; leave it out for equal counts")
    return float(alpha)


def whole(name: str, value: Any, least: int) -> int:
    """A whole number, Python's or NumPy's, as an int; an error if it is none or below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise OptionError(
            f"{name} must be a whole number, at least {least} (got {value!r})", hint=f"pass {least} or more"
        )
    return int(value)


def _check_ways(pool: Pool, ways: int) -> None:
    if pool.classes < ways:
        fewer = f"add classes, or ask for fewer ways (--ways {pool.classes})"
        raise OptionError(
            f"there must be at least {ways} classes for {ways} ways (got {pool.classes})",
            hint=fewer if pool.classes > 1 else "add at least a second class",
        )


def _check_sizes(pool: Pool, shots: int, queries: int) -> None:
    for label, (learnt, asked) in pool.sizes().items():
        if asked is None:
            wanted = [(learnt, shots + queries, "pictures to learn from and to recognise")]
        else:
            wanted = [(learnt, shots, "pictures to learn from"), (asked, queries, "pictures to recognise")]
        for count, needed, what in wanted:
            if count < needed:
                raise OptionError(
                    f"each class must have {needed} {what} (got {count} of {label[:80]!r})",
                    hint="add pictures to it, leave it out, or ask for fewer shots or queries",
                )
