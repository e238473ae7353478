"""The check for machines with a GPU walks through all of it on the stand-in driver, and what it compares is fair."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from check_build import build
from driver_build import build_driver, driver_environment, missing
from fieldshot.images import Preprocessing
from fieldshot.ops import Classifier, Transduction
from problems import REFERENCE, distance, problem
from test_conformance import SHAPES, TOLERANCE

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks/gpu_check.py"
QUANTITIES = {
    *("transform", "class_sums", "moment", "adapt weights", "adapt bias"),
    *("predict logits", "predict probabilities", "predict cosines", "predict best"),
    *("fit weights", "fit bias", "fit prototypes", "fit temperature", "fit known", "fit unknown", "fit held_out"),
}
Import = Callable[[str], ModuleType]

needs_driver = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("driver")
    kernels = build([ROOT / "kernels/all.cu"], ROOT / "build/check", "race")
    return {
        **driver_environment(build_driver(folder), kernels),
        "FIELDSHOT_CACHE": str(folder),
        "PYTHONPATH": str(ROOT / "tests/standin_tensorrt"),
    }


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Import:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "path", [*sys.path])  # gpu_check adds to it
    return importlib.import_module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On matrices as small as these torch's threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--quick", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@needs_driver
def test_a_walk_through_all_of_it(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, "--results", tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    figures = json.loads((tmp_path / "stand-in.json").read_text())
    assert figures["failed"] == []
    assert figures["machine"]["gpu"] == "Stand-in"
    assert {"date", "commit", "machine", "conformance", "sanitizer", "latency", "engine", "skipped"} <= set(figures)

    predict, memory = figures["stages"]["stages"]
    assert (predict["name"], memory["name"]) == ("predict", "device-memory")
    assert 0 < predict["gpu"] < predict["p99"]
    assert memory["p50"] > 0

    engine = figures["engine"]
    assert [plan["precision"] for plan in engine["plans"]] == ["float32", "float16"]
    assert all(plan["least cosine"] > 0.999 for plan in engine["plans"])
    assert [case["case"] for case in engine["cases"]] == [
        "network, batch of 1",
        "network, batch of 2",
        "recognition of a frame of 192 x 108",
    ]
    for case in engine["cases"]:
        assert sum(side["side"].startswith("fieldshot") for side in case["sides"]) == 2
        assert sum(side["side"].startswith("bare TensorRT") for side in case["sides"]) == 2

    conformance = figures["conformance"]
    assert set(conformance["errors"]) == {"cuda", "cuda, all by blocks", "host"}
    for worst in conformance["errors"].values():
        assert set(worst) == QUANTITIES
    assert conformance["pictures_agree"] == {"cuda": True, "host": True}
    assert conformance["same_bits"]
    assert conformance["threads_agree"]

    cases = figures["latency"]["cases"]
    assert len(cases) == 7
    for case in cases:
        sides = {side["side"] for side in case["sides"]}
        assert any("cuda, operations" in side for side in sides)
        assert any("host, operations" in side for side in sides)
        assert any("kernels alone" in side for side in sides)
        assert case["launches"] > 0
        assert case["floor"]["device_ms"] > 0

    for what in ("memcheck", "racecheck", "synccheck", "latencies of torch", "latencies of cupy"):
        assert any(what in line for line in figures["skipped"]), what
        assert any(what in line for line in done.stdout.splitlines() if line.startswith("skipped, not checked:")), what


@needs_driver
def test_what_does_not_conform_fails_it_with_each_array_apart_too(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(environment, "--only", "conformance", "--apart", "--tolerance", "0", "--results", tmp_path)
    assert done.returncode == 1, done.stderr[-4000:]
    figures = json.loads((tmp_path / "stand-in.conformance.json").read_text())
    assert [line.partition(":")[0] for line in figures["failed"]] == [
        f"conformance of {side}" for side in ("cuda", "cuda, all by blocks", "host")
    ]
    for worst in figures["conformance"]["errors"].values():
        assert max(quantity["error"] for quantity in worst.values()) < TOLERANCE


@needs_driver
def test_figures_of_the_stand_in_are_not_among_the_results(environment: dict[str, str]) -> None:
    done = run(environment)
    assert done.returncode == 1
    assert "must be of a GPU (got the stand-in driver's). Hint: name another folder: --results FOLDER" in done.stderr
    assert not (ROOT / "benchmarks/results/stand-in.json").exists()


@needs_driver
def test_without_a_device_it_fails(environment: dict[str, str], tmp_path: Path) -> None:
    done = run({**environment, "FIELDSHOT_STANDIN_DEVICES": "0"}, "--results", tmp_path)
    assert done.returncode == 1
    assert "nothing was checked, for there is no GPU to use" in done.stderr


def test_the_shapes_of_the_conformance_suite_are_among_its_own(benchmark_module: Import) -> None:
    conformance = benchmark_module("gpu_conformance")
    check = benchmark_module("gpu_check")
    assert conformance.SHAPES == SHAPES
    assert check.TOLERANCE == TOLERANCE


def test_reports_of_compute_sanitizer_are_understood(benchmark_module: Import) -> None:
    errors_in = benchmark_module("gpu_check").errors_in
    assert errors_in("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n") == 0
    assert errors_in("========= ERROR SUMMARY: 12 errors\n") == 12
    assert errors_in("========= RACECHECK SUMMARY: 3 hazards displayed (1 error, 2 warnings)\n") == 3
    assert errors_in("no summary") is None


@pytest.mark.parametrize(("ways", "shots", "D"), [(5, 1, 512), (5, 5, 512), (50, 10, 512), (5, 5, 1280)])
def test_torch_does_the_same_work(benchmark_module: Import, ways: int, shots: int, D: int) -> None:
    torch_ops = benchmark_module("gpu_baselines")
    given = problem([shots] * ways, D)
    Z, U = torch.from_numpy(given.Z), torch.from_numpy(given.support.U)
    member = torch.from_numpy(torch_ops.member_of(given.support))

    expected = REFERENCE.fit(given.support, given.prior)
    for name, got in zip(expected._fields, torch_ops.fit(Z, member, given.prior), strict=True):
        assert distance(got.numpy(), getattr(expected, name)) < TOLERANCE, name

    classifier = Classifier(*expected[:4])
    weights, bias = torch.from_numpy(classifier.weights), torch.from_numpy(classifier.bias)
    wanted = REFERENCE.predict(classifier, given.Z)
    logits, probabilities, best = torch_ops.predict(Z, weights, bias, classifier.temperature)
    assert distance(logits, wanted.logits) < TOLERANCE
    assert distance(probabilities, wanted.probabilities) < TOLERANCE
    np.testing.assert_array_equal(best, wanted.best)

    rule = Transduction(classifier.temperature, 0.2, 10)
    shares = wanted.probabilities[::2]
    adapted = torch_ops.adapt(U[::2], U, member, torch.from_numpy(shares).float(), given.prior, rule)
    state = (given.support.U[::2], shares, given.support, given.prior, rule)
    for got, want in zip(adapted, REFERENCE.adapt(*state), strict=True):
        assert distance(got.numpy(), want) < TOLERANCE

    weights, bias = torch_ops.adam(Z, torch.from_numpy(given.support.index).long(), ways)
    assert ((U @ weights.T + bias).argmax(1).numpy() == given.support.index).all()


def test_the_sides_that_torch_has_on_a_gpu_run_on_the_cpu(
    benchmark_module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but those that only CUDA has: graphs, and what is compiled."""
    torch_ops = benchmark_module("gpu_baselines")
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: None)
    given = problem([3] * 4, 32)
    solution = REFERENCE.fit(given.support, given.prior)
    rule = Transduction(solution.temperature, 0.2, 2)
    shares = REFERENCE.predict(Classifier(*solution[:4]), given.Z[::2]).probabilities
    state = (given.support.U[::2].copy(), shares, given.support, given.prior, rule)
    for sides in (
        torch_ops.fit_sides(given, compiled=False),
        torch_ops.predict_sides(Classifier(*solution[:4]), given.Z),
        torch_ops.adapt_sides(*state),
        torch_ops.moment_sides(given.support.U),
        torch_ops.preprocess_sides(np.zeros((2, 30, 40, 3), np.uint8), (8, 10), (0, 1, 8), "bicubic"),
    ):
        names = [name for name in sides if "graph" not in name and "compile" not in name]
        assert len(names) >= 2
        for name in names:
            sides[name]()
    for got, want in zip(
        torch_ops.adapt_sides(*state)["torch eager, from and to the host"](), REFERENCE.adapt(*state), strict=True
    ):
        assert distance(got, want) < TOLERANCE


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torch_preprocesses_as_pillow_does(benchmark_module: Import, interpolation: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), np.uint8)
    spec = Preprocessing((20, 20), interpolation=interpolation, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    to_height, to_width, top, left = spec.placed(60, 90)
    preprocess = benchmark_module("gpu_baselines").preprocess
    (got,) = preprocess(torch.from_numpy(frames), (to_height, to_width), (top, left, 20), interpolation)
    expected = np.stack([spec.apply(frame) for frame in frames])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1.01 / 127.5)  # a grey level


def test_cupy_does_the_same_work_written_as_numpy_is(benchmark_module: Import) -> None:
    given = problem([5] * 5, 512)
    classifier = Classifier(*REFERENCE.fit(given.support, given.prior)[:4])
    wanted = REFERENCE.predict(classifier, given.Z)
    array_predict = benchmark_module("gpu_latency").array_predict
    logits, probabilities, best = array_predict(np, given.Z, *classifier[:2], classifier.temperature)
    assert distance(logits, wanted.logits) < TOLERANCE
    assert distance(probabilities, wanted.probabilities) < TOLERANCE
    np.testing.assert_array_equal(best, wanted.best[:, 0])
