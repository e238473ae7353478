"""Networks in every precision become TensorRT plans, built by the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from fieldshot import Backbone
from fieldshot.backbone import Bundle
from fieldshot_export import batch, float16, int8, onnx_source
from fieldshot_export.report import Report

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")

from fieldshot.backbone.tensorrt.building import build

PRECISIONS = ("float32", "float16", "int8")


def planned(model: onnx.ModelProto, size: tuple[int, int], precision: str) -> int:
    """Bytes of the plan of a float32 network in a precision."""
    pictures = batch.noise(4, size)
    made = {"float32": lambda: model, "float16": lambda: float16.convert(model, pictures)}
    made["int8"] = lambda: int8.convert(model, pictures)
    return len(build(made[precision]().SerializeToString(), 16))


def of(bundle: Bundle) -> tuple[onnx.ModelProto, tuple[int, int]]:
    return onnx.load_from_string(bundle.read(bundle.network("float32"))), bundle.preprocessing.size


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", ["residual", "transformer"])
def test_networks_of_torch(network: str, precision: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(network)
    assert planned(*of(Bundle.open(report.path)), precision) > 1000


def test_the_embedded_backbone() -> None:
    bundle = Backbone.default(engine="onnxruntime").bundle
    sizes = {precision: planned(*of(bundle), precision) for precision in PRECISIONS}
    whole = len(bundle.read("backbone.onnx"))
    assert 0.8 * whole < sizes["float32"] < 1.6 * whole
    assert sizes["float16"] < 0.65 * sizes["float32"]  # half the weights
    assert sizes["int8"] > 0.2 * whole


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "side"), [("mobilenet_v1_0.5_160", 160), ("mobilenet_v2_1.0_224", 224)])
def test_networks_of_others(shared: Path, name: str, side: int, precision: str) -> None:
    source = onnx_source.load(shared / f"models/{name}.onnx", (side, side))
    assert planned(source.model, (side, side), precision) > 5e5
