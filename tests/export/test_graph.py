"""Surgery on graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import parser

from fieldshot_export import graph
from networks import CONVOLUTIONS, HEAD, network, run


def test_cut_keeps_only_what_feeds_it() -> None:
    model = network(CONVOLUTIONS + HEAD, outputs="float[N, 16] embedding, float[N, 5] logits")
    graph.cut(model, "relu")
    assert [node.op_type for node in model.graph.node] == ["Conv", "BatchNormalization", "Relu"]
    assert {t.name for t in model.graph.initializer} == {"w1", "b1", "scale", "shift", "mean", "variance"}
    assert [value.name for value in model.graph.output] == ["relu"]
    assert run(model, {"input": np.zeros((1, 3, 32, 32), np.float32)}, "relu").shape == (1, 8, 16, 16)


def test_cut_drops_inputs_that_do_not_reach_it() -> None:
    model = network(
        "a = Relu (input) b = Add (input, other)",
        inputs="float[N, 3] input, float[N, 3] other",
        outputs="float[N, 3] b",
    )
    graph.cut(model, "a")
    assert [value.name for value in graph.data_inputs(model.graph)] == ["input"]


BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3] input, bool flag) => (float[N, 3] out) {
    captured = Relu (input)
    unused = Neg (input)
    out = If (flag) <
        then_branch = yes () => (float[N, 3] y) { y = Mul (captured, captured) },
        else_branch = no () => (float[N, 3] z) { z = Identity (captured) }
    >
}
"""


def test_what_a_branch_captures_is_kept_and_renamed() -> None:
    model = parser.parse_model(BRANCHES)
    graph.cut(model, "out")
    graph.rename(model, "captured", "renamed")
    assert [node.op_type for node in model.graph.node] == ["Relu", "If"]
    feeds = {"input": np.array([[-1.0, 2.0, 3.0]], np.float32), "flag": np.array(True)}
    np.testing.assert_array_equal(run(model, feeds, "out"), [[0.0, 4.0, 9.0]])


def test_rename_moves_a_tensor_of_that_name_aside() -> None:
    model = network("input_ = Neg (x) y = Relu (input_) input = Add (y, x)", inputs="float[N, 2] x",
                    outputs="float[N, 2] input")  # fmt: skip
    before = run(model, {"x": np.array([[1.0, -2.0]], np.float32)}, "input")
    graph.rename(model, "x", "input")
    graph.rename(model, model.graph.output[0].name, "embedding")
    onnx.checker.check_model(model)
    after = run(model, {"input": np.array([[1.0, -2.0]], np.float32)}, "embedding")
    np.testing.assert_array_equal(after, before)


def test_strip_leaves_no_path_of_the_author() -> None:
    model = network()
    model.doc_string = model.graph.doc_string = "/home/author/train.py"
    for holder in (model, model.graph.node[0], model.graph.output[0]):
        entry = holder.metadata_props.add()
        entry.key, entry.value = "trace", "/home/author/train.py"
    graph.strip(model)
    assert b"author" not in model.SerializeToString()


def test_lifted_constants_are_weights() -> None:
    model = network("two = Constant <value_float = 2.0> () three = Constant <value = float {3.0}> ()"
                    "a = Mul (input, two) y = Mul (a, three)", inputs="float[N, 2] input",
                    outputs="float[N, 2] y")  # fmt: skip
    graph.lift_constants(model)
    assert [t.name for t in model.graph.initializer] == ["three"]
    y = run(model, {"input": np.ones((1, 2), np.float32)}, "y")
    np.testing.assert_array_equal(y, [[6.0, 6.0]])
