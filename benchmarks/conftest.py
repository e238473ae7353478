"""Fixtures of all benchmarks, what they say of the machine, and the table at their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshot import Backbone
from fieldshot.bench.board import board_facts
from host_build import build_host
from real import real_data

_compared: list[tuple[str, dict[str, float]]] = []


def pytest_sessionstart() -> None:
    """Time the kernels as they are now."""
    build_host()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Governor, clocks, power mode and temperature, where the system says them."""
    machine_info["board"] = board_facts()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and networks (data/, models/); the benchmark is skipped where there is none."""
    return real_data()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The embedded one."""
    return Backbone.default()


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """JPEG files of blurred noise, by their width in pixels: about as long to decode as photographs."""
    random, folder, paths = np.random.default_rng(0), tmp_path_factory.mktemp("photographs"), {}
    for width in (640, 1920):
        noise = Image.fromarray(random.integers(0, 256, (width // 10, width // 10, 3), np.uint8))
        paths[width] = folder / f"{width}.jpg"
        noise.resize((width, 3 * width // 4), Image.Resampling.BICUBIC).save(paths[width], quality=90)
    return paths


@pytest.fixture
def compared(request: pytest.FixtureRequest) -> dict[str, float]:
    """Milliseconds of sides that took turns, ours first: printed in the table at the end."""
    times: dict[str, float] = {}
    _compared.append((request.node.name.removeprefix("bench_"), times))
    return times


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Ours beside what a user would pick instead."""
    rows = [(name, times) for name, times in _compared if times]
    if not rows:
        return
    terminalreporter.section("fieldshot beside others: medians in ms, and as many times ours")
    width = max(len(name) for name, _ in rows)
    for name, times in rows:
        (_, ours), *others = times.items()
        beside = (f"{other} {ms:.3f} ({ms / ours:.2f})" for other, ms in others)
        terminalreporter.write_line(f"{name:{width}}  {ours:9.3f}  {', '.join(beside)}")
