"""Fold batch norms into the convolutions in front of them, as every engine does, but before float16 is made.

A batch norm that stayed would be kept in float32, between two casts, and no engine would fuse it any more.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from fieldshot_export import graph


def batch_norms(model: ModelProto) -> int:
    """Fold each inference-mode BatchNormalization that is the only reader of a Conv with constant weights.

    BN(conv(x)) = s (W x + b - mean) + shift with s = scale / sqrt(variance + epsilon): a convolution with weights
    s W and bias s (b - mean) + shift. Computed in float64.

    Parameters
    ----------
    model : onnx.ModelProto
        Network with its constants among the initializers, changed in place.

    Returns
    -------
    int
        How many were folded.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    readers: dict[str, int] = {}
    for name in [name for node in model.graph.node for name in graph.reads(node)]:
        readers[name] = readers.get(name, 0) + 1
    outputs = {value.name for value in model.graph.output}
    folded = []
    for node in model.graph.node:
        conv = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if (
            conv is not None
            and conv.op_type == "Conv"
            and readers[node.input[0]] == 1
            and node.input[0] not in outputs
            and all(name in weights for name in [*node.input[1:], *conv.input[1:]])
            and sum(map(bool, node.output)) == 1
        ):
            for tensor in _fold(node, conv, [numpy_helper.to_array(weights[n]) for n in node.input[1:5]], weights):
                model.graph.initializer.append(tensor)
            conv.output[0] = node.output[0]
            folded.append(node)
    for node in folded:
        model.graph.node.remove(node)
    if folded:
        used = {name for node in model.graph.node for name in graph.reads(node)}
        graph.replace(model.graph.initializer, [t for t in model.graph.initializer if t.name in used])
        values = {output for node in model.graph.node for output in node.output}
        graph.replace(model.graph.value_info, [v for v in model.graph.value_info if v.name in values])
    return len(folded)


def _fold(norm: NodeProto, conv: NodeProto, statistics: list, weights: dict) -> list:
    """Point `conv` at its new weight and bias, which are returned."""
    scale, shift, mean, variance = (values.astype(np.float64) for values in statistics)
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    scale = scale / np.sqrt(variance + epsilon)
    kernel = numpy_helper.to_array(weights[conv.input[1]])
    bias = numpy_helper.to_array(weights[conv.input[2]]) if len(conv.input) > 2 else 0.0
    kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
    bias = (bias - mean) * scale + shift
    names = [f"{norm.output[0]}_{part}" for part in ("weight", "bias")]
    new = helper.make_node("Conv", [conv.input[0], *names], list(conv.output), conv.name)
    new.attribute.extend(conv.attribute)
    conv.CopyFrom(new)
    return [numpy_helper.from_array(v.astype(np.float32), n) for v, n in zip((kernel, bias), names, strict=True)]
