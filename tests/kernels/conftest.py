"""The operations on each build of the kernels: here on the host build and the race build of the check machine."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

import builds

BUILDS = [builds.asked()] if builds.asked() != "host" else ["host", "race"]


@pytest.fixture(scope="module", params=BUILDS)
def ops(request: pytest.FixtureRequest) -> Any:
    if request.param in {"race", "memory"} and shutil.which("g++") is None:
        pytest.skip("needs g++ to build the check machine")
    return builds.make(request.param)
