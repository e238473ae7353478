"""Builds the kernels for this CPU before tests or benchmarks start: an editable install has those of its own day."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType


def kernel_build() -> ModuleType:
    """The module kernels/build.py, which is in no package."""
    path = Path(__file__).resolve().parents[1] / "kernels/build.py"
    spec = importlib.util.spec_from_file_location("kernel_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_host() -> None:
    """Build; without a compiler the tests of the host build skip."""
    kernels = kernel_build()
    if shutil.which("g++"):
        kernels.build_host(kernels.PACKAGE, strict=True)
