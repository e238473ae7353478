"""Builds the stand-in for NVIDIA's driver (driver/standin.cpp) and says how a subprocess comes to use it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "driver" / "standin.cpp"
COMPILER = os.environ.get("CXX", "g++")


def pycuda_extension() -> Path | None:
    """PyCUDA's extension module, which links to the driver."""
    found = importlib.util.find_spec("pycuda")  # does not import it
    folders = (found and found.submodule_search_locations) or []
    return next((path for folder in folders for path in Path(folder).glob("_driver*.so")), None)


def pycuda_installed() -> bool:
    return pycuda_extension() is not None


def missing() -> str | None:
    """Why PyCUDA cannot run on the stand-in here; None if it can."""
    if not pycuda_installed():
        return "PyCUDA is not installed: python tests/pycuda_install.py"
    return None if shutil.which(COMPILER) else f"there is no {COMPILER}"


def build_driver(out: Path) -> Path:
    """Compile the stand-in into the folder `out` as libcuda.so.1; the folder."""
    out.mkdir(parents=True, exist_ok=True)
    stubs = out / "stubs.cpp"
    stubs.write_text(_stubs())
    options = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([COMPILER, *options, "-o", out / "libcuda.so.1", SOURCE, stubs, "-ldl"], check=True)
    return out


def _stubs() -> str:
    """Weak definitions of all that PyCUDA links to: Python loads it only if every symbol is there."""
    extension = pycuda_extension()
    listing = ["nm", "-D", "--undefined-only", extension] if extension else ["true"]
    symbols = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split()
    names = sorted(name for name in symbols if name.startswith("cu") and name[2:3].isupper())
    stub = 'extern "C" __attribute__((weak)) int {0}() {{ return standin_missing("{0}"); }}\n'
    return 'extern "C" int standin_missing(const char*);\n' + "".join(stub.format(name) for name in names)


def driver_environment(folder: Path, kernels: Path | None = None, **settings: object) -> dict[str, str]:
    """Environment of a subprocess that uses the driver in `folder` and the kernels that the library exports.

    A setting is one of the stand-in's by its last word: `devices=0` is FIELDSHOT_STANDIN_DEVICES=0.
    """
    environment = dict(os.environ)
    paths = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    environment.update({f"FIELDSHOT_STANDIN_{name.upper()}": str(value) for name, value in settings.items()})
    if kernels:
        environment["FIELDSHOT_STANDIN_KERNELS"] = str(kernels)
        if b"libasan.so" in kernels.read_bytes():  # it must be the first; libstdc++ with it, as PyCUDA throws
            environment["LD_PRELOAD"] = " ".join(_compiler_library(name) for name in ("libasan.so", "libstdc++.so"))
            environment["ASAN_OPTIONS"] = "detect_leaks=0"  # Python itself leaks
    return environment


def quick_nvcc(folder: Path) -> Path:
    """Put an nvcc that needs no time into a folder for PATH: what it makes the stand-in loads."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; [ "$1" = -o ] && out=$2; done\nprintf "\\177ELF" > "$out"\n'
    )
    nvcc.chmod(0o755)
    return nvcc.parent


def _compiler_library(name: str) -> str:
    asked = subprocess.run([COMPILER, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return asked.stdout.strip()
