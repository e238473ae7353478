"""Results without measuring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fieldshot.bench.result import Measured, Result, Round

BACKBONE = {"name": "tiny", "contract": "c0", "engine": {"name": "onnxruntime", "version": "1"}}
BOARD = {"board": "Orin", "cpu": "A78", "machine": "aarch64"}


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Results of stages that take so many milliseconds each, in so many rounds."""

    def make(times: dict[str, float], *, rounds: int = 8, seed: int = 0, **changes: Any) -> Result:
        random = np.random.default_rng(seed)
        stages = []
        for name, ms in times.items():
            of = []
            for _ in range(rounds):
                cpu = ms * np.exp(random.normal(0, 0.005, 6))
                of.append(Round((1.1 * cpu).tolist(), cpu.tolist(), 1.0))
            stages.append(Measured(name, "MB" if name == "memory" else "ms", of))
        facts = {"backbone": BACKBONE, "python": "3.12", "numpy": "2", "head": "NumPy", "fieldshot": "0.1.0"}
        known = {"when": "2026-01-02T03:04:05+00:00", "commit": "abc", "suite": "quick", "cores": 1}
        return Result(**{**known, "board": BOARD, "facts": facts, "stages": stages, **changes})

    return make
