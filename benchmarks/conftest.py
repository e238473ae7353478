"""Fixtures of all benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from real import real_data


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and networks (data/, models/); the benchmark is skipped where there is none."""
    return real_data()
