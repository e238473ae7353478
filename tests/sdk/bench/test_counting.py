"""Instructions are counted by callgrind, tell small changes from none, and judge nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from fieldshot.bench import compare, counting, gate, gate_result, run, summary
from fieldshot.bench.board import board_facts
from fieldshot.bench.comparing import Comparison
from fieldshot.bench.deciding import Verdict
from fieldshot.bench.gate import with_instructions
from fieldshot.bench.probe import counted
from fieldshot.bench.probe.stages import STAGES, Bench, Stage
from fieldshot.bench.result import Result, from_json
from fieldshot.bench.sides import prepare
from fieldshot.errors import MeasurementError, MissingDependencyError, OptionError

Make = Callable[..., Result]

# Five calls, two of which do 5 % more; the first is the interpreter's first.
WORK = """
import os
from itertools import repeat
def work(rounds):
    for _ in repeat(None, rounds):
        divmod(1000, 7)
for rounds in (2000, 2000, 2100, 2000, 2100):
    os.getppid()
    work(rounds)
    os.getppid()
"""

# In the place of valgrind: says a number of its own for each mark, and runs the command.
STAND_IN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do out="${1#--callgrind-out-file=}"; shift; done
for number in $(seq 12); do echo "summary: $((1000 - number))" > "$out.$number"; done
exec "$@"
"""


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_five_per_cent_more_instructions_are_seen(tmp_path: Path) -> None:
    subprocess.run([*counting.counter(tmp_path), sys.executable, "-I", "-S", "-c", WORK], check=True)
    _, *found = counting.counts(tmp_path, 5)
    assert [count / found[0] for count in found] == pytest.approx([1, 1.05, 1, 1.05], abs=0.003)


def test_calls_of_a_stage_are_counted(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valgrind").write_text(STAND_IN, "utf-8")
    (tmp_path / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    result = run(tiny_bundle, suite="partial_fit,predict,memory", rounds=1, cores=1, instructions=True)
    assert result.instructions == {"partial_fit": 994, "predict": 988}  # the least of marks 2, 4, 6 and of 8, 10, 12


def test_times_stand_where_nothing_can_be_counted(
    make_result: Make, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "valgrind").write_text("#!/bin/sh\necho unhandled instruction >&2; exit 132\n", "utf-8")
    (tmp_path / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    lines: list[str] = []
    result = run(tiny_bundle, suite="predict", rounds=2, cores=1, instructions=True, show=lines.append)
    assert lines == ["counting instructions"]
    assert [len(of.rounds) for of in result.stages] == [2]
    assert result.instructions == {}
    assert "unhandled instruction" in result.absent["instructions"]
    base = dataclasses.replace(make_result({"predict": 1.0}, instructions={"predict": 1000}), board=board_facts())
    steps: list[int] = []
    found = gate_result(
        base, bundle=tiny_bundle, rounds=2, instructions=True, progress=lambda done, _: steps.append(done)
    )
    assert steps == [1, 2]
    assert found.verdicts
    assert "instructions of head could not be counted" in found.notes[-1]


def test_marks_stand_round_calls_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    stage = Stage(lambda _: told.append("step"), lambda: told.append("prepare"))
    monkeypatch.setitem(STAGES, "decode", lambda bench: stage)
    monkeypatch.setattr(counted.os, counted.MARK, lambda: told.append("mark"))
    monkeypatch.setattr(counted.gc, "disable", lambda: None)
    for bound, warm in ((float("inf"), counted.WARM_CALLS), (-1.0, 1)):  # quick stages, and those that take long
        told.clear()
        monkeypatch.setattr(counted, "WARM_S", bound)
        counted.mark_calls(Bench(tmp_path, None, [], {}, tmp_path / "none"), ["decode"])
        assert told == ["prepare", "step"] * warm + ["prepare", "mark", "step", "mark"] * counted.CALLS


def test_nothing_is_measured_without_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match=r"valgrind must be installed.*apt install valgrind"):
        gate("HEAD", instructions=True)
    with pytest.raises(MissingDependencyError, match="valgrind must be installed"):
        run(instructions=True)


def test_what_the_tool_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "part.2").write_text("# callgrind format\nsummary: 17\n", "utf-8")
    assert counting._total(tmp_path / "part.2") == 17
    with pytest.raises(MeasurementError, match="must count each call apart"):
        counting._total(tmp_path / "part.4")


def test_verdicts_stand_beside_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = [Verdict(name, "inconclusive", 1.04, 0.9, 1.2, 0.05, 8) for name in ("fit-5way-5shot", "cold")]
    plain = Comparison("old", "new", verdicts, 1.0, {of.name: (1.0, 1.0, "ms") for of in verdicts})
    base, head = (prepare(None, tmp_path / name) for name in ("base", "head"))
    joining = import_module("fieldshot.bench.gate")  # `bench.gate` is the function
    monkeypatch.setattr(
        joining,
        "count_instructions",
        lambda side, stages, pictures, cores: dict.fromkeys(stages, 1102 if side is head else 1000),
    )
    found = with_instructions(plain, base, head, [])
    assert found.instructions == {"fit-5way-5shot": (1000, 1102)}
    assert found.verdicts == verdicts
    assert [row[-1] for row in summary.rows(found)] == ["+10.20", ""]
    assert summary.header(found)[-1] == "instructions %"
    assert "| inconclusive | +10.20 |" in summary.markdown(found)
    assert "instructions +10.20 %" in summary.junit(found)
    assert "instructions" not in summary.markdown(plain) + summary.junit(plain)

    def failing(*_: object, **__: object) -> dict[str, int]:
        raise MeasurementError("the process must run its stages (got: Illegal instruction)")

    monkeypatch.setattr(joining, "count_instructions", failing)
    found = with_instructions(plain, base, head, [])
    assert (found.verdicts, found.instructions) == (verdicts, {})
    assert "Illegal instruction" in found.notes[0]


def test_stored_instructions(make_result: Make) -> None:
    base = make_result({"predict": 1.0, "decode": 1.0}, instructions={"predict": 1000, "decode": 10})
    head = make_result({"predict": 1.0, "decode": 1.0}, instructions={"predict": 1500})
    stored = base.to_json()
    assert from_json(stored, "a file") == base
    found = compare(base, head)
    assert found.instructions == {"predict": (1000, 1500)}
    assert not found.slower
    for bad in ([], {"predict": 0}, {"predict": "many"}):
        with pytest.raises(OptionError, match="must be a result of `fieldshot bench --json`"):
            from_json({**stored, "instructions": bad}, "a file")
    here = dataclasses.replace(make_result({"predict": 1.0}), board=board_facts())
    with pytest.raises(OptionError, match=r"must hold instructions.*with --instructions"):
        gate_result(here, instructions=True)
