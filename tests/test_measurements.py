"""The scripts behind the figures of README and docs, on data small enough to try them."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from bundles import coarse, tiny_onnx, write_tiny_bundle
from fieldshot import Backbone
from fieldshot.evaluation import evaluate

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return import_module(name)

    yield load
    for name in ("accuracy", "int8", "large_fit", "scale", "views", "robustness"):
        sys.modules.pop(name, None)


def drawn(seed: int, dim: int = 16, classes: int = 6, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), count)
    return np.maximum(rng.gamma(2.0, size=(classes, dim))[y] + rng.normal(size=(len(y), dim)), 0).astype(np.float32), y


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_samples(script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = script("scale")
    for name, value in {"SAMPLES": 3000, "DIM": 16, "CLASSES": 4, "CHUNK": 1000}.items():
        monkeypatch.setattr(scale, name, value)
    text = "\n".join(scale.million(tmp_path, rounds=2))
    assert "3,000 drawn embeddings, 16 dimensions, 4 classes" in text
    Z = np.load(tmp_path / "million.npy")
    np.testing.assert_allclose(scale.blas(tmp_path / "million.npy"), Z.T @ Z, rtol=1e-4)
    apart = float(text.split("probabilities within ")[1].split()[0])
    assert apart < 1e-4


def test_a_large_fit_step_by_step(script, monkeypatch: pytest.MonkeyPatch) -> None:
    large_fit = script("large_fit")
    for name, value in {"ROUNDS": 2, "WAYS": 3, "SAMPLES": 150, "DIM": 160}.items():
        monkeypatch.setattr(large_fit, name, value)
    head, _, *lines = large_fit.table()
    builds = len(large_fit.libraries()[-2:])
    assert head.count("|") == 3 + builds
    *steps, whole = ([float(cell.strip() or 0) for cell in line.split("|")[2:-1]] for line in lines)
    assert all(step[1] > 0 for step in steps[1:4])  # the kernels of a fit by blocks, and no others, take time
    for side in range(1, 1 + builds):
        assert sum(step[side] for step in steps) == pytest.approx(whole[side], abs=0.5)


def test_distorted_drawings_differ_by_their_number_alone(script) -> None:
    picture = Image.fromarray(np.pad(np.zeros((20, 4), np.uint8), 40, constant_values=255))
    file = io.BytesIO()
    picture.save(file, "PNG")
    distorted = script("scale").distorted
    one, again, other = (np.asarray(distorted((file.getvalue(), number))) for number in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert one.shape == (100, 84, 3)
    assert one.min() < 60  # the stroke is still there


def test_samples_as_they_should_not_be(script) -> None:
    robustness = script("robustness")
    Z, y = drawn(0)
    random = np.random.default_rng(0)
    assert np.mean(robustness.wrong(0.1)(Z, y, random)[1] != y) == pytest.approx(0.1)
    assert np.bincount(robustness.rare(Z, y, random)[1]).tolist() == [1, 1, 40, 40, 40, 40]
    assert np.bincount(robustness.twice(Z, y, random)[1]).tolist() == [400, 40, 40, 40, 40, 40]
    rows = {
        name: evaluate(
            Z,
            y,
            ways=5,
            shots=shots,
            episodes=2,
            methods={m: lambda m=m, change=change: robustness.Changed(m, change) for m in robustness.METHODS},
        )
        for name, (shots, change) in robustness.CHANGES.items()
    }
    lines = robustness.document(rows, 2).splitlines()
    figures = {line.split("|")[1].strip(): line.split("|")[2] for line in lines if line.startswith("| ")}
    assert set(robustness.CHANGES) <= set(figures)
    assert figures["samples scaled by 1e-4 to 1e4"] == figures["20 shots as they are"]


def test_gains_of_views(script) -> None:
    views = script("views")
    rows = []
    for number, spread in ((1, 1.0), (2, 1.0), (3, 0.0)):
        Z, y = drawn(1)
        Z += spread * np.random.default_rng(2).normal(size=Z.shape).astype(np.float32)
        rows += evaluate(Z, y, ways=5, shots=[1, 5], episodes=20, name=f"drawn / network / {number}")
    text = views.document(rows, 20)
    gains = {line.split("|")[1].strip(): line.split("|")[2] for line in text.splitlines() if line.startswith("| ")}
    assert gains["2"].split() == ["+0.00", "+-", "0.00"]
    assert float(gains["3"].split()[0]) > 1


def test_what_int8_loses(script) -> None:
    int8 = script("int8")
    rows = []
    for form, spread in (("float32", 0.0), (int8.PROCEDURAL, 0.0), (int8.OWN, 0.5), (int8.STANDING, 5.0)):
        Z, y = drawn(1)
        Z += spread * np.random.default_rng(2).normal(size=Z.shape).astype(np.float32)
        rows += evaluate(Z, y, ways=5, shots=[5], episodes=20, name=f"network / drawn / {form}")
    *_, row, _, last = int8.document(rows, 20)
    lost = [float(cell.split("±")[0]) for cell in row.strip("|").split("|")[3:]]
    assert lost[0] == 0 < lost[2]
    assert f"procedural +0.00, at most +0.00; own pictures {lost[1]:+.2f}" in last


def test_int8_as_it_stands_is_a_bundle_of_its_own(script, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "a.fieldshot", others={"backbone.int8.onnx": coarse(tiny_onnx())})
    standing = Backbone.load(script("int8").standing(bundle, tmp_path / "b.fieldshot"))
    pictures = [np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)]
    np.testing.assert_array_equal(standing.embed(pictures), Backbone.load(bundle, precision="int8").embed(pictures))
    assert standing.contract != Backbone.load(bundle, precision="int8").contract
