"""The operations on each build of the kernels: here on the host builds and the race build of the check machine."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

import builds
from fieldshot.ops.host import libraries

BUILDS = [builds.asked()] if builds.asked() != "host" else ["host", "host-0", "host-1", "race"]


@pytest.fixture(scope="module", params=BUILDS)
def ops(request: pytest.FixtureRequest) -> Any:
    if request.param in {"race", "memory"} and shutil.which("g++") is None:
        pytest.skip("needs g++ to build the check machine")
    if request.param in {"host-0", "host-1"} and int(request.param[-1]) >= len(libraries()) - 1:
        pytest.skip("this CPU runs fewer of the host builds")
    return builds.make(request.param)
