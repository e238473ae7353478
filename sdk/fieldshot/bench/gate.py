"""Whether head is slower than base: both measured in turn, until each benchmark is decided."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fieldshot.bench.board import board_facts
from fieldshot.bench.comparing import CONTROL_THRESHOLD, Comparison, differences, median, paired
from fieldshot.bench.counting import check_counter, count_instructions
from fieldshot.bench.deciding import EARLY, FASTER, FEWEST, INCONCLUSIVE, SLOWER, Verdict, decide, judge, midmean
from fieldshot.bench.result import clock_of
from fieldshot.bench.running import Pair, Show, chosen, first_cores, listed
from fieldshot.bench.sides import Side, prepare
from fieldshot.bench.suites import PER_PROCESS, UNTOLD, stages_of
from fieldshot.bench.thresholds import read_thresholds
from fieldshot.errors import MeasurementError, OptionError

__all__ = ["CONTROL", "gate", "gate_sides", "with_instructions"]

BUDGET_S = 170.0
CONTROL = "reference"  # the workload that no change can touch: where it differs, the comparison was not fair
# Verdicts are on processor time, which other processes hardly disturb. What a stage waits, for a disk or a lock, is
# seen on the wall alone, where only as large a change is believed.
WALL_THRESHOLD = 0.25


def gate(
    base: str | os.PathLike[str],
    head: str | os.PathLike[str] | None = None,
    *,
    bundle: Path | None = None,
    base_bundle: Path | None = None,
    pictures: Sequence[Path] | None = None,
    suite: str = "default",
    thresholds: str | os.PathLike[str] | None = None,
    budget_s: float = BUDGET_S,
    cores: int | None = 1,
    instructions: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    show: Show | None = None,
) -> Comparison:
    """Measure two versions of fieldshot in turn and judge every benchmark.

    Parameters
    ----------
    base, head : str or path
        A wheel, or a commit of the repository of the working folder; `head` left out is the fieldshot that runs.
    bundle : Path, optional
        The backbone of both; left out, the embedded one of each.
    base_bundle : Path, optional
        Another one for base.
    pictures : sequence of Path, optional
        Pictures to time with; left out, JPEG files of 640 x 480 pixels are drawn.
    suite : str
        quick, default or full, or names of benchmarks between commas.
    thresholds : path, optional
        As for `read_thresholds`.
    budget_s : float
        Seconds after which no further round is begun.
    cores : int or None
        How many cores the measured processes share; None: all.
    instructions : bool
        Count those of a call of each stage as well, after the verdicts, which do not depend on them.
    options : mapping of str to str
        Engine and precision of both.
    show : callable, optional
        Called with a line of text after each look.

    Raises
    ------
    OptionError, MissingFileError
        If an argument is none of its choices.
    MissingDependencyError
        If instructions are to be counted and there is no valgrind.
    MeasurementError
        If a side fails, or nothing could be decided: for want of time, or because no benchmark is in both.
    """
    if instructions:
        check_counter()
    with tempfile.TemporaryDirectory() as folder:
        of_base = prepare(base, Path(folder, "base"), bundle=base_bundle or bundle, options=options)
        of_head = prepare(head, Path(folder, "head"), bundle=bundle, options=options)
        files = chosen(pictures, Path(folder))
        comparison = gate_sides(
            of_base, of_head, files, suite=suite, thresholds=thresholds, budget_s=budget_s, cores=cores, show=show
        )
        if not instructions:
            return comparison
        if show is not None:
            show("counting instructions")
        return with_instructions(comparison, of_base, of_head, files, cores=cores)


def gate_sides(
    base: Side,
    head: Side,
    pictures: Sequence[Path],
    *,
    suite: str = "default",
    thresholds: str | os.PathLike[str] | None = None,
    budget_s: float = BUDGET_S,
    cores: int | None = 1,
    show: Show | None = None,
) -> Comparison:
    """As `gate`, of two sides that are ready."""
    begun = time.monotonic()
    if not budget_s > 0:
        raise OptionError(f"budget_s must be above 0 (got {budget_s})", hint="leave it at 170")
    names = stages_of(suite)
    limits = read_thresholds(names, thresholds)
    pair = Pair(base, head, names, pictures, cores=cores)
    limits = {name: limit for name, limit in limits.items() if name in pair.plans or name in PER_PROCESS}
    clock = clock_of(*pair.facts.values())
    longest = 0.0
    walls: dict[str, list[float]] = {name: [] for name in limits}

    def measure(number: int, still: Sequence[str]) -> Mapping[str, float] | None:
        nonlocal longest
        # The control is asked as long as anything else is.
        wanted = [name for name in still if name != CONTROL]
        start = time.monotonic()
        if not wanted or start - begun + longest > budget_s:
            return None
        samples = pair.measure(number, wanted)
        logs = ratios(samples, clock)
        for name, log in wall_ratios(samples).items():
            walls[name].append(log)
        longest = max(longest if number > 2 else 0.0, time.monotonic() - start)
        return logs

    def looked(verdicts: Sequence[Verdict]) -> None:
        if show is not None:
            still = [of.name for of in verdicts if of.verdict == INCONCLUSIVE and of.name != CONTROL]
            rounds = max((of.rounds for of in verdicts), default=0)
            show(f"{rounds} rounds, {time.monotonic() - begun:.0f} s; undecided: {', '.join(still) or 'none'}")

    verdicts = decide(measure, {**limits, CONTROL: CONTROL_THRESHOLD}, show=looked)
    judged = {of.name for of in verdicts}
    # A round measures all that is open: what is missing after one, the system does not tell.
    absent = {**pair.absent, **{name: UNTOLD for name in limits if name not in judged}}
    if judged.isdisjoint(limits) and (longest or not limits):
        raise MeasurementError(
            f"both sides must have a benchmark in common: nothing could be compared (got {listed(absent)})",
            hint="name others with suite",
        )
    rounds = max((of.rounds for of in verdicts), default=0)
    if rounds < FEWEST:
        raise MeasurementError(
            f"the time must do for {FEWEST} rounds, or nothing can be decided (got {budget_s:g} s,"
            f" which did for {rounds} after making ready)",
            hint=f"allow it more time, such as {BUDGET_S:.0f} s, or name fewer benchmarks",
        )
    if clock == "wall":
        verdicts = [of._replace(clock=clock) for of in verdicts]
    verdicts = [_with_wall(of, walls.get(of.name, []), len(limits) + 1) for of in verdicts]
    notes = differences(pair.facts["base"], pair.facts["head"])
    control = next((of for of in verdicts if of.name == CONTROL), None)
    if control is not None and control.verdict in (SLOWER, FASTER):
        notes.append(f"the reference workload took {control.ratio:.2f} times as long beside head: nothing is decided")
        verdicts = [of._replace(verdict=INCONCLUSIVE, advice="a machine that treats both alike") for of in verdicts]
    return Comparison(
        base=base.about,
        head=head.about,
        verdicts=[of for of in verdicts if of.name != CONTROL],
        took_s=time.monotonic() - begun,
        times={
            name: (median(pair.walls["base"][name]), median(pair.walls["head"][name]), _unit(name)) for name in limits
        },
        absent=absent,
        notes=notes,
        board=board_facts(),
    )


def with_instructions(
    comparison: Comparison, base: Side, head: Side, pictures: Sequence[Path], *, cores: int | None = 1
) -> Comparison:
    """Add the instructions of a call of each stage; where they cannot be counted, a note that says why."""
    stages = [of.name for of in comparison.verdicts if of.name not in PER_PROCESS]
    try:
        counts = [count_instructions(side, stages, pictures, cores=first_cores(cores)) for side in (base, head)]
    except MeasurementError as error:
        return replace(comparison, notes=[*comparison.notes, f"instructions could not be counted: {error.message}"])
    return replace(comparison, instructions=paired(*counts))


def ratios(samples: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], clock: str = "cpu") -> dict[str, float]:
    """log(head / base) of each benchmark in one round: the middle over its A B B A of what the blocks took."""
    found = {}
    control: list[float] = []
    for name, bases in samples["base"].items():
        heads = samples["head"][name]
        logs = [math.log(midmean(b[clock]) / midmean(a[clock])) for a, b in zip(bases, heads, strict=True)]
        found[name] = midmean(_in_twos(logs))
        control += [
            math.log(b["reference"] / a["reference"]) for a, b in zip(bases, heads, strict=True) if "reference" in a
        ]
    if control:
        found[CONTROL] = midmean(_in_twos(control))
    return found


def wall_ratios(samples: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, float]:
    """log(head / base) of each benchmark on the wall: of the quickest sample of a round, which nobody disturbed."""
    least = {
        key: {name: min(min(block["wall"]) for block in blocks) for name, blocks in of.items()}
        for key, of in samples.items()
    }
    return {name: math.log(least["head"][name] / base) for name, base in least["base"].items()}


def _with_wall(of: Verdict, logs: Sequence[float], benchmarks: int) -> Verdict:
    """The verdict, or slower where it is so on the wall alone."""
    if of.verdict == SLOWER or not logs or _unit(of.name) != "ms":
        return of
    threshold = max(WALL_THRESHOLD, of.threshold)
    wall = judge(of.name, logs, threshold, benchmarks=benchmarks, looks=EARLY)
    return wall._replace(clock="wall") if wall.verdict == SLOWER else of


def _in_twos(logs: Sequence[float]) -> list[float]:
    """A B and B A together: a drift, and going second, cancel."""
    return [sum(logs[at : at + 2]) / len(logs[at : at + 2]) for at in range(0, len(logs), 2)]


def _unit(name: str) -> str:
    return PER_PROCESS.get(name, "ms")
