"""Budgets: whether a result keeps to them, and what breaks them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldshot.bench.budget import check, read_budget
from fieldshot.bench.result import Result
from fieldshot.errors import MissingFileError, OptionError

Make = Callable[..., Result]
BOARD = {"board": "NVIDIA Jetson Orin Nano", "cpu": "A78"}


PARTS = {"decode": 2, "preprocess": 0.5, "network": 3, "predict": 0.1}


def test_budget(make_result: Make, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text(json.dumps({"*": {"recognize": 1}, "Orin": {"recognize": 8, "enroll": 60, "memory": 120}}))
    budget = read_budget(path, BOARD)
    assert budget == {"recognize": 8, "enroll": 60, "memory": 120}
    assert read_budget(path, {"cpu": "Xeon"}) == {"recognize": 1}
    times = {**PARTS, "network": 4.0, "recognize": 7.0, "enroll": 50.0, "memory": 100.0}
    assert all(of.kept for of in check(make_result(times), budget))
    slow = check(make_result({**times, "recognize": 9.0, "memory": 130.0}), budget)
    assert [(of.name, of.culprit) for of in slow if not of.kept] == [("recognize", "network"), ("memory", "memory")]
    assert all(not of.culprit for of in slow if of.kept)
    with pytest.raises(OptionError, match=r"must hold enroll \(got enroll: not told\)\. Hint: leave out"):
        check(make_result({"recognize": 1.0, "memory": 1.0}, absent={"enroll": "not told"}), budget)
    with pytest.raises(OptionError, match=r"must hold memory \(got none\)\. Hint: .*--suite recognize,enroll,memory"):
        check(make_result({"recognize": 1.0, "enroll": 1.0}), budget)


@pytest.mark.parametrize(
    ("times", "limits", "culprit"),
    [
        ({**PARTS, "recognize": 8}, {}, "network"),
        ({**PARTS, "recognize": 40}, {}, "the rest"),
        ({**PARTS, "recognize": 4}, {}, "network"),  # parts, each with warm caches, may take more
        ({**PARTS, "recognize": 40}, {"decode": 1, "network": 9}, "decode"),
        ({**PARTS, "recognize": 40}, {"decode": 1.9, "network": 1}, "network"),
        ({"recognize": 40}, {}, "recognize"),
        ({"decode": 2, "recognize": 40}, {}, "recognize"),  # what was not measured may be the culprit
        ({**PARTS, "enroll": 40}, {}, "enroll"),
        ({**PARTS, "cold": 550}, {}, "cold"),
        ({**PARTS, "cold": 550}, {"network": 1}, "cold"),
    ],
)
def test_the_culprit(make_result: Make, times: dict[str, float], limits: dict[str, float], culprit: str) -> None:
    *_, broken = times
    found = {of.name: of.culprit for of in check(make_result(times), {**limits, broken: 1})}
    assert found[broken] == culprit


def test_the_budget_of_this_project(make_result: Make) -> None:
    path = Path(__file__).parents[3] / "benchmarks/budget.json"
    fast = make_result({"recognize": 10, "enroll": 60, "cold": 600, "memory": 220})
    for board in ({"board": "NVIDIA Jetson AGX Orin Developer Kit"}, {"cpu": "Xeon"}):
        assert all(of.kept for of in check(fast, read_budget(path, board)))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"Nano": {"recognize": 1}}', '{"*": {"recogniz": 1}}', '{"*": 3}'])
def test_budgets_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text(text)
    with pytest.raises(OptionError):
        read_budget(path, {"board": "Orin"})


def test_a_budget_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_budget(tmp_path / "none.json", BOARD)
    (tmp_path / "a.json").write_text('{"*": {"recognize": 0}}')
    with pytest.raises(OptionError, match="number above 0"):
        read_budget(tmp_path / "a.json", BOARD)


@pytest.mark.parametrize("text", ['{"*": {}}', '{"": {"recognize": 1}}', '{" ": {"recognize": 1}}'])
def test_a_budget_that_names_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(OptionError, match="must name boards, and benchmarks of each"):
        read_budget(tmp_path / "a.json", BOARD)


def test_p95_is_what_counts(make_result: Make) -> None:
    result = make_result({"recognize": 1.0})
    spoilt = [dataclasses.replace(of, wall=[*of.wall, 9.0, 9.0]) for of in result.stages[0].rounds]
    stages = [dataclasses.replace(result.stages[0], rounds=spoilt)]
    assert not check(dataclasses.replace(result, stages=stages), {"recognize": 2.0})[0].kept
