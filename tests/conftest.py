"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundles import write_tiny_bundle
from fieldshot.device import device_count
from host_build import build_host
from real import real_data


def pytest_sessionstart() -> None:
    build_host()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and networks (data/, models/); the test is skipped where there is none."""
    return real_data()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny random network: D = 16, input 32 x 32."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.fieldshot")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked gpu where there is no GPU; where one is required they run, and fail by themselves."""
    required = os.environ.get("FIELDSHOT_REQUIRE_GPU") == "1"
    if item.get_closest_marker("gpu") and not required and not device_count():
        pytest.skip("needs a CUDA device")
