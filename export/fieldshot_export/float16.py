"""A float16 copy of a float32 ONNX network that keeps normalisations and pooling in float32.

The precision of every operation stands in the file, as cast nodes, because strongly typed TensorRT builds (the
only kind since TensorRT 11) do what the network says and nothing else. The conversion itself is ONNX Runtime's;
here is decided what stays in float32, and what its casts would round on the way is mended.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper, shape_inference
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from fieldshot_export import graph
from fieldshot_export.source import INPUT, OUTPUT, Floats, open_session

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
# TensorRT and ONNX both have these in float16.
_EXACT = {"Max", "Min"}

KEPT = _NORMALISATIONS | _POOLING | _PARTS | (set(DEFAULT_OP_BLOCK_LIST) - _EXACT)
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
    copy = ModelProto()
    copy.CopyFrom(model)
    if any(True for node in copy.graph.node for _ in graph.subgraphs(node)):
        raise ValueError("networks with If, Loop or Scan are not converted")
    for index, node in enumerate(copy.graph.node):
        node.name = f"{index}_{node.op_type}"  # the converter goes by names, which may be absent or twice
    kept = _written_out_norms(copy.graph.node)
    large = {name for name, peak in _peaks(model, pictures).items() if peak > LARGEST}
    kept |= {n.name: n for n in copy.graph.node if large.intersection([*n.input, *n.output])}
    kept |= _layout_after(copy.graph.node, kept)
    half = convert_float_to_float16(
        copy,
        keep_io_types=True,
        op_block_list=list(KEPT),
        node_block_list=[node.name for node in kept.values()],
    )
    graph.sort(half)
    _drop_roundings(half)
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


def _written_out_norms(nodes: list[NodeProto]) -> dict[str, NodeProto]:
    """Find what lies between a reduction and the root that divides by it, where a norm is written out.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon): squares overflow float16 from 256 on, and epsilon is
    below its smallest normal number.
    """
    makers = {output: node for node in nodes for output in node.output}
    kept, reduced = {}, set()
    for node in nodes:
        if node.op_type in _POOLING:
            reduced.update(node.output)
            square = makers.get(node.input[0])
            if square is not None and square.op_type == "Mul" and square.input[0] == square.input[1]:
                kept[square.name] = square
        elif node.op_type in _ELEMENTWISE | _PARTS and reduced.intersection(node.input):
            reduced.update(node.output)
    seen: set[str] = set()
    roots = {output for node in nodes if node.op_type in _ROOTS for output in node.output}
    for node in nodes:
        if node.op_type in _ELEMENTWISE and roots.intersection(node.input):
            kept[node.name] = node
        stack = [*node.input] if node.op_type in _ROOTS else []
        while stack:
            name = stack.pop()
            if name in reduced and name not in seen:
                seen.add(name)
                maker = makers[name]
                stack += maker.input
                if maker.op_type in _ELEMENTWISE:
                    kept[maker.name] = maker
    return kept


def _layout_after(nodes: list[NodeProto], kept: dict[str, NodeProto]) -> dict[str, NodeProto]:
    """Find the nodes that only lay out anew what a node in float32 made, right before the output."""
    makers = {name: node for node in nodes for name in node.output}
    tail = {}
    node = makers[OUTPUT]
    while node.op_type in _LAYOUT:
        tail[node.name] = node
        if node.input[0] not in makers:
            return {}
        node = makers[node.input[0]]
    return tail if node.op_type in KEPT or node.name in kept else {}


def _drop_roundings(model: ModelProto) -> None:
    """Let one node in float32 feed the next directly: the converter goes through float16 in between."""
    nodes = model.graph.node
    casts = {node.output[0]: node for node in nodes if node.op_type == "Cast" and not node.name[0].isdigit()}
    names = {}
    for name, node in casts.items():
        first = casts.get(node.input[0])
        if node.attribute[0].i == TensorProto.FLOAT and first is not None:
            names[name] = first.input[0]
    if OUTPUT in names:  # whoever makes it takes its name
        made = names.pop(OUTPUT)
        names = {name: OUTPUT if value == made else value for name, value in names.items()} | {made: OUTPUT}
        nodes.remove(casts[OUTPUT])
        for node in nodes:
            node.output[:] = [OUTPUT if name == made else name for name in node.output]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
    graph.cut(model, OUTPUT)
