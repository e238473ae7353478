"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundles import write_tiny_bundle


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and networks (data/, models/); the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FIELDSHOT_DATA", beside))
    if not (folder / "data").is_dir() or not (folder / "models").is_dir():
        pytest.skip(f"real pictures and networks must lie in {folder} (FIELDSHOT_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny random network: D = 16, input 32 x 32."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.fieldshot")
