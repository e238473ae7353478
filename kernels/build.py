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
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "sdk/fieldshot/kernels"

# Compute capabilities with machine code of their own; the last one's PTX serves whatever comes after.
GPUS = (75, 80, 86, 87, 89, 90, 100, 110, 120)

# Sums may be reordered into vectors; NaN, infinity and denormals keep their meaning.
HOST_FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math"),
    *("-fassociative-math", "-fno-signed-zeros", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-s"),
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


def reuse(path: Path) -> None:
    """Take a file that was built before: in place, or where FIELDSHOT_PREBUILT says."""
    before = Path(os.environ.get("FIELDSHOT_PREBUILT") or PACKAGE, path.name)
    if not path.exists() and before.exists():
        shutil.copyfile(before, path)


def build_host(out: Path) -> list[Path]:
    """Compile for any CPU of this machine's kind, and for those with wide vectors; [] without a compiler."""
    copy_sources(out)
    compiler = os.environ.get("CXX") or shutil.which("g++")
    machine = platform.machine()
    targets = {f"host-{machine}": []}
    if machine == "x86_64":
        targets[f"host-{machine}-v3"] = ["-march=x86-64-v3"]
    paths = [out / f"{name}.{digest()}.so" for name in targets]
    if compiler is None:
        return []
    for path in paths:
        reuse(path)
    running = [
        (path, run([compiler, *HOST_FLAGS, *flags, "-x", "c++", str(HERE / "host.cpp")], path))
        for path, flags in zip(paths, targets.values(), strict=True)
        if not path.exists()
    ]
    for path, process in running:
        finish(process, path)
    return paths


def build_cuda(out: Path, gpus: tuple[int, ...] = GPUS) -> tuple[Path | None, str]:
    """Compile for GPUs: the fat binary and what ptxas said; None without nvcc."""
    copy_sources(out)
    compiler = shutil.which("nvcc")
    if compiler is None:
        return None, ""
    path, log = out / f"cuda.{digest()}.fatbin", out / f"cuda.{digest()}.log"
    reuse(path)
    reuse(log)
    if not (path.exists() and log.exists()):
        codes = [f"-gencode=arch=compute_{gpu},code=sm_{gpu}" for gpu in gpus]
        codes.append(f"-gencode=arch=compute_{gpus[-1]},code=compute_{gpus[-1]}")
        command = [
            compiler,
            "-std=c++17",
            "-O3",
            "--fatbin",
            "--threads=0",
            "-compress-mode=size",
            "-Xptxas=-v",
            *codes,
        ]
        log.write_text(finish(run([*command, str(HERE / "all.cu")], path), path))
    return path, log.read_text()


def run(command: list[str], path: Path) -> subprocess.Popen[str]:
    """Start a compiler that writes beside `path`, so that a half-written file never has its name."""
    return subprocess.Popen(
        [*command, "-o", str(path.with_suffix(".part"))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str], path: Path) -> str:
    """Wait for a compiler; its output."""
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(map(str, process.args))}\n{output}")
    path.with_suffix(".part").replace(path)
    return output


def nvcc_release() -> str:
    """Such as 13.0."""
    return re.search(r"release ([\d.]+)", subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout)[
        1
    ]


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
    if arguments.what == "host":
        if not build_host(arguments.out):
            sys.exit("kernels/build.py: g++ must be there (got none). Hint: apt install g++")
        return
    path, log = build_cuda(arguments.out)
    if path is None:
        sys.exit("kernels/build.py: nvcc must be there (got none). Hint: install the CUDA toolkit")
    print(report(log) if arguments.what == "report" else path)


if __name__ == "__main__":
    main()
