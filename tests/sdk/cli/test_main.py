"""Help, usage, exit codes, and whatever the terminal is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fieldshot import cli
from shell import Shell

COMMANDS = ["bench", "demo", "enroll", "eval", "forget", "history"]
COMMANDS += ["info", "recognize", "reject", "rollback", "undo"]
PROGRAM = [sys.executable, "-m", "fieldshot"]


def test_no_command_prints_help(shell: Shell) -> None:
    out = shell()
    for name in COMMANDS:
        assert f"\n    {name}" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_examples(shell: Shell, name: str) -> None:
    out = shell(name, "--help")
    assert f"examples:\n  fieldshot {name}" in out


def test_wrong_usage_exits_with_2(shell: Shell, pictures: Path) -> None:
    shell("recognise", code=2)
    shell("enroll", "site.gallery", code=2)
    shell("enroll", "site.gallery", "bolt", code=2)
    shell("enroll", "site.gallery", "bolt", "a.png", "--from", pictures, code=2)
    shell("recognize", "site.gallery", "a.png", "--jsn", code=2)
    shell("eval", pictures, "--shots", "1,many", code=2)
    assert "comma-separated numbers" in shell.err


def test_debug_shows_where_an_error_arose(shell: Shell) -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["history", "absent.gallery", "--debug"])


def test_interrupt(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(parser: object, argv: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parse", interrupted)
    shell("info", code=130)
    assert shell.err == "fieldshot: interrupted\n"


def test_a_reader_that_goes_away_is_no_error(gallery: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "history", gallery], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_locale_without_emoji_is_no_error(shell: Shell, gallery: str) -> None:
    Image.new("RGB", (40, 40), "white").save("white.png")
    shell("enroll", gallery, "\N{NUT AND BOLT}", "white.png")
    done = subprocess.run(
        [*PROGRAM, "history", gallery],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "\\U0001f529" in done.stdout


def test_a_broken_plugin_does_not_stop_the_others(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Plugin:
        name = "broken"

        def load(self) -> None:
            raise ImportError("no module named nothing")

    monkeypatch.setattr(cli, "entry_points", lambda group: [Plugin()])
    shell("--version")
    assert "broken cannot be loaded: no module named nothing" in caplog.text
