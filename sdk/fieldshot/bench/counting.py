"""Instructions of each stage's call, counted by callgrind: a second witness, which the machine's load hardly moves."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fieldshot.bench.probe.counted import CALLS, MARK
from fieldshot.bench.sides import Side
from fieldshot.bench.workers import Worker
from fieldshot.errors import MeasurementError, MissingDependencyError

__all__ = ["check_counter", "count_instructions", "counter", "counts"]

_TOTAL = re.compile(r"^summary: (\d+)$", re.MULTILINE)


def check_counter() -> None:
    """Raise MissingDependencyError where nothing counts instructions."""
    if shutil.which("valgrind") is None:
        raise MissingDependencyError(
            "valgrind must be installed to count instructions (got none)",
            hint="apt install valgrind, or leave --instructions out",
        )


def count_instructions(
    side: Side, stages: Sequence[str], pictures: Sequence[Path], *, cores: set[int] | None
) -> dict[str, int]:
    """Instructions of a call of each stage, all threads together: the least of some, which nothing is made for.

    Parameters
    ----------
    side : Side
        Which was measured before: its gallery is there.
    stages : sequence of str
    pictures : sequence of Path
    cores : set of int or None
        As of a `Worker`.

    Raises
    ------
    MissingDependencyError
        If there is no valgrind.
    MeasurementError
        If the process fails under it.
    """
    check_counter()
    with (
        tempfile.TemporaryDirectory(dir=side.root, prefix="counts-") as folder,
        Worker(side, stages, pictures, cores=cores, seed=0, counter=counter(Path(folder))),
    ):
        found = counts(Path(folder), CALLS * len(stages))
    return {name: min(found[CALLS * at : CALLS * (at + 1)]) for at, name in enumerate(stages)}


def counter(folder: Path) -> list[str]:
    """Command that runs another and writes into a folder what passed before each mark, one file a mark."""
    return [
        *("valgrind", "--quiet", "--tool=callgrind", "--dump-line=no"),
        *(f"--dump-before={MARK}", f"--callgrind-out-file={folder / 'part'}"),
    ]


def counts(folder: Path, calls: int) -> list[int]:
    """Instructions of each call: what passed before every second mark."""
    return [_total(folder / f"part.{2 * number}") for number in range(1, calls + 1)]


def _total(path: Path) -> int:
    found = _TOTAL.search(path.read_text("utf-8", "replace")) if path.exists() else None
    if found is None:
        raise MeasurementError(
            "callgrind must count each call apart (got no count)", hint="leave --instructions out, and tell us"
        )
    return int(found[1])
