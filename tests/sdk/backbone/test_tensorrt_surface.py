"""What the engine calls is in TensorRT 10.3 (JetPack 6.2) to 11, with such arguments: mypy against the bindings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tensorrt_surface import VERSIONS, surface

ROOT = Path(__file__).resolve().parents[3]
ENGINE = ROOT / "sdk/fieldshot/backbone/tensorrt"

# Of names and signatures. What pybind11 converts by itself, tuples to Dims or memory to a buffer, stubs do not tell.
TELLING = re.compile(r".*\.py:.*\[(attr-defined|call-arg|call-overload|name-defined|index|operator|return-value)\]$")


def complaints(version: str, sources: Path) -> list[str]:
    if not surface(version).exists():
        pytest.skip(f"no surface of TensorRT {version}: python tests/tensorrt_surface.py")
    cache = surface(version).with_name(f"{version}-cache")
    command = [sys.executable, "-m", "mypy", "--no-warn-unused-ignores", "--cache-dir", cache, sources]
    environment = {"MYPYPATH": str(surface(version)), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 1, done.stderr  # 0: the stubs were not read; 2: mypy gave up
    return [line for line in done.stdout.splitlines() if TELLING.match(line)]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_keeps_to_the_surface(version: str) -> None:
    assert complaints(version, ENGINE) == []


def test_what_is_not_there_is_seen(tmp_path: Path) -> None:
    planted = {
        "create_builder_config()": ("create_config()", '"create_config"'),
        "BuilderFlag.TF32": ("BuilderFlag.TF64", '"TF64"'),
        "get_input(0)": ("get_input(0, 1)", 'Too many arguments for "get_input"'),
    }
    source = (ENGINE / "building.py").read_text("utf-8")
    for ours, (fault, _) in planted.items():
        assert ours in source
        source = source.replace(ours, fault)
    copy = tmp_path / "building.py"
    copy.write_text(source, "utf-8")
    found = "\n".join(complaints("10.3.0", copy))
    for _, complaint in planted.values():
        assert complaint in found
