"""The file of finished rows, whole or damaged."""

from __future__ import annotations

import dataclasses
import math
import os

import pytest

from fieldshot.evaluation import Journal, Row

ROW = Row("data", "fieldshot", 5, "all", 15, 2.0, 2, 0.75, 0.1, 0.5, 0.03, 0.4, 0.3, [0.5, 1.0], [-0.1, 0.2])


def test_rows_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "rows.jsonl")
    assert journal.get("a") is None
    journal.add("a", ROW)
    journal.add("b", dataclasses.replace(ROW, shots=1))
    again = Journal(tmp_path / "rows.jsonl")
    assert again.get("a") == journal.get("a") == ROW
    assert again.get("b") == dataclasses.replace(ROW, shots=1)


def test_one_episode_gives_no_interval(tmp_path):
    Journal(tmp_path / "rows.jsonl").add("a", dataclasses.replace(ROW, interval=math.nan))
    assert '"interval": null' in (tmp_path / "rows.jsonl").read_text()
    assert math.isnan(Journal(tmp_path / "rows.jsonl").get("a").interval)


def test_whatever_is_torn_off_the_end_all_lines_before_it_stay(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    for key in "ab":
        Journal(path).add(key, ROW)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in [*range(0, len(whole), 37), first - 1, first, len(whole) - 1]:
        path.write_bytes(whole[:size])
        journal = Journal(path)
        assert (journal.get("a") == ROW) == (size >= first)
        assert journal.get("b") is None
        journal.add("b", ROW)
        assert Journal(path).get("b") == ROW
    assert "was torn and is dropped" in caplog.text


@pytest.mark.parametrize("line", [b"{}", b"[1]", b"no json", b'{"key": "a", "row": {"data": 1}}', b"\xff"])
def test_lines_that_are_no_rows_are_passed_over(tmp_path, caplog, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line + b"\n")
    Journal(path).add("b", ROW)
    assert Journal(path).get("b") == ROW
    assert "line 1 of" in caplog.text


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match=os.fspath(tmp_path)):
        Journal(tmp_path / "absent" / "rows.jsonl")
