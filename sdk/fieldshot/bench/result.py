"""What was measured of one side, on disk as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fieldshot.bench.deciding import midmean
from fieldshot.bench.documents import read_json
from fieldshot.errors import OptionError

__all__ = ["Measured", "Result", "Round", "clock_of", "load_result"]

FORMAT = 1


@dataclass(frozen=True)
class Round:
    """Samples of a benchmark in one process, a call, in the unit of the benchmark.

    `cpu` are processor time where the unit is ms, `wall` what a user waits, `gpu` what fieldshot's own work took on
    CUDA devices, empty where there was none; `reference_ms` is what the reference workload took beside them.
    """

    wall: list[float]
    cpu: list[float]
    reference_ms: float
    gpu: list[float] = field(default_factory=list)

    def value(self, clock: str) -> float:
        """What the process stands for: the middle of a clock's samples."""
        return midmean(getattr(self, clock))


@dataclass(frozen=True)
class Measured:
    """One benchmark over several processes."""

    name: str
    unit: str
    rounds: list[Round]

    @property
    def wall(self) -> list[float]:
        """All samples."""
        return [value for of in self.rounds for value in of.wall]

    def summary(self) -> dict[str, Any]:
        """Median and percentiles of what a user waits, and medians of the time of the processor and of devices."""
        p50, p95, p99 = (float(value) for value in np.percentile(self.wall, [50, 95, 99]))
        cpu = float(np.median([of.value("cpu") for of in self.rounds]))
        gpu = float(np.median([of.value("gpu") if of.gpu else 0.0 for of in self.rounds]))
        return {"name": self.name, "unit": self.unit, "p50": p50, "p95": p95, "p99": p99, "cpu": cpu, "gpu": gpu}

    def logs(self, clock: str) -> list[float]:
        """Logarithm of what each process stands for; of times, over the reference workload beside it."""
        values = [of.value(clock) for of in self.rounds]
        if self.unit != "ms":
            return [math.log(value) for value in values]
        return [math.log(value / of.reference_ms) for value, of in zip(values, self.rounds, strict=True)]


@dataclass(frozen=True)
class Result:
    """Benchmarks of one side, where and when they were measured."""

    when: str
    commit: str
    suite: str
    cores: int
    board: dict[str, Any]
    facts: dict[str, Any]
    stages: list[Measured]
    absent: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, int] = field(default_factory=dict)  # of a call, where they were counted

    def to_json(self) -> dict[str, Any]:
        """As it stands in files."""
        document = {"fieldshot": "bench", "format": FORMAT, **asdict(self)}
        document["stages"] = [{**of.summary(), **asdict(of)} for of in self.stages]
        return document


def clock_of(*facts: Mapping[str, Any]) -> str:
    """By which clock these are judged: the processor's, but the wall's where a part of one ran on a GPU."""
    return "wall" if any(map(_on_gpu, facts)) else "cpu"


def _on_gpu(facts: Mapping[str, Any]) -> bool:
    engine = facts["backbone"]["engine"]
    return "CUDA" in facts["head"] or engine["name"] == "tensorrt" or "CUDA" in engine.get("provider", "")


def load_result(path: str | os.PathLike[str]) -> Result:
    """Read what ``fieldshot bench --json FILE`` wrote.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it holds something else.
    """
    return from_json(read_json(path, "a result"), os.fspath(path))


def from_json(document: Any, place: str) -> Result:
    """Make a result of its JSON; `place` names it in errors."""
    try:
        if document.get("fieldshot", "bench") != "bench":
            raise ValueError(f"one of the kind {document['fieldshot']}")
        if document["format"] > FORMAT:
            raise OptionError(f"{place} must be of format {FORMAT} (got {document['format']})", hint="update fieldshot")
        stages = [
            Measured(_text(of["name"]), _text(of["unit"]), [_round(values) for values in of["rounds"]])
            for of in document["stages"]
        ]
        for stage in stages:
            if not stage.rounds:
                raise ValueError(f"no rounds of {stage.name}")
        kinds = {"when": str, "commit": str, "suite": str, "cores": int, "board": dict, "facts": dict, "absent": dict}
        for name, kind in kinds.items():
            if not isinstance(document[name], kind):
                raise TypeError(f"{name} is {document[name]!r:.60}")
        instructions = document.get("instructions", {})
        for name, value in instructions.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"instructions of {name} are {value!r:.60}")
        backbone = document["facts"]["backbone"]
        for fact in (document["facts"]["head"], backbone["contract"], backbone["engine"]["name"]):
            _text(fact)
        return Result(stages=stages, instructions=instructions, **{name: document[name] for name in kinds})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"{place} must be a result of `fieldshot bench --json` (got another document: {error})",
            hint="measure again with this version",
        ) from error


def _round(values: dict[str, Any]) -> Round:
    found = Round(**values)
    for samples in (found.wall, found.cpu, [found.reference_ms], found.gpu or [1.0]):
        good = [isinstance(value, (int, float)) and 0 <= value < math.inf for value in samples]
        if not good or not all(good) or not midmean(samples) > 0:
            raise ValueError(f"samples are {samples!r:.60}")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is {value!r:.60}")
    return value
