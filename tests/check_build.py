"""Compiles kernels for the check machine (tests/machine), to find races or errors of memory in them.

race    the machine's own shadow finds races and accesses out of bounds; loads into any process
memory  AddressSanitizer and UBSan; loads only into a process started with `memory_environment()`, which a fault ends
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

Kind = Literal["race", "memory"]

TESTS = Path(__file__).resolve().parent
MACHINE, KERNELS = TESTS / "machine", TESTS.parent / "kernels"
COMMON = ("-std=c++17", "-g", "-fPIC", f"-I{MACHINE}")
KERNEL = ("-x", "c++", "-O1", "-DFIELDSHOT_CHECK", f"-I{KERNELS}")
OWN = ("-O2", "-Wall", "-Wextra", "-Werror")
SANITIZE = {
    "race": ("-fsanitize=thread",),
    "memory": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}


def build(sources: list[Path], out: Path, kind: Kind) -> Path:
    """Compile kernels to a shared library in the folder `out`, unless that of these very sources is there already."""
    flags = (*COMMON, *KERNEL, *SANITIZE[kind])
    digest = hashlib.sha256(repr((flags, sources, _run("g++", "--version"))).encode())
    folders = {MACHINE, KERNELS, *(source.parent for source in sources)}
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        if path.suffix in {".cu", ".cuh", ".cpp", ".hpp"}:
            digest.update(path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    library = out / f"check-{kind}-{digest.hexdigest()[:16]}.so"
    if library.exists():
        return library
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(source, flags) for source in sources]
        jobs += [(path, (*COMMON, *OWN)) for path in sorted(MACHINE.glob("*.cpp"))]
        objects = [Path(scratch, f"{i}.o") for i in range(len(jobs))]
        for done in [
            pool.submit(_run, "g++", *options, "-c", source, "-o", object)
            for (source, options), object in zip(jobs, objects, strict=True)
        ]:
            done.result()
        linked = Path(scratch, library.name)
        link = ["g++", "-shared", "-o", linked]
        if kind == "race":  # without libtsan; calls of memcpy go to the shadow, but only those of kernels
            kernels = Path(scratch, "kernels.o")
            wraps = [f"-Wl,--wrap={name}" for name in ("memcpy", "memmove", "memset")]
            _run("g++", "-r", "-nostdlib", *wraps, *objects[: len(sources)], "-o", kernels)
            _run(*link, "-Wl,--no-undefined", kernels, *objects[len(sources) :])
        else:
            _run(*link, *SANITIZE[kind], *objects)
        linked.replace(library)
    return library


def memory_environment() -> dict[str, str]:
    """Return the environment of a process that may load a library of kind memory."""
    return {
        **os.environ,
        "LD_PRELOAD": _run("g++", "-print-file-name=libasan.so").strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",  # so that the ends of Python's small objects are guarded too
    }


def explain(report: str, library: Path) -> str:
    """Put file and line in place of each [code +0x...] of a report."""

    def line(match: re.Match[str]) -> str:
        place = _run("addr2line", "-e", library, match[1]).split()[0]
        return f"[{place}]"

    return re.sub(r"\[code \+(0x[0-9a-f]+)\]", line, report) if shutil.which("addr2line") else report


def _run(*command: object) -> str:
    # The compiler needs no sanitizer where a process under one builds.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout
