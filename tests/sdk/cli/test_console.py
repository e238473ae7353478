"""How the command line talks."""

from __future__ import annotations

import io
import sys
import time

import pytest

from fieldshot.cli import console


@pytest.mark.parametrize(("terminal", "seconds", "shows"), [(True, 1.1, True), (True, 0.2, False), (False, 1.1, False)])
def test_progress_shows_on_a_terminal_after_a_second(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, seconds: float, shows: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with console.progress("step") as show:
        show(1, None)
        time.sleep(seconds)
        show(2, 3)
    assert ("step:  67%" in stream.getvalue()) is shows


def test_columns_are_as_wide_as_a_terminal_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["label", "count"], [["名前", "7"], ["e\u0301te\u0301", "12"], ["🔩", "3"]])
    assert capsys.readouterr().out.splitlines() == [
        "label  count",
        "名前       7",
        "e\u0301te\u0301       12",
        "🔩         3",
    ]
