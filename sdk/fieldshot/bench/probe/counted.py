"""Calls of stages between marks, for a tool that counts instructions."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence

from .stages import STAGES, Bench

__all__ = ["CALLS", "MARK", "mark_calls"]

# A function of the C library that Python calls when it is told to, and nothing else in these processes does: the tool
# begins a new count whenever it is entered.
MARK = "getppid"
CALLS = 3  # of each stage


def mark_calls(bench: Bench, names: Sequence[str]) -> None:
    """Make some calls of each stage, with a mark before and after each."""
    gc.disable()
    for name in names:
        stage = STAGES[name](bench)
        for _ in range(CALLS):
            bench.turn = 0
            argument = stage.prepare() if stage.prepare else None
            os.getppid()
            stage.step(argument)
            os.getppid()
