"""Results over time: one line of JSON each, and where in them something changed."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldshot.bench.deciding import midmean
from fieldshot.bench.documents import read_bytes
from fieldshot.bench.result import Result, clock_of
from fieldshot.errors import OptionError

__all__ = ["Entry", "Point", "append", "change_points", "load_history"]

Floats = npt.NDArray[np.float64]

LEAST = 3  # entries on either side of a change
RESAMPLES = 999
SURE = 0.01
SMALLEST = 0.03  # of changes that are marked

_log = logging.getLogger(__name__)


class Point(NamedTuple):
    """One benchmark in one entry: what a user waits, the time of the processor and of devices.

    `low` and `high` are the least and the most over processes, by the clock of the entry.
    """

    unit: str
    p50: float
    p95: float
    p99: float
    cpu: float
    low: float
    high: float
    gpu: float = 0.0


class Entry(NamedTuple):
    """A result, without its samples.

    By its `clock` it is watched: cpu, the processor's; or wall, where a part ran on a GPU. `about` is what else may be
    why it differs from another of its series: versions, the contract of the backbone, the state of the board.
    """

    when: str
    commit: str
    board: str
    engine: str
    cores: int
    reference_ms: float
    stages: dict[str, Point]
    clock: str = "cpu"
    backbone: str = ""
    precision: str = ""
    head: str = ""
    about: Mapping[str, str] = MappingProxyType({})

    @property
    def network(self) -> str:
        """What embeds, in words."""
        return f"{self.backbone} {self.precision} on {self.engine}" if self.backbone else self.engine

    @property
    def series(self) -> str:
        """What entries that are compared over time have in common, in words: all that is no version of something."""
        head = f"heads by {self.head}" if self.head else ""
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        return ", ".join(filter(None, (self.board, self.network, head, cores)))

    def watched(self, stage: str) -> float:
        """The time of a benchmark by the clock of the entry."""
        point = self.stages[stage]
        return point.p50 if self.clock == "wall" else point.cpu

    def differences(self, before: Entry) -> list[str]:
        """What about this entry is not as in one before, in words."""
        names = dict.fromkeys([*before.about, *self.about])
        pairs = {name: (before.about.get(name, "unknown"), self.about.get(name, "unknown")) for name in names}
        return [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if old != new]


def append(result: Result, path: str | os.PathLike[str]) -> Entry:
    """Add a line to a history; the file is made where there is none."""
    clock = clock_of(result.facts)
    stages = {}
    references = []
    for of in result.stages:
        # Medians on the wall, for then that of all samples lies among them.
        values = [float(np.median(each.wall)) if clock == "wall" else each.value("cpu") for each in of.rounds]
        known = {name: value for name, value in of.summary().items() if name != "name"}
        stages[of.name] = Point(**known, low=min(values), high=max(values))
        references += [each.reference_ms for each in of.rounds]
    backbone, board = result.facts["backbone"], result.board
    engine = backbone["engine"]
    provider = engine.get("provider", "").removesuffix("ExecutionProvider")
    head, _, build = result.facts["head"].partition(", ")  # such as CPU kernels, host-x86_64-v3
    about = {
        "fieldshot": result.facts.get("fieldshot"),
        "python": result.facts.get("python"),
        "numpy": result.facts.get("numpy"),
        "pillow": result.facts.get("pillow"),
        engine["name"]: engine.get("version"),
        "contract": backbone["contract"],
        "heads": build,
        "pictures": result.facts.get("pictures"),
        **{name.replace("_", " "): board.get(name) for name in ("kernel", "governor", "power_mode")},
    }
    entry = Entry(
        result.when,
        result.commit,
        str(board.get("board") or board.get("cpu") or board.get("machine", "")),
        f"{engine['name']} with {provider}" if provider not in ("", "CPU") else engine["name"],
        result.cores,
        midmean(references),
        stages,
        clock,
        str(backbone.get("name", "")),
        str(engine.get("precision", "")),
        head,
        {name: str(value) for name, value in about.items() if value},
    )
    document = {**entry._asdict(), "stages": {name: point._asdict() for name, point in stages.items()}}
    line = json.dumps(document).encode() + b"\n"
    if _cut_off(Path(path)):  # that line must not take this one along
        line = b"\n" + line
    with Path(path).open("ab") as file:
        file.write(line)
    return entry


def _cut_off(path: Path) -> bool:
    """Whether a file ends within a line; a pipe, which cannot be read, does not."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def load_history(path: str | os.PathLike[str]) -> list[Entry]:
    """Read what `append` wrote, oldest first; lines that are no result are left out, and the log names them.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If no line of it is a result.
    """
    lines = read_bytes(path, "a history").splitlines()
    entries, wrong = [], []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wrong.append(f"line {number}: {type(error).__name__}: {error}")
    if not entries:
        raise OptionError(
            f"{os.fspath(path)} must hold results, one a line (got none{f'; {wrong[0]}' if wrong else ''})",
            hint="`fieldshot bench --history FILE` writes them",
        )
    if wrong:
        _log.warning("%s: %d of %d lines left out: %s", os.fspath(path), len(wrong), len(lines), "; ".join(wrong[:5]))
    return sorted(entries, key=lambda entry: entry.when)


def _entry(document: dict[str, Any]) -> Entry:
    stages = {name: Point(**point) for name, point in document["stages"].items()}
    if "about" not in document:  # an early line: the engine has its version beside it, and there is no more
        engine, _, version = document["engine"].partition(" ")
        document = {**document, "engine": engine, "about": {engine: version}}
    entry = Entry(**{**document, "stages": stages})
    texts = [
        *(entry.when, entry.commit, entry.board, entry.engine, entry.clock),
        *(entry.backbone, entry.precision, entry.head, *entry.about.values()),
        *(point.unit for point in stages.values()),
    ]
    numbers = [value for point in stages.values() for value in point[1:]]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names must be text")
    if not all(isinstance(number, (int, float)) and 0 <= number < math.inf for number in numbers):
        raise ValueError("times must be numbers")
    if not (isinstance(entry.cores, int) and entry.reference_ms > 0):
        raise ValueError("cores and reference_ms must be above 0")
    return entry


def change_points(values: Sequence[float], reference: Sequence[float] | None = None, *, seed: int = 0) -> list[int]:
    """Where a series changes its level for good: numbers of the first entries after each change.

    The stretch that stands out most from the rest is bounded by changes where fewer than one in a hundred shuffled
    series have one that stands out as much; then each part is asked again (circular binary segmentation: Olshen and
    others, Biostatistics 5(4), 2004). An outlier is no change: it stands out as much wherever it is shuffled to.

    Parameters
    ----------
    values : sequence of float
        Above 0; changes by less than 3 % are not counted.
    reference : sequence of float, optional
        What a workload took beside each that nothing changes. Counted is what changed over it and by itself: where
        only the machine became slower the first does not, and where only the workload did, not the second.
    """
    logs = np.log(np.asarray(values, float))
    relative = logs if reference is None else logs - np.log(np.asarray(reference, float))
    found = _segments(relative, 0, np.random.default_rng(seed))
    edges = [0, *found, len(logs)]
    levels = np.array([[np.median(of[start:end]) for start, end in pairwise(edges)] for of in (relative, logs)])
    shifts = np.diff(levels)
    counted = (np.abs(shifts).min(axis=0) >= np.log1p(SMALLEST)) & (shifts[0] * shifts[1] > 0)
    return [at for at, counts in zip(found, counted, strict=True) if counts]


def _segments(logs: Floats, offset: int, random: np.random.Generator) -> list[int]:
    """Edges between stretches of one level, counted from `offset`."""
    count = len(logs)
    if count < 2 * LEAST:
        return []
    centred = logs - logs.mean()
    start, end, best = _stretch(centred)
    shuffled = sum(_stretch(random.permutation(centred))[2] >= best for _ in range(RESAMPLES))
    if (shuffled + 1) / (RESAMPLES + 1) > SURE:
        return []
    edges = [at for at in (start, end) if 0 < at < count]
    found = [offset + at for at in edges]
    for low, high in zip([0, *edges], [*edges, count], strict=True):
        found += _segments(logs[low:high], offset + low, random)
    return sorted(found)


def _stretch(centred: Floats) -> tuple[int, int, float]:
    """Start and end of the stretch whose mean differs most from that of the rest, and the sum of squares between."""
    count = len(centred)
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    edges = np.arange(count + 1)
    sizes = edges[None, :] - edges[:, None]
    inner = np.where((sizes >= LEAST) & (sizes <= count - LEAST), sizes, 0)
    for edge in range(1, LEAST):  # a part at either end would be too short
        inner[edge, :] = inner[:, count - edge] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[None, :] - sums[:, None]) ** 2 * (1 / inner + 1 / (count - inner))
    between = np.where(inner > 0, between, -1.0)
    start, end = np.unravel_index(int(np.argmax(between)), between.shape)
    return int(start), int(end), float(between[start, end])
