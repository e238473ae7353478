"""What stages may cost on a board, and whether they keep to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from fieldshot.bench.documents import read_json
from fieldshot.bench.result import Result
from fieldshot.bench.suites import stages_of
from fieldshot.errors import OptionError

__all__ = ["Check", "check", "read_budget"]

# What a recognition consists of, to say where its time goes.
PARTS = ("decode", "preprocess", "network", "predict")


class Check(NamedTuple):
    """One line of a budget: benchmark, unit, what was measured (95th percentile), what is allowed, and the culprit."""

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
            f"{place} must have a budget for this board (got {', '.join(boards) or 'none'})", hint="name it, or *"
        )
    stages_of(",".join(found))
    for name, allowed in found.items():
        if isinstance(allowed, bool) or not isinstance(allowed, (int, float)) or not allowed > 0:
            raise OptionError(f"{name} in {place} must be a number above 0 (got {allowed!r})")
    return {name: float(allowed) for name, allowed in found.items()}


def check(result: Result, budget: Mapping[str, float]) -> list[Check]:
    """Compare a result with a budget; a recognition that is too slow names the part of it that takes longest."""
    measured = {of.name: of for of in result.stages}
    checks = []
    for name, allowed in budget.items():
        if name not in measured:
            if name in result.absent:
                raise OptionError(
                    f"the result must hold {name} (got none: {result.absent[name]})",
                    hint="leave it out of this board's budget",
                )
            raise OptionError(f"the result must hold {name} (got none)", hint=f"measure it with --suite {name}")
        p95 = measured[name].summary()["p95"]
        checks.append(Check(name, measured[name].unit, p95, allowed, _culprit(name, result) if p95 > allowed else ""))
    return checks


def _culprit(name: str, result: Result) -> str:
    if name not in ("recognize", "cold"):
        return name
    parts = {of.name: of.summary()["p50"] for of in result.stages if of.name in PARTS}
    return max(parts, key=parts.__getitem__) if parts else name
