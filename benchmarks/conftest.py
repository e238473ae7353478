"""Fixtures of all benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_build import build_host
from real import real_data


def pytest_sessionstart() -> None:
    """Time the kernels as they are now."""
    build_host()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and networks (data/, models/); the benchmark is skipped where there is none."""
    return real_data()
