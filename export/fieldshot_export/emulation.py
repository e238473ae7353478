"""Run a float16 ONNX network with every value in float16, on a CPU that has no float16 arithmetic."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper, shape_inference

from fieldshot_export import graph


def spell_out(model: ModelProto) -> ModelProto:
    """Compute each float16 node in float32 and round what it gives to float16, as GPUs do.

    ONNX Runtime's CPU kernels are float32: it puts casts around float16 nodes by itself, and drops those between two
    such nodes, so that values beyond float16's range would pass unnoticed. It leaves casts alone that the network has,
    if it is told not to optimise.

    Parameters
    ----------
    model : onnx.ModelProto
        Network in which some nodes compute in float16; left as it is.

    Returns
    -------
    onnx.ModelProto
        Network of the same values in which all nodes but casts compute in float32.
    """
    copy = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    half = {name for name, kind in graph.element_types(copy).items() if kind == TensorProto.FLOAT16}
    nodes, wide = [], set()
    for node in copy.graph.node:
        nodes.append(node)
        if node.op_type == "Cast" or not half.intersection(node.input):
            continue
        for name in half.intersection(node.input) - wide:
            nodes.insert(-1, helper.make_node("Cast", [name], [f"{name}:wide"], to=TensorProto.FLOAT))
            wide.add(name)
        node.input[:] = [f"{name}:wide" if name in half else name for name in node.input]
        for name in half.intersection(node.output):
            nodes.append(helper.make_node("Cast", [f"{name}:exact"], [name], to=TensorProto.FLOAT16))
        node.output[:] = [f"{name}:exact" if name in half else name for name in node.output]
    graph.replace(copy.graph.node, nodes)
    copy.graph.ClearField("value_info")
    return copy
