"""The conformance suites again, where a build needs a process of its own: sanitizers, PyCUDA on the stand-in driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import builds
from check_build import build, memory_environment
from driver_build import build_driver, driver_environment, missing

HERE = Path(__file__).parent
SUITES = [HERE / "test_conformance.py", HERE / "test_preprocess.py"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the check machine")


def run_suite(ops: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, SUITES)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=builds.ROOT, env={**environment, "FIELDSHOT_TEST_OPS": ops}
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def test_memory_build_conforms_under_the_sanitizers() -> None:
    assert " passed" in run_suite("memory", memory_environment())


@pytest.mark.gpu
def test_cuda_operations_conform_on_the_device() -> None:
    assert " passed" in run_suite("cuda", dict(os.environ))


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_cuda_operations_conform_on_the_stand_in_driver(tmp_path: Path) -> None:
    kernels = build([builds.ROOT / "kernels/all.cu"], builds.CHECKED, "race")
    environment = driver_environment(build_driver(tmp_path), kernels)
    assert " passed" in run_suite("cuda", {**environment, "FIELDSHOT_CACHE": str(tmp_path)})
