"""The int8 network as a CPU runs it: the same bytes but for zero points and scales of activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundles import tiny_onnx, write_tiny_bundle
from fieldshot import Backbone
from fieldshot.backbone.int8 import RECTIFIED, SIGNED, for_cpu
from fieldshot.errors import BundleError


def rounded_onnx(**constants: np.ndarray) -> bytes:
    """One convolution of signed values, its ReLU rounded: in steps of 1/16 up to 127/16."""
    values = {
        "w": np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "step": np.float32(1 / 16),
        "step:rectified": np.float32(1 / 16),
        SIGNED: np.int8(0),
        RECTIFIED: np.int8(0),
        **constants,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "step", SIGNED], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "step", SIGNED], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "step:rectified", RECTIFIED], ["e"]),
        helper.make_node("DequantizeLinear", ["e", "step:rectified", RECTIFIED], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "rounded",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 4, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def run(network: bytes, pictures: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    return session.run(["embedding"], {"input": pictures})[0]


def test_signed_values_stay_and_rectified_ones_have_the_whole_range() -> None:
    network = rounded_onnx()
    served = for_cpu(network)
    assert len(served) == len(network)
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(served).graph.initializer}
    assert (constants[SIGNED], constants[SIGNED].dtype) == (128, np.uint8)
    assert (constants[RECTIFIED], constants[RECTIFIED].dtype) == (0, np.uint8)
    assert constants["step"] == np.float32(1 / 16)
    assert constants["step:rectified"] == pytest.approx(1 / 16 * 127 / 255)
    pictures = np.random.default_rng(1).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)
    exact, half, full = (
        run(n, pictures) for n in (rounded_onnx(**{"step:rectified": np.float32(1e-6)}), network, served)
    )
    assert exact.shape == full.shape
    assert 0 < np.abs(half - full).max() <= 1 / 32 + 1 / 64
    loud = 100 * pictures
    assert run(network, loud).max() == pytest.approx(run(served, loud).max()) == pytest.approx(127 / 16)


def test_other_networks_stay_as_they_are() -> None:
    assert for_cpu(tiny_onnx()) == tiny_onnx()


def test_what_is_no_onnx_file() -> None:
    network = rounded_onnx()
    for junk in (b"no onnx", network[:-20], network[: len(network) // 2], b"\xff" * 12):
        with pytest.raises(ValueError, match="must be whole"):
            for_cpu(junk)
    with pytest.raises(ValueError, match="step:rectified must be one number"):
        for_cpu(rounded_onnx(**{"step:rectified": np.full(4, 1 / 16, np.float32)}))
    bare = onnx.load_from_string(network)
    (zero,) = (tensor for tensor in bare.graph.initializer if tensor.name == SIGNED)
    zero.CopyFrom(helper.make_tensor(SIGNED, TensorProto.INT8, (), [0]))
    with pytest.raises(ValueError, match=r"zero_point\.signed must be one number, in raw data"):
        for_cpu(bare.SerializeToString())


def test_an_old_onnxruntime_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tiny_bundle(tmp_path / "both.fieldshot", others={"backbone.int8.onnx": tiny_onnx()})
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    Backbone.load(path, precision="int8")
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    Backbone.load(path)
    assert not caplog.records
    Backbone.load(path, precision="int8")
    assert "int8 may be slower than float32 with onnxruntime 1.22.1" in caplog.text


def test_a_bundle_whose_int8_is_damaged_says_so(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "junk.fieldshot", others={"backbone.int8.onnx": b"no onnx"})
    with pytest.raises(BundleError, match=r"junk\.fieldshot: backbone\.int8\.onnx must load in ONNX Runtime"):
        Backbone.load(path, precision="int8")
