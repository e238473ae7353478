"""Calls of stages between marks, for a tool that counts instructions."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from typing import Any

from .stages import STAGES, Bench, Stage

__all__ = ["CALLS", "MARK", "mark_calls"]

# A function of the C library that Python calls when it is told to, and nothing else in these processes does: the tool
# begins a new count whenever it is entered.
MARK = "getppid"
CALLS = 3  # of each stage
# Calls before them, until the interpreter has specialised the bytecode: which of it the stages before have in common
# must make no difference. Where a call takes long the bytecode is little of it, so the time is bounded: that on the
# processor, which the machine's load hardly moves.
WARM_CALLS, WARM_S = 50, 10.0


def mark_calls(bench: Bench, names: Sequence[str]) -> None:
    """Make some calls of each stage, with a mark before and after each."""
    gc.disable()
    for name in names:
        stage = STAGES[name](bench)
        begun = time.process_time()
        for _ in range(WARM_CALLS):
            stage.step(_prepared(bench, stage))
            if time.process_time() - begun > WARM_S:
                break
        for _ in range(CALLS):
            argument = _prepared(bench, stage)
            os.getppid()
            stage.step(argument)
            os.getppid()


def _prepared(bench: Bench, stage: Stage) -> Any:
    """What a step is called with; always with the same picture to come."""
    bench.turn = 0
    return stage.prepare()
