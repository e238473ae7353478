"""Two results judged, and a stored one beside what this fieldshot takes now."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fieldshot.bench.board import board_facts
from fieldshot.bench.deciding import FEWEST, INCONCLUSIVE, SLOWER, Verdict, judge
from fieldshot.bench.result import Result, clock_of
from fieldshot.bench.running import Progress, Show, pictures_told, run
from fieldshot.bench.thresholds import read_thresholds
from fieldshot.errors import MeasurementError, OptionError

__all__ = ["CONTROL_THRESHOLD", "Comparison", "compare", "differences", "gate_result", "median", "paired"]

CONTROL_THRESHOLD = 0.05  # the reference workload may differ by, which no change of fieldshot touches


@dataclass(frozen=True)
class Comparison:
    """Verdicts of all benchmarks, and what they stand on."""

    base: str
    head: str
    verdicts: list[Verdict]
    took_s: float
    times: dict[str, tuple[float, float, str]]  # benchmark -> median of base and of head on the wall, unit
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    board: dict[str, Any] = field(default_factory=dict)
    instructions: dict[str, tuple[int, int]] = field(default_factory=dict)  # of a call, where they were counted
    stored: bool = False  # results of different hours: times are judged over the reference workload beside them

    @property
    def slower(self) -> list[Verdict]:
        """Those that are."""
        return [verdict for verdict in self.verdicts if verdict.verdict == SLOWER]


def compare(
    base: Result, head: Result, *, thresholds: str | os.PathLike[str] | None = None, names: tuple[str, str] = ("", "")
) -> Comparison:
    """Judge two stored results, by their processor times over those of the reference workload beside them.

    They were not measured in turn: what changed in the machine from one to the other, and is not in the reference
    workload, looks as if fieldshot had changed. Where the reference workload itself took longer or shorter by more than
    CONTROL_THRESHOLD no time is decided. `gate` is the sharper tool.

    Raises
    ------
    MeasurementError
        If they have no benchmark in common.
    """
    of_base = {of.name: of for of in base.stages}
    shared = [of for of in head.stages if of.name in of_base]
    if not shared:
        raise MeasurementError(
            "two results must have a benchmark in common: nothing could be compared"
            f" (got {', '.join(of_base)} and {', '.join(of.name for of in head.stages)})",
            hint="measure both with the same --suite",
        )
    limits = read_thresholds([of.name for of in shared], thresholds)
    clock = clock_of(base.facts, head.facts)
    verdicts = [
        judge(of.name, of.logs(clock), limits[of.name], benchmarks=len(shared), other=of_base[of.name].logs(clock))
        for of in shared
    ]
    if clock == "wall":
        verdicts = [of._replace(clock=clock) for of in verdicts]
    notes = differences(base.facts, head.facts)
    for name in ("board", "cpu", "machine", "governor", "power_mode"):
        if base.board.get(name) != head.board.get(name):
            notes.append(f"{name} differs: {base.board.get(name)} and {head.board.get(name)}")
    drift = math.log(_reference_ms(head) / _reference_ms(base))
    if abs(drift) > math.log1p(CONTROL_THRESHOLD):
        notes.append(f"the reference workload took {math.exp(drift):.2f} times as long beside head: no time is decided")
        advice = "base and head measured in turn (`fieldshot bench gate --base` COMMIT or WHEEL), or a quieter machine"
        verdicts = [
            verdict._replace(verdict=INCONCLUSIVE, advice=verdict.advice if verdict.rounds < FEWEST else advice)
            if of.unit == "ms"
            else verdict
            for of, verdict in zip(shared, verdicts, strict=True)
        ]
    if base.cores != head.cores:
        notes.append(f"cores differ: {base.cores} and {head.cores}")
    for side, result in (("base", base), ("head", head)):
        if "instructions" in result.absent:
            notes.append(f"instructions of {side} could not be counted: {result.absent['instructions']}")
    missing = {of.name: "not in head" for of in base.stages if of.name not in limits}
    missing |= {of.name: "not in base" for of in head.stages if of.name not in limits}
    return Comparison(
        base=names[0] or base.commit,
        head=names[1] or head.commit,
        verdicts=verdicts,
        took_s=0.0,
        times={of.name: (median(of_base[of.name].wall), median(of.wall), of.unit) for of in shared},
        absent=missing,
        notes=notes,
        board=head.board,
        instructions=paired(base.instructions, head.instructions),
        stored=True,
    )


def gate_result(
    base: Result,
    *,
    bundle: Path | None = None,
    pictures: Sequence[Path] | None = None,
    thresholds: str | os.PathLike[str] | None = None,
    rounds: int = 10,
    instructions: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    names: tuple[str, str] = ("", ""),
    progress: Progress | None = None,
    show: Show | None = None,
) -> Comparison:
    """Measure this fieldshot as a stored result was, and compare; `progress` and `show` as of `run`.

    Raises
    ------
    OptionError
        If the result is of another machine, of other pictures, or of few rounds.
    MeasurementError
        If the process fails.
    """
    begun = time.monotonic()
    here = board_facts()
    for name in ("board", "cpu", "machine"):
        if base.board.get(name) != here.get(name):
            raise OptionError(
                f"a stored base must be of this machine (got {name} {base.board.get(name)}, here {here.get(name)})",
                hint="name a commit or a wheel, which is measured beside head",
            )
    told = pictures_told(pictures)
    if base.facts.get("pictures", told) != told:
        raise OptionError(
            f"a stored base must be of the same pictures (got {base.facts['pictures']}, here {told})",
            hint="give --pictures as it was for the base, or measure that again",
        )
    fewest = min((len(of.rounds) for of in base.stages), default=0)
    if fewest < FEWEST:
        raise OptionError(
            f"a stored base must have {FEWEST} rounds of each benchmark (got {fewest})",
            hint="measure it with `fieldshot bench --rounds 10 --cores 1 --json FILE`",
        )
    if instructions and not base.instructions:
        raise OptionError(
            "a stored base must hold instructions to be compared (got none)",
            hint="measure it with --instructions, or leave that out here",
        )
    stages = [of.name for of in base.stages]
    read_thresholds(stages, thresholds)  # refused now, not after minutes of measuring
    head = run(
        bundle,
        pictures,
        suite=",".join(stages),
        rounds=rounds,
        cores=base.cores,
        instructions=instructions,
        options=options,
        progress=progress,
        show=show,
    )
    return replace(compare(base, head, thresholds=thresholds, names=names), took_s=time.monotonic() - begun)


def _reference_ms(result: Result) -> float:
    """What the reference workload took, the middle of all processes."""
    return median([of.reference_ms for stage in result.stages for of in stage.rounds])


def differences(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    """What differs besides the code: whoever reads a verdict must know."""
    notes = []
    for name in ("python", "numpy", "pillow", "head", "pictures"):
        if base.get(name) != head.get(name):
            notes.append(f"{name} differs: {base.get(name)} and {head.get(name)}")
    contracts = [side["backbone"]["contract"] for side in (base, head)]
    if contracts[0] != contracts[1]:
        notes.append("the backbones differ")
    engines = [_engine(side["backbone"]["engine"]) for side in (base, head)]
    if engines[0] != engines[1]:
        notes.append(f"the engines differ: {engines[0]} and {engines[1]}")
    return notes


def _engine(of: Mapping[str, Any]) -> str:
    return " ".join(str(of[name]) for name in ("name", "version", "precision") if name in of)


def paired(base: Mapping[str, int], head: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Instructions of base and of head, of the benchmarks that they were counted for on both sides."""
    return {name: (of, head[name]) for name, of in base.items() if name in head}


def median(values: Sequence[float]) -> float:
    """Of any number of values; not a number where there are none."""
    return statistics.median(values) if values else math.nan
