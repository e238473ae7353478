"""`import fieldshot` is cheap, and every module imports where only the runtime's own needs are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_MS = 150
HEAVY = ["PIL", "numpy", "onnx", "onnxruntime", "pycuda", "sklearn", "tensorrt", "torch", "tqdm"]

# What a device does not have. A finder in front of all others refuses it, wherever it may be installed.
ABSENT = [
    "matplotlib",
    "onnx",
    "onnxscript",
    "pycuda",
    "scipy",
    "skimage",
    "sklearn",
    "tensorrt",
    "threadpoolctl",
    "timm",
]
ABSENT += ["torch"]

IMPORT_ALL = f"""
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import fieldshot
names = [module.name for module in pkgutil.walk_packages(fieldshot.__path__, "fieldshot.")]
for name in [*names, "fieldshot_export.command"]:
    importlib.import_module(name)
print(len(names))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def import_ms() -> float:
    """Milliseconds that `import fieldshot` took, with all that it imports."""
    last = python("-X", "importtime", "-c", "import fieldshot").stderr.strip().splitlines()[-1]
    _, cumulative_us, name = last.split("|")
    assert name.strip() == "fieldshot"
    return int(cumulative_us) / 1000


def test_import_is_quick() -> None:
    assert min(import_ms() for _ in range(5)) < LIMIT_MS


def test_import_loads_nothing_heavy() -> None:
    program = f"import sys, fieldshot; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert python("-c", program).stdout.strip() == "[]"


def test_every_module_imports_in_a_bare_environment() -> None:
    assert int(python("-c", IMPORT_ALL).stdout) >= 10


@pytest.mark.skipif(Path(sys.prefix).name != ".venv-test", reason="the Makefile's environments alone")
def test_a_clone_of_that_name_beside_a_script_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "fieldshot").mkdir()
    subprocess.run([sys.executable, "-c", "from fieldshot import Backbone"], cwd=tmp_path, check=True)
