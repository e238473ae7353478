"""A process from its start to its first recognition, its memory, and what lies on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fieldshot
from fieldshot import bench


def bench_cold(benchmark: Any) -> None:
    """Under two seconds of processor time, 200 MB of memory, and 10 MB on the disk."""
    result = benchmark.pedantic(bench.run, kwargs={"suite": "cold,memory", "rounds": 5}, rounds=1)
    found = {of.name: of.summary()["cpu"] for of in result.stages}
    package = Path(fieldshot.__file__).parent
    found["bundle_mb"] = (package / "backbone/default.fieldshot").stat().st_size / 1e6
    found["package_mb"] = sum(path.stat().st_size for path in package.rglob("*.*") if path.suffix != ".pyc") / 1e6
    benchmark.extra_info.update(found, board=result.board)
    assert found["cold"] < 2000
    assert found["memory"] < 200
    assert found["bundle_mb"] < 10
