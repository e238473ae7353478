"""Build the kernels into a folder: python kernels/build.py host|cuda|report [--out FOLDER].

host     the sources, and shared libraries for this machine's kind of CPU (needs g++)
cuda     the sources, and a fat binary for every supported GPU (needs nvcc)
report   registers, shared memory, spills and occupancy of each kernel, as ptxas gives them (needs nvcc)

Files carry the digest of the sources in their names, as fieldshot.ops.sources expects; what is there already is not
built again, and what belongs to other sources is removed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "sdk/fieldshot/kernels"

# Compute capabilities with machine code of their own; the last one's PTX serves whatever comes after.
GPUS = (75, 80, 86, 87, 89, 90, 100, 110, 120)

# Sums may be reordered into vectors; NaN, infinity and denormals keep their meaning.
HOST_FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"),
    *("-fassociative-math", "-fno-signed-zeros", "-fvisibility=hidden", "-Wall", "-Wextra", "-s"),
]


def sources() -> list[Path]:
    """What the digest is of, in its order."""
    return sorted(path for path in HERE.glob("*.cu*") if path.suffix in {".cu", ".cuh"})


def digest() -> str:
    """As fieldshot.ops.sources.digest."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()[:12]


def copy_sources(out: Path) -> None:
    """Put the sources beside what is built of them: the runtime reads the structs, and a device may compile."""
    out.mkdir(parents=True, exist_ok=True)
    for path in out.iterdir():
        if digest() not in path.name and path.suffix in {".so", ".fatbin", ".log", ".part", ".cu", ".cuh"}:
            path.unlink()
    for path in sources():
        shutil.copyfile(path, out / path.name)


def reuse(path: Path) -> bool:
    """Take a file that was built before, in place or where FIELDSHOT_PREBUILT says; whether there was one."""
    before = Path(os.environ.get("FIELDSHOT_PREBUILT") or PACKAGE, path.name)
    if not path.exists() and before.exists():
        shutil.copyfile(before, path)
    return path.exists()


def build_host(out: Path, *, strict: bool = False) -> list[Path]:
    """Compile for any CPU of this machine's kind, and for those with wide vectors.

    Parameters
    ----------
    out : Path
        Folder.
    strict : bool
        Take warnings for errors: for ourselves, since a user's compiler may know new ones.

    Returns
    -------
    list of Path
        What was built; the first is for any CPU.

    Raises
    ------
    CompileError
        Without a compiler, or if it cannot build the first.
    """
    copy_sources(out)
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    machine = platform.machine()
    targets = {f"host-{machine}": []}
    if machine == "x86_64":
        targets |= {f"host-{machine}-v{level}": [f"-march=x86-64-v{level}"] for level in (3, 4)}
    flags = [*HOST_FLAGS, *(["-Werror"] if strict else [])]
    built: list[Path] = []
    with ThreadPoolExecutor() as pool:
        running = {
            out / f"{name}.{digest()}.so": pool.submit(
                compile_to, out / f"{name}.{digest()}.so", [*compiler, *flags, *more, "-x", "c++", HERE / "host.cpp"]
            )
            for name, more in targets.items()
        }
        for path, done in running.items():
            try:
                done.result()
            except CompileError as error:
                if strict or not built:
                    raise
                print(f"kernels/build.py: {path.name} is left out: {error}", file=sys.stderr)
            else:
                built.append(path)
    return built


def build_cuda(out: Path) -> tuple[Path, str]:
    """Compile for those of the GPUs that this nvcc knows: the fat binary, and what ptxas said.

    Raises
    ------
    CompileError
        Without nvcc, or if it cannot.
    """
    copy_sources(out)
    path, log = out / f"cuda.{digest()}.fatbin", out / f"cuda.{digest()}.log"
    reuse(log)
    if not (log.exists() and (path.exists() or reuse(path))):
        path.unlink(missing_ok=True)  # without its log it says too little
        known = set(map(int, re.findall(r"sm_(\d+)\b", run([nvcc(), "--list-gpu-code"]))))
        gpus = [gpu for gpu in GPUS if gpu in known]
        codes = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in gpus]
        codes.append(f"-gencode=arch=compute_{gpus[-1]},code=compute_{gpus[-1]}")
        if tuple(map(int, nvcc_release().split("."))) >= (12, 8):
            codes.append("-compress-mode=size")
        command = [nvcc(), "-std=c++17", "-O3", "--fatbin", "--threads=0", "-Xptxas=-v", *codes, HERE / "all.cu"]
        log.write_text(compile_to(path, command))
    return path, log.read_text()


class CompileError(Exception):
    """A compiler that is not there, or refuses."""


def compile_to(path: Path, command: list[str | Path]) -> str:
    """Run a compiler unless its result is there; a half-written file never has its name. Its output."""
    if path.exists() or reuse(path):
        return ""
    half = path.with_suffix(".part")
    output = run([*command, "-o", half])
    half.replace(path)
    return output


def run(command: list[str | Path]) -> str:
    """Output of a program."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        package = "the CUDA toolkit" if "nvcc" in str(command[0]) else "g++ (apt install g++)"
        raise CompileError(f"{command[0]} must be there (got: {error.strerror}). Hint: install {package}") from error
    if done.returncode:
        words = " ".join(map(str, command))
        raise CompileError(f"{words} must succeed (got exit code {done.returncode}):\n{done.stdout}")
    return done.stdout


def nvcc() -> str:
    """The compiler: on PATH, or where the toolkit puts it."""
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc") or "nvcc"


def nvcc_release() -> str:
    """Such as 13.0."""
    return re.search(r"release ([\d.]+)", run([nvcc(), "--version"]))[1]


def report(log: str) -> str:
    """Markdown table of what ptxas said of each kernel, a row a kernel, the worst of all GPUs."""
    kernels: dict[str, dict[str, int]] = {}
    for name, rest in re.findall(
        r"Compiling entry function '(\w+)' for '\w+'\n(.*?)(?=Compile time|\Z)", log, re.DOTALL
    ):
        row = kernels.setdefault(name, {"registers": 0, "shared": 0, "spilled": 0})
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", rest)))
        for key, value in (
            ("registers", int(re.search(r"Used (\d+) registers", rest)[1])),
            ("shared", sum(map(int, re.findall(r"(\d+) bytes smem", rest)))),
            ("spilled", spilled),
        ):
            row[key] = max(row[key], value)
    lines = ["| kernel | registers | fixed shared memory | spilled bytes | warps of 64 |", "|---|---|---|---|---|"]
    for name, row in sorted(kernels.items()):
        # A block has 256 lanes; registers are dealt to warps in steps of 256, of 65,536 a multiprocessor.
        by_registers = 65536 // (-(-row["registers"] * 32 // 256) * 256) // 8 * 8
        by_shared = 100 * 1024 // max(row["shared"] + 1024, 1) * 8
        warps = min(64, by_registers, by_shared)
        lines.append(f"| `{name}` | {row['registers']} | {row['shared']} | {row['spilled']} | {warps} |")
    return "\n".join(lines)


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["host", "cuda", "report"])
    parser.add_argument("--out", type=Path, default=PACKAGE)
    arguments = parser.parse_args()
    try:
        if arguments.what == "host":
            build_host(arguments.out)
        else:
            path, log = build_cuda(arguments.out)
            print(report(log) if arguments.what == "report" else path)
    except CompileError as error:
        sys.exit(f"kernels/build.py: {error}")


if __name__ == "__main__":
    main()
