"""Fixtures of all benchmarks, what they say of the machine, and the tables at their end."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from fieldshot import Backbone, __version__
from fieldshot.bench.board import board_facts
from fieldshot.bench.running import first_cores
from fieldshot.bench.workers import pinned
from host_build import build_host
from real import real_data
from turns import Compare, Side, Turns, in_turn

_compared: list[tuple[str, Turns]] = []
_weighed: list[tuple[str, dict[str, float]]] = []


def pytest_sessionstart() -> None:
    """Time the kernels as they are now."""
    build_host()


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Governor, clocks, power mode and temperature, where the system says them; versions, and what runs networks."""
    machine_info["board"] = board_facts()
    machine_info["versions"] = {"fieldshot": __version__} | {
        name: version(name) for name in ("numpy", "onnxruntime", "pillow")
    }
    machine_info["engine"] = Backbone.default().info()["engine"]


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
def one_core() -> Iterator[None]:
    """One core and one thread for all sides."""
    with pinned(first_cores(1)), threadpool_limits(1):
        yield


@pytest.fixture
def compare(request: pytest.FixtureRequest, benchmark: Any) -> Compare:
    """Times ours and what one would pick instead in turn; printed in the table at the end, medians in extra_info."""

    def compared(seconds: float, **sides: Side) -> Turns:
        turns = in_turn(seconds, **sides)
        benchmark.extra_info.update(turns.medians())
        _compared.append((request.node.name.removeprefix("bench_"), turns))
        return turns

    return compared


@pytest.fixture
def weigh(benchmark: Any) -> Any:
    """Notes megabytes: printed below the table, and in extra_info."""

    def weighed(title: str, **megabytes: float) -> None:
        benchmark.extra_info[title] = megabytes
        _weighed.append((title, megabytes))

    return weighed


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Ours beside what a user would pick instead, and sizes."""
    write = terminalreporter.write_line
    if _compared:
        width = max(len(name) for name, _ in _compared)
        terminalreporter.section("fieldshot in ms, and beside it others: their median, and how many times ours")
        write(f"{'':{width}} {'p50':>9} {'p95':>9} {'p99':>9}")
    for name, turns in _compared:
        (ours, times), *_ = turns.items()
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        beside = (f"{side} {ms:.3f} ({turns.ratio(side, ours):.2f})" for side, ms in list(turns.medians().items())[1:])
        write(f"{name:{width}} {p50:9.3f} {p95:9.3f} {p99:9.3f}  {', '.join(beside)}".rstrip())
    for title, megabytes in _weighed:
        write(f"{title} in MB: {', '.join(f'{name} {value:.1f}' for name, value in megabytes.items())}")
