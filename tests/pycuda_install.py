"""Builds PyCUDA and installs it into the environment of the Python that runs this: `python tests/pycuda_install.py`.

It needs the CUDA headers and a C++ compiler, but neither a GPU nor a driver. Where there are no headers it installs
nothing and says so, and the tests that need PyCUDA skip.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "2026.1"

# Appended to a module that setup.py imports: by itself it compiles its 40 files one after the other.
COMPILE_AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
from setuptools._distutils.ccompiler import CCompiler
compile_files = CCompiler.compile
def compile_at_once(self, sources, **options):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(lambda source: compile_files(self, [source], **options), sources), [])
CCompiler.compile = compile_at_once
"""


def cuda_root() -> Path | None:
    """Folder of the CUDA toolkit whose headers are there."""
    nvcc = shutil.which("nvcc")
    roots = [os.environ.get("CUDA_HOME"), nvcc and Path(nvcc).resolve().parent.parent, "/usr/local/cuda"]
    return next((Path(root) for root in roots if root and (Path(root) / "include" / "cuda.h").is_file()), None)


def installed() -> str | None:
    """Version of PyCUDA in this environment."""
    try:
        return importlib.metadata.version("pycuda")
    except importlib.metadata.PackageNotFoundError:
        return None


def pip(*arguments: str | Path, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def install(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pip("download", "-qq", "--no-deps", "-d", work, f"pycuda=={VERSION}")
        with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        source = next(path for path in work.glob("pycuda-*") if path.is_dir())
        (work / "empty.c").touch()  # linking needs a libcuda.so, and only its name
        library = ["-shared", "-Wl,-soname,libcuda.so.1", "-o", work / "libcuda.so", work / "empty.c"]
        subprocess.run([os.environ.get("CC", "cc"), *library], check=True)
        settings = {
            "CUDA_ROOT": str(root),
            "CUDA_ENABLE_CURAND": False,
            "CUDADRV_LIB_DIR": [str(work)],
            "CUDADRV_LIBNAME": ["cuda"],
            "CXXFLAGS": ["-O1"],  # builds faster than -O3
        }
        (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        with (source / "aksetup_helper.py").open("a") as helper:
            helper.write(COMPILE_AT_ONCE)
        # The empty libcuda.so resolves nothing, and some linkers would leave out the need for it.
        pip("install", "-qq", "numpy", source, LDFLAGS="-Wl,--no-as-needed")


if __name__ == "__main__":
    root = cuda_root()
    if installed() == VERSION:
        print(f"PyCUDA {VERSION} is installed")
    elif root is None:
        print("PyCUDA not installed: no CUDA headers (CUDA_HOME, the folder of nvcc, /usr/local/cuda); its tests skip")
    else:
        install(root)
        print(f"PyCUDA {VERSION} built and installed")
