"""Writes down the Python surface of TensorRT for mypy to check ours against: `python tests/tensorrt_surface.py`.

The bindings are wheels of a megabyte that load without TensorRT's own libraries: a few empty functions stand in for
those. mypy's stubgen then reads names and signatures off the loaded module. A version that PyPI does not have for this
Python and machine is left out, and its test skips.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = {
    "10.3.0": "tensorrt-cu12-bindings",  # JetPack 6.2
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
FOLDER = Path(sys.prefix, "share", "tensorrt-surface")


def surface(version: str) -> Path:
    """Folder for MYPYPATH; absent where the version was left out."""
    return FOLDER / version


def output(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return done.stdout


def write(version: str, package: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        output(sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", work, f"{package}=={version}")
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
            wheel.extractall(work)
        extension = work / "tensorrt_bindings" / "tensorrt.so"
        stand_in(extension, work)
        paths = {"LD_LIBRARY_PATH": str(work), "PYTHONPATH": str(work)}
        stubgen = Path(sys.executable).with_name("stubgen")
        output(stubgen, "-q", "--inspect-mode", "-m", "tensorrt_bindings.tensorrt", "-o", work / "stubs", **paths)
        lines = (work / "stubs/tensorrt_bindings/tensorrt.pyi").read_text("utf-8").splitlines()
        # One signature that is no Python: an argument without a default after others with one.
        lines = [line for line in lines if "def add_scale_nd" not in line]
        target = surface(version) / "tensorrt" / "__init__.pyi"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join([*lines, "__version__: str", ""]), "utf-8")


def stand_in(extension: Path, folder: Path) -> None:
    """Libraries of empty functions, under the names that the extension asks for."""
    needed = re.findall(r"NEEDED.*\[(libnv\S+)\]", output("readelf", "-d", extension))
    symbols = re.findall(r"U ((?:create|get|init)[A-Z]\w+)$", output("nm", "-D", "-u", extension), re.MULTILINE)
    source = folder / "empty.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in symbols))
    for name in needed:
        output("cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source)


if __name__ == "__main__":
    for version, package in VERSIONS.items():
        if surface(version).exists():
            continue
        try:
            write(version, package)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"TensorRT {version} is left out: {getattr(error, 'stderr', '') or error}")
        else:
            print(f"TensorRT {version}: its Python surface is in {surface(version)}")
