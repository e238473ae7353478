"""The int8 copy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from fieldshot.backbone import Backbone, Bundle
from fieldshot.backbone.int8 import for_cpu
from fieldshot.errors import ExportError, MissingFileError
from fieldshot_export import batch, export, int8
from fieldshot_export.parity import TOLERANCES, Parity, compare
from fieldshot_export.source import open_session
from networks import CONVOLUTIONS, element_types, network, run, weights

PICTURES = batch.noise(16, (32, 32))
STATED = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
FOLDED = CONVOLUTIONS.replace("normed = BatchNormalization (conv, scale, shift, mean, variance)", "").replace(
    "Relu (normed)", "Relu (conv)"
)
RESIDUAL = """
    conv = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (input, w1, b1)
    stem = Relu (conv)
    branch = Conv <pads = [1, 1, 1, 1]> (stem, v1, c1)
    active = Clip (branch, nought, six)
    linear = Conv <pads = [1, 1, 1, 1]> (active, v2, c2)
    sum = Add (stem, linear)
    map = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (sum, w2, b2)
    last = Relu (map)
    pooled = GlobalAveragePool (last)
    embedding = Flatten (pooled)
"""


def residual(least: float = 0.0, *, opset: int = 17) -> onnx.ModelProto:
    """A residual network; `least` is where the activation of its branch is cut off."""
    rng = np.random.default_rng(1)
    branch = {"v1": rng.normal(0, 0.2, (8, 8, 3, 3)), "v2": rng.normal(0, 0.2, (8, 8, 3, 3))}
    biases = {"c1": rng.normal(0, 0.1, 8), "c2": rng.normal(0, 0.1, 8)}
    limits = {"nought": np.array(least), "six": np.array(6.0)}
    return network(RESIDUAL, constants={**weights(), **branch, **biases, **limits}, opset=opset)


def embed(model: onnx.ModelProto | bytes, pictures: np.ndarray = PICTURES) -> np.ndarray:
    return open_session(model, optimise=False).run(["embedding"], {"input": pictures})[0]


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def makers_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def test_layers_and_sums_take_int8_and_the_first_takes_the_picture() -> None:
    model = residual()
    before = model.SerializeToString()
    quantised = int8.convert(model, PICTURES)
    assert model.SerializeToString() == before
    makers = makers_of(quantised)
    taken = {
        node.output[0]: [makers[name].op_type for name in node.input if name in makers]
        for node in quantised.graph.node
        if node.op_type in ("Conv", "Add", "GlobalAveragePool")
    }
    pair = ["DequantizeLinear"] * 2
    assert taken == {"conv": [], "branch": pair, "linear": pair, "sum": pair, "map": pair, "pooled": pair[:1]}
    for value in (quantised.graph.input[0], quantised.graph.output[0]):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    parity = compare(embed(model), embed(quantised))
    assert parity.cosine > 0.999
    assert 0 < parity.max_abs < 0.03


def test_what_tensorrt_takes() -> None:
    """Zero points of 0 in int8, weights per channel, biases in float32, no rounding between a layer and its ReLU."""
    quantised = int8.convert(residual(), PICTURES)
    constants, makers = constants_of(quantised), makers_of(quantised)
    for node in quantised.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            assert constants[node.input[0]].dtype == np.int8
            assert constants[node.input[1]].shape == constants[node.input[0]].shape[:1]
        if node.op_type == "Conv":
            assert constants[node.input[2]].dtype == np.float32
        if node.op_type in ("Relu", "Clip"):
            assert makers[node.input[0]].op_type == "Conv"


def test_what_a_relu_made_is_told_from_the_rest() -> None:
    def rectified(model: onnx.ModelProto) -> dict[str, bool]:
        quantised = int8.convert(model, PICTURES)
        pairs = [node for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
        for node in pairs:
            assert node.input[1].endswith(":rectified") == (node.input[2] == "zero_point.rectified")
            assert node.input[2] in ("zero_point.rectified", "zero_point.signed")
        return {node.input[0]: node.input[2] == "zero_point.rectified" for node in pairs}

    assert rectified(residual()) == {"stem": True, "active": True, "linear": False, "sum": False, "last": True}
    assert not rectified(residual(-1.0))["active"]


def test_biases_take_back_the_mean_error() -> None:
    """With the weights so coarse that a channel's mean moves: one large weight takes the range of all others."""
    constants = weights()
    constants["w2"][:, 0, 0, 0] = 20.0
    model = network(FOLDED, constants=constants)
    quantised = int8.convert(model, PICTURES)

    def error(of: onnx.ModelProto) -> np.ndarray:
        of = onnx.ModelProto.FromString(of.SerializeToString())
        of.graph.output.append(onnx.helper.make_tensor_value_info("map", TensorProto.FLOAT, None))
        return open_session(of, optimise=False).run(["map"], {"input": PICTURES})[0].mean(axis=(0, 2, 3))

    corrected = np.abs(error(quantised) - error(model)).max()
    (layer,) = (node for node in quantised.graph.node if node.output[0] == "map")
    (bias,) = (tensor for tensor in quantised.graph.initializer if tensor.name == layer.input[2])
    bias.CopyFrom(numpy_helper.from_array(constants["b2"].astype(np.float32), bias.name))
    plain = np.abs(error(quantised) - error(model)).max()
    assert corrected < 0.02 * plain


def test_layers_that_share_a_bias_or_have_none() -> None:
    shared = residual()
    by_name = {node.output[0]: node for node in shared.graph.node}
    by_name["linear"].input[2] = "c1"
    del by_name["map"].input[2]
    quantised = int8.convert(shared, PICTURES)
    layers = {node.output[0]: node for node in quantised.graph.node if node.op_type == "Conv"}
    assert len({layers[name].input[2] for name in ("conv", "branch", "linear", "map")}) == 4
    parity = compare(embed(shared), embed(quantised))
    assert parity.cosine > 0.999
    assert "c1" not in constants_of(quantised)


def test_equal_pictures_give_equal_bytes() -> None:
    first, second = (int8.convert(residual(), PICTURES).SerializeToString() for _ in range(2))
    assert first == second
    assert int8.convert(residual(), PICTURES[:8]).SerializeToString() != first


@pytest.mark.parametrize("model", [residual(), network(FOLDED)])
def test_on_a_cpu_every_layer_behind_the_first_runs_in_int8(model: onnx.ModelProto, tmp_path: Path) -> None:
    quantised = int8.convert(model, PICTURES).SerializeToString()
    served = for_cpu(quantised)
    assert len(served) == len(quantised)
    onnx.checker.check_model(onnx.load_from_string(served), full_check=True)
    assert compare(embed(model), embed(served)).cosine > compare(embed(model), embed(quantised)).cosine - 1e-4
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(served, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert kinds["QLinearConv"] == convolutions - 1
    assert kinds["Conv"] + kinds["FusedConv"] == 1
    assert not {"Relu", "Clip"} & kinds.keys()


def test_the_same_in_another_implementation() -> None:
    quantised = int8.convert(residual(opset=21), PICTURES)
    for form in (quantised, onnx.load_from_string(for_cpu(quantised.SerializeToString()))):
        np.testing.assert_allclose(embed(form), run(form, {"input": PICTURES}, "embedding"), atol=0.02)


def test_a_transformer_rounds_what_its_constant_weights_take() -> None:
    body = """
        map = Conv <strides = [8, 8]> (input, w, b)
        tokens = Flatten (map)
        mean = ReduceMean <axes = [1]> (tokens)
        centred = Sub (tokens, mean)
        hidden = MatMul (centred, v)
        wide = Add (hidden, c)
        alike = Softmax (wide)
        both = Mul (alike, wide)
        embedding = Gemm (both, u, d)
    """
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 8, 8), "b": 4, "v": (64, 24), "c": 24, "u": (24, 16), "d": 16}
    model = network(body, constants={name: rng.normal(0, 0.1, shape) for name, shape in shapes.items()})
    quantised = int8.convert(model, PICTURES)
    makers = makers_of(quantised)
    for kind in ("MatMul", "Gemm"):
        (node,) = (node for node in quantised.graph.node if node.op_type == kind)
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
    assert element_types(quantised)["alike"] == TensorProto.FLOAT
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node) == 2
    assert compare(embed(model), embed(quantised)).cosine > 0.998


# --- through the exporter


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(residual(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_a_bundle_with_int8(net: Path, photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "net.fieldshot"
    report = export(
        out, onnx=net, int8=True, calibrate=photos, progress=lambda what, seconds: said.append(what), **STATED
    )
    assert any("int8: calibrated on 12 pictures; lowest cosine 0.99" in line for line in said)
    bundle = Bundle.open(out)
    assert bundle.precisions == ("float32", "float16", "int8")
    assert bundle.manifest["verify"]["int8"] == report.parity["int8"].bounds("int8")
    pictures, expected = bundle.verification()
    served = Backbone.load(out, precision="int8")
    assert served.contract != Backbone.load(out).contract
    got = compare(expected, served.embed(pictures))
    assert got.cosine == pytest.approx(report.parity["int8"].cosine, abs=1e-3)
    procedural = export(tmp_path / "other.fieldshot", onnx=net, int8=True, **STATED)
    other = Bundle.open(procedural.path)
    assert other.contract() == bundle.contract()
    assert other.contract("int8") != bundle.contract("int8")


def test_bounds_are_twice_the_cost_but_no_closer_than_float16() -> None:
    assert Parity(0.98, 0.1).bounds("int8") == {"cosine": 0.96, "max_abs": 0.2}
    assert Parity(0.99999, 0.001).bounds("int8") == TOLERANCES["float16"]
    assert Parity(0.98, 0.1).bounds("float32") == TOLERANCES["float32"]


def test_too_few_pictures_to_calibrate_on(net: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.fieldshot"
    with pytest.raises(MissingFileError, match=r"none\)\. Hint: check --calibrate"):
        export(out, onnx=net, int8=True, calibrate=tmp_path / "none", **STATED)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"at least 8 pictures .*\(got 0 of 0\)\. Hint: 64 pictures"):
        export(out, onnx=net, int8=True, calibrate=tmp_path / "empty", **STATED)
    for number in range(5):
        (photos / f"a/{number * 2}.png").write_text("no picture")
    with pytest.raises(ExportError, match=r"at least 8 pictures that can be read \(got 7 of 12\)"):
        export(out, onnx=net, int8=True, calibrate=photos, **STATED)
    with pytest.raises(ExportError, match=r"at least 8 .*\(got 6 of 6\)"):
        export(out, onnx=net, int8=True, pictures=photos / "b", **STATED)
    with pytest.raises(ExportError, match="calibrate must go with int8"):
        export(out, onnx=net, calibrate=photos, **STATED)
    assert not out.exists()


def test_nothing_to_quantise(tmp_path: Path) -> None:
    body = """
        map = Conv <strides = [2, 2]> (input, w1, b1)
        pooled = GlobalAveragePool (map)
        embedding = Flatten (pooled)
    """
    onnx.save(network(body, outputs="float[N, 8] embedding"), tmp_path / "thin.onnx")
    with pytest.raises(ExportError, match=r"layers behind the first that int8 can compute .*Hint: leave out --int8"):
        export(tmp_path / "thin.fieldshot", onnx=tmp_path / "thin.onnx", int8=True, **STATED)
    assert not (tmp_path / "thin.fieldshot").exists()


def test_int8_that_loses_too_much_is_refused(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOLERANCES, "int8", {"cosine": 0.9999999, "max_abs": 0.5})
    with pytest.raises(ExportError, match=r"exported int8 network must agree .*Hint: calibrate on more .*leave out"):
        export(tmp_path / "net.fieldshot", onnx=net, int8=True, **STATED)
    assert not (tmp_path / "net.fieldshot").exists()


def test_a_network_that_the_quantiser_fails_on_is_refused(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck\nand more")

    monkeypatch.setattr(int8, "quantize_static", fail)
    with pytest.raises(ExportError, match=r"one that int8 is for \(got: no such luck\)\. Hint: leave out --int8"):
        export(tmp_path / "net.fieldshot", onnx=net, int8=True, **STATED)
