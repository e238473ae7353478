"""The float16 copy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, shape_inference

from fieldshot_export import batch, emulation, float16
from fieldshot_export.parity import compare
from fieldshot_export.source import open_session
from networks import CONVOLUTIONS, network, node_types, run, weights

PICTURES = batch.noise(3, (32, 32))


def embed(model: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    return open_session(model, optimise=False).run(["embedding"], {"input": pictures})[0]


def test_arithmetic_in_float16_norms_and_pooling_in_float32() -> None:
    model = network(CONVOLUTIONS.replace("Relu (map)", "Softmax <axis = 1> (map)"))
    before = model.SerializeToString()
    half = float16.convert(model, PICTURES)
    assert model.SerializeToString() == before
    kinds = node_types(half)
    assert kinds["Conv"] == kinds["Relu"] == {TensorProto.FLOAT16}
    for kept in ("BatchNormalization", "Softmax", "GlobalAveragePool", "Flatten"):
        assert kinds[kept] == {TensorProto.FLOAT}
    for value in (half.graph.input[0], half.graph.output[0]):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert {t.data_type for t in half.graph.initializer if t.name.startswith(("w", "b"))} == {TensorProto.FLOAT16}
    parity = compare(embed(model, PICTURES), embed(emulation.spell_out(half), PICTURES))
    assert parity.cosine > 0.99999
    assert 0 < parity.max_abs < 1e-2


def test_no_value_is_rounded_between_two_nodes_in_float32() -> None:
    half = float16.convert(network(CONVOLUTIONS.replace("Relu (map)", "Softmax <axis = 1> (map)")), PICTURES)
    makers = {name: node for node in half.graph.node for name in node.output}
    for node in half.graph.node:
        if node.op_type == "Cast" and node.input[0] in makers:
            assert makers[node.input[0]].op_type != "Cast"
    assert makers["embedding"].op_type == "Flatten"


def test_half_the_size() -> None:
    assert float16.convert(network(), PICTURES).ByteSize() < 0.8 * network().ByteSize()


def test_what_onnx_has_in_float32_only_stays() -> None:
    body = """
        map = Conv <strides = [2, 2]> (input, w1, b1)
        scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
        enlarged = Resize <mode = "nearest"> (map, , scales)
        size = Shape (enlarged)
        same = Reshape (enlarged, size)
        sum = Add (same, three)
        pooled = GlobalAveragePool (sum)
        embedding = Flatten (pooled)
    """
    constants = {**weights(), "three": np.array(3.0)}
    model = network(body, outputs="float[N, 8] embedding", constants=constants)
    half = float16.convert(model, PICTURES)
    kinds = node_types(half)
    assert kinds["Resize"] == {TensorProto.FLOAT, TensorProto.FLOAT16}  # the scales are float32
    assert kinds["Reshape"] == kinds["Shape"] == kinds["Add"] == {TensorProto.FLOAT16}
    expected = embed(model, PICTURES)
    assert compare(expected, embed(emulation.spell_out(half), PICTURES)).within("float16")


def loud(gain: float) -> onnx.ModelProto:
    """A network whose values between two layers are `gain` times as large as needed, but for that the same."""
    body = CONVOLUTIONS.replace("(relu, w2, b2)", "(softer, w2, b2)").replace(
        "map =", "louder = Mul (relu, up) softer = Mul (louder, down) map ="
    )
    constants = {**weights(), "up": np.array(gain), "down": np.array(1 / gain)}
    return shape_inference.infer_shapes(network(body, constants=constants))


def test_values_beyond_the_range_stay_in_float32() -> None:
    quiet, large = float16.convert(loud(2.0), PICTURES), float16.convert(loud(6e4), PICTURES)
    assert node_types(quiet)["Mul"] == {TensorProto.FLOAT16}
    assert node_types(large)["Mul"] == {TensorProto.FLOAT}
    assert node_types(large)["Conv"] == {TensorProto.FLOAT16}
    expected = run(network(), {"input": PICTURES}, "embedding")
    for half in (quiet, large):
        assert compare(expected, embed(emulation.spell_out(half), PICTURES)).within("float16")


def test_the_emulation_rounds_and_overflows_as_float16_does() -> None:
    """Against ONNX's reference implementation, whose arithmetic is NumPy's float16."""
    louder = "Mul (map, gain) softer = Mul (active, inverse) wide = Cast <to = 1> (softer)"
    body = CONVOLUTIONS.replace("Relu (map)", louder).replace("Pool (active)", "Pool (wide)")
    body = "half = Cast <to = 10> (input)" + body.replace("(input, w1, b1)", "(half, w1, b1)")
    for gain, finite in ((1.0, True), (60000.0, False)):
        constants = {name: value.astype(np.float16) for name, value in weights().items()}
        gains = {"gain": np.array(gain, np.float16), "inverse": np.array(1 / gain, np.float16)}
        model = network(body, constants={**constants, **gains})
        with np.errstate(over="ignore", invalid="ignore"):
            expected = run(model, {"input": PICTURES}, "embedding")
        got = embed(emulation.spell_out(model), PICTURES)
        assert np.isfinite(expected).all() == np.isfinite(got).all() == finite
        if finite:
            np.testing.assert_allclose(got, expected, atol=2e-3)


NORM = """
    raised = Mul (input, thousand)
    average = ReduceMean <axes = [3]> (raised)
    centred = Sub (raised, average)
    square = {square} (centred, {by})
    variance_ = ReduceMean <axes = [3]> (square)
    positive = Add (variance_, epsilon)
    root = Sqrt (positive)
    unit = Div (centred, root)
    map = Conv <strides = [2, 2]> (unit, w1, b1)
    pooled = GlobalAveragePool (map)
    embedding = Flatten (pooled)
"""


@pytest.mark.parametrize(("square", "by"), [("Pow", "two"), ("Mul", "centred")])
def test_a_norm_that_is_written_out_stays_in_float32(square: str, by: str) -> None:
    constants = {**weights(), "thousand": np.array(1000.0), "two": np.array(2.0), "epsilon": np.array(1e-6)}
    model = network(NORM.format(square=square, by=by), outputs="float[N, 8] embedding", constants=constants)
    half = float16.convert(model, PICTURES / 1000)  # so weak that no value tells what is to come
    kinds = node_types(half)
    for kept in ("ReduceMean", "Sub", square, "Add", "Sqrt", "Div"):
        assert TensorProto.FLOAT16 not in kinds[kept] or (kept, square) == ("Mul", "Mul")
    pictures = PICTURES  # a thousand times that, squared, is far beyond float16
    expected = run(model, {"input": pictures}, "embedding")
    parity = compare(expected, embed(emulation.spell_out(half), pictures))
    assert parity.cosine > 0.9999
    assert parity.max_abs < 1e-2


def test_the_residual_stream_beside_a_norm_may_be_float16() -> None:
    body = """
        stem = Conv <strides = [2, 2]> (input, w1, b1)
        average = ReduceMean <axes = [1]> (stem)
        centred = Sub (stem, average)
        square = Mul (centred, centred)
        variance_ = ReduceMean <axes = [1]> (square)
        root = Sqrt (variance_)
        unit = Div (centred, root)
        branch = Conv (unit, one, b1)
        sum = Add (stem, branch)
        pooled = GlobalAveragePool (sum)
        embedding = Flatten (pooled)
    """
    constants = {**weights(), "one": np.eye(8).reshape(8, 8, 1, 1)}
    half = float16.convert(network(body, outputs="float[N, 8] embedding", constants=constants), PICTURES)
    assert node_types(half)["Add"] == {TensorProto.FLOAT16}
    assert node_types(half)["Div"] == {TensorProto.FLOAT}


def test_a_weight_is_rounded_only_where_float16_reads_it_and_never_to_zero() -> None:
    body = """
        map = Conv <strides = [4, 4]> (input, w1, b1)
        normed = BatchNormalization (map, scale, scale, scale, scale)
        relu = Relu (normed)
        scaled = Mul (relu, scale)
        pooled = GlobalAveragePool (scaled)
        embedding = Flatten (pooled)
    """
    scale = np.array([0.1, 0.3, 1e-9, 0.7, 0.9, 1.1, 1.3, 1.5])
    model = network(body, outputs="float[N, 8] embedding", constants={**weights(), "scale": scale})
    half = float16.convert(model, PICTURES)
    stored = {t.name: numpy_helper.to_array(t) for t in half.graph.initializer}
    reads = {node.op_type: list(node.input) for node in half.graph.node}
    np.testing.assert_array_equal(stored[reads["BatchNormalization"][1]], scale.astype(np.float32))
    rounded = stored[reads["Mul"][1]]
    assert rounded.dtype == np.float16
    assert rounded[2] == 2.0**-24
    np.testing.assert_array_equal(np.delete(rounded, 2), np.delete(scale, 2).astype(np.float16))


def test_control_flow_is_not_converted() -> None:
    branches = "then_branch = yes () => (float[N, 8, 16, 16] y) { y = Relu (conv) }," \
               "else_branch = no () => (float[N, 8, 16, 16] z) { z = Identity (conv) }"  # fmt: skip
    body = CONVOLUTIONS.replace("relu = Relu (normed)", f"relu = If (flag) <{branches}>")
    with pytest.raises(ValueError, match="If, Loop or Scan"):
        float16.convert(network(body, constants={**weights(), "flag": np.array(True)}), PICTURES)
