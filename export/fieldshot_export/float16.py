"""A float16 copy of a float32 ONNX network that keeps normalisations and pooling in float32.

The precision of every operation stands in the file, as cast nodes, because strongly typed TensorRT builds (the
only kind since TensorRT 11) do what the network says and nothing else. ONNX's own definitions of the operations say
which of their inputs and outputs can be float16; here is decided what stays in float32 all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper, shape_inference

from fieldshot_export import graph
from fieldshot_export.source import INPUT, OUTPUT, Floats, open_session

_ONNX = ("", "ai.onnx")  # the two names of its own domain
_NORMALISATIONS = {
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LogSoftmax",
    "LpNormalization",
    "LRN",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Softmax",
}
_POOLING = {
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "LpPool",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
}
# What a normalisation is made of where an exporter wrote it out; exponentials overflow float16 beyond 11.
_PARTS = {"Exp", "Log", "Pow", "Reciprocal", "Softplus", "Sqrt"}
_ROOTS = {"Pow", "Reciprocal", "Sqrt"}
_ELEMENTWISE = {"Add", "Div", "Identity", "Mul", "Neg", "Sub"}
_LAYOUT = {"Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
# Sums that grow, and coordinates and ranks that 11 bits do not tell apart.
_FINE = {"CumSum", "RoiAlign", "TopK"}

KEPT = _NORMALISATIONS | _POOLING | _PARTS | _FINE
"""Operations that stay in float32."""

LARGEST = 8192.0
"""Larger values stay in float32: an eighth of float16's range, for pictures more extreme than those tried."""


def convert(model: ModelProto, pictures: Floats) -> ModelProto:
    """Convert a network to float16 weights and arithmetic.

    Parameters
    ----------
    model : onnx.ModelProto
        Float32 network; left as it is.
    pictures : ndarray of shape (n, 3, H, W), dtype float32
        Inputs to run it on: what takes or gives values above `LARGEST` for one of them stays in float32 too.

    Returns
    -------
    onnx.ModelProto
        Network of the same float32 input and output.

    Raises
    ------
    ValueError
        The network holds subgraphs (If, Loop, Scan), or the result breaks ONNX's type rules.
    """
    graph.check_flat(model)
    half = shape_inference.infer_shapes(model)
    nodes = half.graph.node
    large = {name for name, peak in _peaks(model, pictures).items() if peak > LARGEST}
    kept = _written_out_norms(nodes)
    for node in nodes:
        if node.op_type in KEPT or large.intersection([*node.input, *node.output]):
            kept.update(filter(None, node.output))
    kept |= _layout_after(nodes, kept)
    _move(half, kept)
    half.graph.ClearField("value_info")
    onnx.checker.check_model(half, full_check=True)
    return shape_inference.infer_shapes(half, check_type=True, strict_mode=True)


def _peaks(model: ModelProto, pictures: Floats) -> dict[str, float]:
    """Measure the largest absolute value of each float32 tensor, weights included."""
    peaks = {t.name: float(np.abs(numpy_helper.to_array(t)).max(initial=0.0)) for t in model.graph.initializer}
    bare = shape_inference.infer_shapes(model)
    made = [value for value in bare.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    bare.graph.output.extend(made)
    session = open_session(bare, optimise=False)
    for picture in pictures:  # one by one: all that a network makes on the way is a lot
        values = session.run([value.name for value in made], {INPUT: picture[None]})
        for value, array in zip(made, values, strict=True):
            peaks[value.name] = max(peaks.get(value.name, 0.0), float(np.abs(array).max(initial=0.0)))
    return peaks


def _written_out_norms(nodes: Sequence[NodeProto]) -> set[str]:
    """Name what is made between a reduction and the root that divides by it, where a norm is written out.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon): squares overflow float16 from 256 on, and epsilon is
    below its smallest normal number.
    """
    makers = {output: node for node in nodes for output in node.output}
    kept: set[str] = set()
    reduced: set[str] = set()
    for node in nodes:
        if node.op_type in _POOLING:
            reduced.update(node.output)
            square = makers.get(node.input[0])
            if square is not None and square.op_type == "Mul" and square.input[0] == square.input[1]:
                kept.update(square.output)
        elif node.op_type in _ELEMENTWISE | _PARTS and reduced.intersection(node.input):
            reduced.update(node.output)
    seen: set[str] = set()
    roots = {output for node in nodes if node.op_type in _ROOTS for output in node.output}
    for node in nodes:
        if node.op_type in _ELEMENTWISE and roots.intersection(node.input):
            kept.update(node.output)
        stack = [*node.input] if node.op_type in _ROOTS else []
        while stack:
            name = stack.pop()
            if name in reduced and name not in seen:
                seen.add(name)
                maker = makers[name]
                stack += maker.input
                if maker.op_type in _ELEMENTWISE:
                    kept.update(maker.output)
    return kept


def _layout_after(nodes: Sequence[NodeProto], kept: set[str]) -> set[str]:
    """Name what only lays out anew a tensor that was made in float32, right before the output."""
    makers = {name: node for node in nodes for name in node.output}
    tail, name = set(), OUTPUT
    while name in makers and makers[name].op_type in _LAYOUT:
        tail.add(name)
        name = makers[name].input[0]
    return tail if name in kept else set()


def _move(model: ModelProto, kept: set[str]) -> None:
    """Move into float16 what ONNX has in float16, `kept` aside, and cast where the two meet.

    The float16 copy of a tensor X is X:half. A node that makes no such copy takes its inputs as they were made.
    """
    types = graph.element_types(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    opset = next(entry.version for entry in model.opset_import if entry.domain in _ONNX)
    made: set[str] = set()  # in float16
    cast: set[str] = set()  # to the other precision
    nodes = []

    def take(name: str, in_float16: bool) -> str:
        if (name in made) != in_float16 and name not in cast:
            cast.add(name)
            if name in weights:
                model.graph.initializer.append(_rounded(weights[name]))
            elif in_float16:
                nodes.append(helper.make_node("Cast", [name], [f"{name}:half"], to=TensorProto.FLOAT16))
            else:
                nodes.append(helper.make_node("Cast", [f"{name}:half"], [name], to=TensorProto.FLOAT))
        return f"{name}:half" if in_float16 else name

    for node in model.graph.node:
        inputs, outputs = _movable(node, types, opset)
        if kept.intersection(node.output) or not (outputs or inputs <= made | weights.keys()):
            inputs, outputs = set(), set()
        node.input[:] = [take(name, name in inputs) for name in node.input]
        node.output[:] = [f"{name}:half" if name in outputs else name for name in node.output]
        made |= outputs
        nodes.append(node)
    take(OUTPUT, False)
    graph.replace(model.graph.node, nodes)
    graph.cut(model, OUTPUT)


def _movable(node: NodeProto, types: Mapping[str, int], opset: int) -> tuple[set[str], set[str]]:
    """Name the float32 inputs and outputs of a node that ONNX's definition of its operation lets be float16."""
    if node.domain not in _ONNX or not types.keys() >= {*filter(None, [*node.input, *node.output])}:
        return set(), set()
    schema = defs.get_schema(node.op_type, opset)
    kinds = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}

    def floats(names: Sequence[str], parameters: Sequence[defs.OpSchema.FormalParameter]) -> dict[str, str]:
        last = len(parameters) - 1  # which may stand for any number
        return {n: parameters[min(i, last)].type_str for i, n in enumerate(names) if types.get(n) == TensorProto.FLOAT}

    inputs, outputs = floats(node.input, schema.inputs), floats(node.output, schema.outputs)
    kinds &= {*inputs.values()}
    return {n for n, kind in inputs.items() if kind in kinds}, {n for n, kind in outputs.items() if kind in kinds}


def _rounded(tensor: TensorProto) -> TensorProto:
    """Round a weight to float16, but none to zero: it may be what keeps a quotient finite."""
    exact = numpy_helper.to_array(tensor)
    half = exact.astype(np.float16)
    lost = (half == 0) & (exact != 0)
    half[lost] = np.copysign(2.0**-24, exact[lost])
    return numpy_helper.from_array(half, f"{tensor.name}:half")
