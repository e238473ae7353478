"""A process from its start to its first recognition, beside a bare one; its memory, and what lies on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fieldshot
from fieldshot import Backbone, Recognizer
from turns import Compare

PACKAGE = Path(fieldshot.__file__).parent

OURS = """
from fieldshot import Recognizer
from fieldshot.device import held_bytes
with Recognizer.open(sys.argv[1]) as recognizer:
    assert recognizer.recognize(sys.argv[2]).scores
on_device = held_bytes()
"""

BARE = """
import numpy as np, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1])
with Image.open(sys.argv[2]) as image:
    pixels = np.asarray(image.convert("RGB").resize((96, 96), Image.Resampling.BILINEAR))
session.run(None, {"input": pixels.transpose(2, 0, 1)[np.newaxis] / np.float32(127.5) - np.float32(1)})
on_device = 0
"""

BEFORE = "import json, os, sys, time"
AFTER = """
resident = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
print(json.dumps([1e3 * time.process_time(), resident / 1e6, on_device / 1e6]))
"""


def bench_cold(
    benchmark: Any,
    compare: Compare,
    weigh: Any,
    backbone: Backbone,
    photographs: dict[int, Path],
    tmp_path: Path,
) -> None:
    """Under two seconds of processor time, 200 MB of memory, and 10 MB on the disk."""
    network = tmp_path / "backbone.onnx"
    network.write_bytes(backbone.bundle.read("backbone.onnx"))
    with Recognizer.create(tmp_path / "a.gallery", backbone) as recognizer:
        random = np.random.default_rng(0)
        recognizer.enroll_many({str(label): [*random.integers(0, 256, (5, 64, 64, 3), np.uint8)] for label in range(5)})
    told: dict[str, list[tuple[float, float, float]]] = {OURS: [], BARE: []}

    def process(program: str, path: Path) -> None:
        command = [sys.executable, "-c", BEFORE + program + AFTER, str(path), str(photographs[640])]
        told[program].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))

    compare(8, ours=lambda: process(OURS, tmp_path / "a.gallery"), bare=lambda: process(BARE, network))
    benchmark.pedantic(process, (OURS, tmp_path / "a.gallery"))
    cpu_ms, memory, on_device = map(median, zip(*told[OURS], strict=True))
    weigh("memory", ours=memory, bare=median(held for _, held, _ in told[BARE]), ours_on_device=on_device)
    benchmark.extra_info["cpu_ms"] = cpu_ms
    sizes = {path: path.stat().st_size / 1e6 for path in PACKAGE.rglob("*.*") if path.suffix != ".pyc"}
    bundle = sizes[PACKAGE / "backbone/default.fieldshot"]
    kernels = sum(size for path, size in sizes.items() if path.parent == PACKAGE / "kernels" and path.suffix == ".so")
    weigh("on the disk", package=sum(sizes.values()), bundle=bundle, kernels_of_the_cpu=kernels)
    assert cpu_ms < 2000
    assert memory < 200
    assert bundle < 10
