"""Measures one side, or two in turn."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from fieldshot.bench.board import board_facts
from fieldshot.bench.counting import check_counter, count_instructions
from fieldshot.bench.probe.stages import draw
from fieldshot.bench.result import Measured, Result, Round
from fieldshot.bench.sides import Side, prepare
from fieldshot.bench.suites import PER_PROCESS, UNTOLD, plan, stages_of
from fieldshot.bench.workers import Worker
from fieldshot.errors import MeasurementError, OptionError
from fieldshot.system import cores as usable_cores

__all__ = ["Pair", "chosen", "first_cores", "listed", "pictures_told", "run"]

Progress = Callable[[int, "int | None"], object]
Show = Callable[[str], object]
Samples = dict[str, list[dict[str, Any]]]

_BYTES = 1e6  # of a MB


def run(
    bundle: Path | None = None,
    pictures: Sequence[Path] | None = None,
    *,
    suite: str = "default",
    rounds: int = 3,
    cores: int | None = None,
    instructions: bool = False,
    options: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
    show: Show | None = None,
) -> Result:
    """Time the stages of this fieldshot in fresh processes.

    Parameters
    ----------
    bundle : Path, optional
        The backbone; left out, the embedded one.
    pictures : sequence of Path, optional
        Pictures to time with, taken in turn; left out, JPEG files of 640 x 480 pixels are drawn.
    suite : str
        quick, default or full, or names of benchmarks between commas.
    rounds : int
        Processes.
    cores : int, optional
        How many cores a process may use; left out, all.
    instructions : bool
        Count those of a call of each stage as well; where they cannot be counted, `absent` says why.
    options : mapping of str to str
        Engine and precision that `Backbone.load` is asked for.
    progress : callable, optional
        Called as ``progress(done, total)`` after each process.
    show : callable, optional
        Called with a line of text before instructions are counted, which may take minutes.

    Raises
    ------
    OptionError
        If there are no rounds, no pictures or no such suite.
    MissingDependencyError
        If instructions are to be counted and there is no valgrind.
    MeasurementError
        If the process fails, for instance because a picture cannot be read, or there is nothing to time.
    """
    if rounds < 1:
        raise OptionError(f"rounds must be above 0 (got {rounds})", hint="leave it at 3")
    if instructions:
        check_counter()
    names = stages_of(suite)
    stages = [name for name in names if name not in PER_PROCESS]
    measured: dict[str, list[Round]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        side = prepare(None, Path(folder, "head"), bundle=bundle, options=options)
        files = chosen(pictures, Path(folder))
        where = first_cores(cores)
        with Worker(side, stages, files, cores=where, seed=0) as worker:
            about = worker.about
        plans = plan(about["call_ns"])
        if not plans and len(stages) == len(names):
            raise MeasurementError(
                f"there must be a benchmark to time (got {listed(about['absent'])})", hint="name others with suite"
            )
        turns = {name: each["turns"] for name, each in plans.items()}
        for number in range(rounds):
            with Worker(side, list(plans), files, cores=where, seed=number, cold=_any_cold(names)) as worker:
                for name, blocks in _turns({"head": worker}, plans, turns)["head"].items():
                    measured[name].append(_round(blocks))
                for name, values in _per_process(worker.about["cold"], names).items():
                    measured[name].append(Round(values[:1], values[1:], worker.about["reference"] / 1e6))
            if progress is not None:
                progress(number + 1, rounds)
        counts, uncounted = {}, {}
        if instructions:
            if show is not None:
                show("counting instructions")
            try:
                counts = count_instructions(side, list(plans), files, cores=where)
            except MeasurementError as error:  # the times stand without
                uncounted = {"instructions": error.message}
    return Result(
        when=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=_commit(),
        suite=suite,
        cores=usable_cores() if cores is None else cores,
        board=board_facts(),
        facts={
            **{name: value for name, value in about["facts"].items() if name != "package"},
            "pictures": pictures_told(pictures),
        },
        stages=[Measured(name, PER_PROCESS.get(name, "ms"), measured[name]) for name in names if name in measured],
        absent={
            **about["absent"],
            **{name: UNTOLD for name in names if name in PER_PROCESS and name not in measured},
            **uncounted,
        },
        instructions=counts,
    )


class Pair:
    """Two sides that take turns, in fresh processes each round.

    Parameters
    ----------
    base, head : Side
    names : sequence of str
        Benchmarks.
    pictures : sequence of Path
    cores : int or None
        How many cores both share.

    Attributes
    ----------
    plans : dict
        Calls and samples of a block, of what both sides have.
    absent : dict
        Benchmark that a side does not have -> the reason.
    facts : dict
        Of base and head.
    """

    def __init__(
        self, base: Side, head: Side, names: Sequence[str], pictures: Sequence[Path], *, cores: int | None
    ) -> None:
        self._sides = {"base": base, "head": head}
        self._pictures, self._cores = list(pictures), first_cores(cores)
        self.walls: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in self._sides}
        stages = [name for name in names if name not in PER_PROCESS]
        call_ns: dict[str, int] = {}
        self.absent: dict[str, str] = {}
        self.facts: dict[str, Any] = {}
        for key, side in self._sides.items():  # processes that only make galleries, which the next find
            # Base may be older than a stage; what it can do, head must do too.
            wanted = [name for name in stages if name not in self.absent]
            lacking = key == "base"
            with Worker(side, wanted, self._pictures, cores=self._cores, seed=0, lacking=lacking) as worker:
                about = worker.about
            self.facts[key] = about["facts"]
            self.absent |= {name: f"{key}: {reason}" for name, reason in about["absent"].items()}
            for name, took_ns in about["call_ns"].items():
                call_ns[name] = min(took_ns, call_ns.get(name, took_ns))
        self.plans = plan({name: took for name, took in call_ns.items() if name not in self.absent})

    def measure(self, number: int, names: Sequence[str]) -> dict[str, Samples]:
        """Blocks of one more round, by side and benchmark, A B B A; of what is measured once, (wall, cpu)."""
        stages = [name for name in self.plans if name in names]
        cold = _any_cold(names)
        # The time of a round is shared out among what is still open.
        share = min(4, len(self.plans) / max(1, len(stages)))
        turns = {name: int(share * self.plans[name]["turns"]) // 2 * 2 for name in stages}
        order = list(self._sides) if number % 2 else list(reversed(self._sides))
        with ExitStack() as stack:
            workers = {
                key: stack.enter_context(
                    Worker(self._sides[key], stages, self._pictures, cores=self._cores, seed=number, cold=cold)
                )
                for key in order
            }
            samples = _turns(workers, self.plans, turns)
        for key, worker in workers.items():
            for name, (wall, cpu) in _per_process(worker.about["cold"], names).items():
                samples[key][name] = [{"wall": [1e6 * wall], "cpu": [1e6 * cpu]}]
            for name, blocks in samples[key].items():
                self.walls[key][name] += [value / 1e6 for block in blocks for value in block["wall"]]
        return samples


def _turns(workers: Mapping[str, Worker], plans: Mapping[str, Any], turns: Mapping[str, int]) -> dict[str, Samples]:
    """Blocks of every worker: benchmarks within turns, so that a disturbance does not hit one of them alone."""
    samples: dict[str, Samples] = {key: {name: [] for name in turns} for key in workers}
    keys = list(workers)
    for turn in range(max(turns.values(), default=0)):
        for name in (name for name, count in turns.items() if turn < count):
            # A B B A: what drifts in the machine meets both alike.
            for key in keys if turn % 2 == 0 else reversed(keys):
                samples[key][name].append(workers[key].ask(name, plans[name], turn // 2))
    return samples


def _round(blocks: Sequence[Mapping[str, Any]]) -> Round:
    wall, cpu, gpu = ([value / 1e6 for block in blocks for value in block[clock]] for clock in ("wall", "cpu", "gpu"))
    reference_ms = median(block["reference"] for block in blocks) / 1e6
    return Round(wall, cpu, reference_ms, gpu if any(gpu) else [])


def _any_cold(names: Sequence[str]) -> bool:
    return any(name in PER_PROCESS for name in names)


def _per_process(cold: Mapping[str, int] | None, names: Sequence[str]) -> dict[str, list[float]]:
    """What is measured once a process: on the wall and on the processor, ms; of memory twice the same, MB."""
    if cold is None:
        return {}
    found = {
        "cold": [cold["wall"] / 1e6, cold["cpu"] / 1e6],
        "memory": [cold["memory"] / _BYTES] * 2,
        "device-memory": [cold["device-memory"] / _BYTES] * 2,
    }
    return {name: found[name] for name in names if name in found and found[name][0] > 0}


def chosen(pictures: Sequence[Path] | None, folder: Path) -> list[Path]:
    """Pictures that were given, or some that are drawn."""
    if pictures is not None and not pictures:
        raise OptionError("pictures must hold at least one (got none)", hint="leave them out to have some drawn")
    return draw(folder) if pictures is None else [path.resolve() for path in pictures]


def pictures_told(pictures: Sequence[Path] | None) -> str:
    """Which pictures: how many, and a digest of their names and sizes; one that is missing is an error of measuring."""
    if pictures is None:
        return "drawn"
    lines = sorted(f"{path.name} {path.stat().st_size if path.is_file() else 0}\n" for path in pictures)
    digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{len(lines)} files, digest {digest[:12]}"


def first_cores(count: int | None) -> set[int] | None:
    """So many cores of those that this process may use, the last ones: the first see the most interrupts."""
    if count is None or not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    if not 1 <= count <= len(usable):
        raise OptionError(f"cores must be 1 to {len(usable)} (got {count})", hint="1 gives the steadiest figures")
    return set(usable[-count:])


def listed(absent: Mapping[str, str]) -> str:
    """Benchmarks that could not be measured, with the reason of each."""
    return "; ".join(f"{name}: {reason}" for name, reason in absent.items())


def _commit() -> str:
    """Of the repository that the working folder is in; empty where it is in none."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()
