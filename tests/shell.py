"""Runs the command line in process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fieldshot import cli


class Shell:
    """Runs commands in a folder of pictures and keeps what they printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object, code: int = 0) -> str:
        try:
            got = cli.main([os.fspath(word) if isinstance(word, Path) else str(word) for word in words])
        except SystemExit as stop:
            got = stop.code
        self.out, self.err = self.capsys.readouterr()
        assert got == code, self.out + self.err
        return self.out

    def json(self, *words: object) -> object:
        return json.loads(self(*words, "--json"))

    def fails(self, *words: object) -> str:
        """One line on stderr, nothing on stdout, no traceback."""
        self(*words, code=1)
        assert self.out == ""
        assert self.err.startswith("fieldshot: error: ")
        assert self.err.count("\n") == 1
        return self.err
