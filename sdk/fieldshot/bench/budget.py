"""What stages may cost on a board, and whether they keep to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from fieldshot.bench.documents import read_json
from fieldshot.bench.result import Result
from fieldshot.bench.suites import SUITES
from fieldshot.errors import OptionError

__all__ = ["PARTS", "REST", "Check", "check", "read_budget"]

# What a recognition consists of, to say where its time goes; the rest is what is beside them.
PARTS = ("decode", "preprocess", "network", "predict")
REST = "the rest"


class Check(NamedTuple):
    """One line of a budget: benchmark, unit, what was measured (95th percentile), what is allowed, and the culprit.

    The culprit is the benchmark itself, or of a recognition the part that it is mostly due to.
    """

    name: str
    unit: str
    measured: float
    allowed: float
    culprit: str = ""

    @property
    def kept(self) -> bool:
        """Whether it is."""
        return self.measured <= self.allowed


def read_budget(path: str | os.PathLike[str], board: Mapping[str, object]) -> dict[str, float]:
    """Budget of a board: benchmark -> most milliseconds (95th percentile), or MB of memory.

    Parameters
    ----------
    path : path
        A JSON object: name of a board, or a part of it, or ``*`` for any -> object of benchmark -> number.
    board : mapping
        As `board_facts` gives it.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is no such object, or has no budget for this board.
    """
    place = os.fspath(path)
    boards = read_json(path, "a budget")
    if not isinstance(boards, dict) or not all(isinstance(of, dict) for of in boards.values()):
        raise OptionError(f"{place} must hold an object for each board (got others)", hint='{"*": {"recognize": 30}}')
    nameless = [key for key, of in boards.items() if not key.strip() or not of]
    if nameless:
        raise OptionError(
            f"{place} must name boards, and benchmarks of each (got nothing, at {nameless[0]!r})",
            hint='{"*": {"recognize": 30}}; * stands for any board',
        )
    names = f"{board.get('board', '')} {board.get('cpu', '')}"
    found = next((of for key, of in boards.items() if key != "*" and key in names), boards.get("*"))
    if not found:
        raise OptionError(
            f"{place} must have a budget for this board, {names.strip() or 'which has no name'}"
            f" (got {', '.join(boards) or 'none'})",
            hint="add a part of that name, or * for any board",
        )
    known = SUITES["full"]
    for name, allowed in found.items():
        if name not in known:
            raise OptionError(f"{place} must name benchmarks (got {name!r})", hint=f"they are {', '.join(known)}")
        if isinstance(allowed, bool) or not isinstance(allowed, (int, float)) or not allowed > 0:
            raise OptionError(
                f"{name} in {place} must be a number above 0 (got {allowed!r})", hint="milliseconds, or MB of memory"
            )
    return {name: float(allowed) for name, allowed in found.items()}


def check(result: Result, budget: Mapping[str, float]) -> list[Check]:
    """Compare a result with a budget."""
    units = {of.name: of.unit for of in result.stages}
    p95 = {of.name: of.summary()["p95"] for of in result.stages}
    missing = [name for name in budget if name not in p95]
    if missing:
        why = "; ".join(f"{name}: {result.absent[name]}" for name in missing if name in result.absent)
        raise OptionError(
            f"the result must hold {', '.join(missing)} (got {why or 'none'})",
            hint="leave out of this board's budget what it cannot tell"
            if why
            else f"measure again with --suite {','.join(budget)}",
        )
    return [
        Check(name, units[name], p95[name], allowed, _culprit(name, p95, budget) if p95[name] > allowed else "")
        for name, allowed in budget.items()
    ]


def _culprit(name: str, p95: Mapping[str, float], budget: Mapping[str, float]) -> str:
    """Of a recognition the part furthest above a limit of its own, or else the longest; of others themselves.

    An enrolment embeds on all cores at once, and a cold start mostly loads: what parts take alone explains neither.
    """
    if name != "recognize" or not set(PARTS) <= set(p95):
        return name
    parts = {part: p95[part] for part in PARTS}
    over = {part: value - budget[part] for part, value in parts.items() if value > budget.get(part, value)}
    shares = over or {**parts, REST: p95[name] - sum(parts.values())}
    return max(shares, key=shares.__getitem__)
