"""The folder of real pictures and networks that some tests and benchmarks use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data() -> Path:
    """Return the folder that holds data/ and models/; skip the test where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("FIELDSHOT_DATA", beside))
    if not (folder / "data").is_dir() or not (folder / "models").is_dir():
        pytest.skip(f"real pictures and networks must lie in {folder} (FIELDSHOT_DATA names another folder)")
    return folder
