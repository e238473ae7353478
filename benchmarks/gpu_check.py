"""What only a GPU can tell: python3 benchmarks/gpu_check.py [--results FOLDER] [--quick] [--only PART].

conformance   the CUDA operations against the float64 reference, bits that stay, two threads at once
sanitizer     the same, small, under compute-sanitizer's memcheck, racecheck and synccheck
latency       fit, predict, adapt and the second moment beside the CPU, torch and CuPy, with the floor of each
engine        TensorRT plans and their parity, batches and a whole recognition beside the bare plan, ONNX Runtime, torch
stages        what `fieldshot bench` times: on the wall, on the processor and on the device

It needs NumPy and PyCUDA; torch and CuPy are compared with where they are there. Everything goes to
<results>/<name of the GPU>.json. The exit code is 1 if anything failed; what could not be checked is listed at the end.
Nothing is set on the card.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
PARTS = ("conformance", "sanitizer", "latency", "engine", "stages")
TOLERANCE = 2e-5  # as in tests/kernels/test_conformance.py
SANITIZER_S = 170  # of each tool
CLOCKS = "name,driver_version,pstate,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.draw,power.limit"

sys.path[:0] = [str(ROOT / folder) for folder in ("sdk", "export", "kernels", "tests/kernels")]


class Results:
    """Figures, and what was skipped and what failed, each with its reason."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def skip(self, what: str, reason: str) -> None:
        self.skipped.append(f"{what}: {reason}")

    def fail(self, what: str, reason: str) -> None:
        print(f"FAILED {what}: {reason}")
        self.failed.append(f"{what}: {reason}")

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """One failure does not stop the rest."""
        print(f"\n## {title}\n", flush=True)
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.fail(title, repr(error))

    def table(self, head: list[str], rows: list[list[Any]]) -> None:
        for row in [head, ["---"] * len(head), *rows]:
            print(f"| {' | '.join(map(str, row))} |")

    def write(self, path: Path) -> None:
        """After each part: what was measured is kept whatever comes after it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.figures, "skipped": self.skipped, "failed": self.failed}, indent=1)
        path.write_text(text + "\n")


def output_of(*command: str) -> str | None:
    """What a command prints; None where it is not there or fails."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def tool(name: str) -> str | None:
    """Path of a program of the CUDA toolkit."""
    return shutil.which(name) or shutil.which(f"/usr/local/cuda/bin/{name}")


def version_of(*packages: str) -> str | None:
    """Version of the first of these packages that is installed."""
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def describe(results: Results) -> None:
    """Build what is missing, and say what runs where."""
    import build as kernels  # kernels/build.py

    try:
        kernels.build_host(kernels.PACKAGE)  # and puts the sources where fieldshot looks for them
    except kernels.CompileError as error:
        results.fail("build of the host operations", str(error))
    from fieldshot.errors import FieldshotError
    from fieldshot.ops import sources
    from fieldshot.ops.cuda import CudaOps

    try:
        device = CudaOps().runner.device
    except FieldshotError as error:
        sys.exit(f"make gpu-check: nothing was checked, for there is no GPU to use: {error}")
    image = sources.built("cuda", "fatbin")
    used = f"built by this machine's nvcc: no {image.name}"
    if image.is_file():
        with device.current():
            try:
                device.cuda.module_from_buffer(image.read_bytes())
                used = image.name
            except device.cuda.Error as error:
                used = f"built by this machine's nvcc: {image.name} does not load ({error})"
    nvcc = tool("nvcc")
    smi = output_of("nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv,noheader")
    if smi is None:
        results.skip("clocks and power", "nvidia-smi gives none")
    results.figures["machine"] = {
        "gpu": device.name,
        "compute capability": ".".join(map(str, device.capability)),
        "multiprocessors": device.multiprocessors,
        "memory bytes": device.memory_bytes,
        "driver supports CUDA": ".".join(map(str, device.driver)),
        "nvidia-smi": smi and dict(zip(CLOCKS.split(","), smi.split("\n")[0].split(", "), strict=True)),
        "nvcc": nvcc and (output_of(nvcc, "--version") or "").split("\n")[-1],
        "kernels": used,
        "kernel sources": sources.digest(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "pycuda": version_of("pycuda") or "installed without metadata",
        "torch": version_of("torch"),
        "tensorrt": version_of("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx"),
        "onnxruntime": version_of("onnxruntime-gpu", "onnxruntime"),
        "cupy": version_of("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    }
    results.table(["what", "is"], [[name, value] for name, value in results.figures["machine"].items()])


def sanitize(results: Results) -> None:
    """Run the quick conformance in a process of its own under each tool."""
    program = tool("compute-sanitizer")
    figures = results.figures["sanitizer"] = {}
    for name in ("memcheck", "racecheck", "synccheck"):
        if program is None:
            results.skip(f"compute-sanitizer {name}", "there is no compute-sanitizer")
            continue
        with results.part(f"compute-sanitizer {name}"), tempfile.TemporaryDirectory() as folder:
            check = [sys.executable, __file__, "--quick", "--apart", "--only", "conformance", "--results", folder]
            try:
                done = subprocess.run(
                    [program, "--tool", name, *check], capture_output=True, text=True, timeout=SANITIZER_S
                )
            except subprocess.TimeoutExpired:
                results.fail(f"compute-sanitizer {name}", f"not done after {SANITIZER_S} s")
                continue
            output = done.stdout + done.stderr
            if "Device not supported" in output:
                results.skip(f"compute-sanitizer {name}", "it does not support this device or its runtime")
                continue
            found = errors_in(output)
            figures[name] = {"errors": found, "exit_code": done.returncode}
            print(f"{name}: {found} errors, exit code {done.returncode}")
            if found or found is None or done.returncode:
                print(output[-6000:])
                results.fail(f"compute-sanitizer {name}", f"errors: {found}, exit code {done.returncode}")


def time_stages(results: Results, *, quick: bool) -> None:
    """Stages in fresh processes, as users time them."""
    from fieldshot import bench

    found = bench.run(suite="predict,device-memory" if quick else "full", rounds=1 if quick else 5)
    rows = [stage.summary() for stage in found.stages]
    results.figures["stages"] = {"facts": found.facts, "absent": found.absent, "stages": rows}
    columns = ["name", "unit", "p50", "p95", "p99", "cpu", "gpu"]
    cells = [[f"{row[of]:.4f}" if isinstance(row[of], float) else row[of] for of in columns] for row in rows]
    results.table(columns, cells)
    for name, reason in found.absent.items():
        results.skip(f"stage {name}", reason)


def errors_in(output: str) -> int | None:
    """Errors and hazards that compute-sanitizer counted; None where it gives no summary."""
    counts = re.findall(r"(?:ERROR SUMMARY: |RACECHECK SUMMARY: )(\d+)", output)
    return sum(map(int, counts)) if counts else None


def target(arguments: argparse.Namespace, gpu: str) -> Path:
    """Where the figures go."""
    if gpu == "Stand-in" and arguments.results.resolve() == RESULTS:
        sys.exit(
            "gpu_check: figures in benchmarks/results must be of a GPU (got the stand-in driver's). "
            "Hint: name another folder: --results FOLDER"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return arguments.results / ".".join(filter(None, [slug, arguments.only, "json"]))


def main() -> int:
    """Check what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--quick", action="store_true", help="a walk through everything, small")
    parser.add_argument("--only", choices=PARTS, help="one part, into a file of its own")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="error that conforms")
    parser.add_argument("--apart", action="store_true", help="an allocation for each array, as memcheck wants it")
    arguments = parser.parse_args()
    results = Results()
    results.figures = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output_of("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "quick": arguments.quick,
    }
    with results.part("what runs"):
        describe(results)
    if "machine" not in results.figures:
        return finish(results)
    path = target(arguments, results.figures["machine"]["gpu"])
    for part in PARTS:
        if arguments.only not in {None, part}:
            continue
        with results.part(part):
            if part == "conformance":
                import gpu_conformance

                gpu_conformance.check(
                    results, quick=arguments.quick, tolerance=arguments.tolerance, apart=arguments.apart
                )
            elif part == "sanitizer":
                sanitize(results)
            elif part == "latency":
                import gpu_latency

                gpu_latency.check(results, quick=arguments.quick)
            elif part == "engine":
                import gpu_engine

                gpu_engine.check(results, quick=arguments.quick)
            else:
                time_stages(results, quick=arguments.quick)
        results.write(path)
    print(f"\nfigures: {path}")
    return finish(results)


def finish(results: Results) -> int:
    """Say what was not checked and what failed; the exit code."""
    print()
    for line in results.skipped:
        print(f"skipped, not checked: {line}")
    for line in results.failed:
        print(f"failed: {line}")
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
