"""Make the batch of an ONNX network dynamic, and prove that it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from fieldshot.errors import ExportError
from fieldshot_export import graph
from fieldshot_export.source import INPUT, OUTPUT, Floats, first_line, open_session

_ROWS = 3
_TOLERANCE = 1e-3  # of the largest value: engines pick other kernels for another batch


def noise(n: int, size: tuple[int, int]) -> Floats:
    """Draw n normalised random pictures, float32 (n, 3, height, width), always the same ones."""
    return np.random.default_rng(0).standard_normal((n, 3, *size), dtype=np.float32)


def make_dynamic(model: ModelProto, size: tuple[int, int], *, hint: str) -> tuple[ModelProto, str | None]:
    """Give the input a batch of any size N, also where the number of pictures is baked into nodes.

    Parameters
    ----------
    model : onnx.ModelProto
        Network with input `input` and output `embedding`.
    size : (int, int)
        Height and width in pixels.
    hint : str
        How to mend the network, for the error.

    Returns
    -------
    model : onnx.ModelProto
        The network with shapes inferred anew.
    note : str or None
        What had to be changed besides the shapes of input and output.

    Raises
    ------
    ExportError
        A batch of three gives other embeddings than three batches of one.
    """
    value = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, *size])
    graph.replace(model.graph.input, [value])
    graph.replace(model.graph.output, [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)])
    model.graph.ClearField("value_info")  # they may state the batch that was
    note = None
    fault = _fault(model, size)
    if fault is not None:
        count = _free(model)
        note = f"the batch was freed in {count} places"
        fault = _fault(model, size) if count else fault
    if fault is not None:
        raise ExportError(
            f"the network must give each picture of a batch the embedding that it has alone (got {fault})",
            hint=hint,
        )
    width = open_session(model).run([OUTPUT], {INPUT: noise(1, size)})[0].shape[1]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", width])
    graph.replace(model.graph.output, [output])
    return shape_inference.infer_shapes(model), note


def _fault(model: ModelProto, size: tuple[int, int]) -> str | None:
    """Say how a batch differs from its pictures one by one; None if it does not."""
    pictures = noise(_ROWS, size)
    try:
        session = open_session(model)
        whole = session.run([OUTPUT], {INPUT: pictures})[0]
        single = np.concatenate([session.run([OUTPUT], {INPUT: p[None]})[0] for p in pictures])
    except Exception as error:
        return f"a failure: {first_line(error)}"
    if whole.shape != single.shape:
        return f"shape {whole.shape} instead of {single.shape}"
    difference = np.abs(whole - single).max()
    if difference > _TOLERANCE * np.abs(single).max():
        return f"a difference of {difference:.3g}"
    return None  # NaN is not a matter of the batch: the exporter refuses it


def _free(model: ModelProto) -> int:
    """Free the nodes that have the number of pictures baked in where a picture flows through them.

    A Reshape to a constant shape with a leading 1 gets 0 there, a copy of the input's size, where another size is
    unknown, else -1, what remains. What a Concat puts beside the picture, such as a class token, is repeated for
    each. Either may be wrong, for a 1 that never was the batch: the caller compares results.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    ranks = {v.name: len(graph.shape_of(v) or ()) for v in shape_inference.infer_shapes(model).graph.value_info}
    ranks |= {name: len(tensor.dims) for name, tensor in weights.items()}
    flowing, nodes, count = {INPUT}, [], 0
    for node in model.graph.node:
        nodes.append(node)
        if not flowing.intersection(graph.reads(node)):
            continue
        flowing.update(node.output)
        if node.op_type == "Reshape" and node.input[0] in flowing and node.input[1] in weights:
            shape = numpy_helper.to_array(weights[node.input[1]]).copy()
            if shape.ndim == 1 and len(shape) and shape[0] == 1:
                shape[0] = 0 if -1 in shape[1:] else -1
                node.input[1] = _constant(model, shape, f"{node.output[0]}_shape")
                count += 1
        elif node.op_type == "Concat" and node.attribute[0].i != 0:
            for i, name in enumerate(node.input):
                if name not in flowing and ranks.get(name, 0) > 1:
                    nodes[-1:-1] = _repeat(model, name, ranks[name], f"{node.output[0]}_{i}")
                    node.input[i] = f"{node.output[0]}_{i}"
                    count += 1
    graph.replace(model.graph.node, nodes)
    return count


def _repeat(model: ModelProto, name: str, rank: int, out: str) -> list[NodeProto]:
    """Make the nodes that repeat a tensor of leading size 1 once for each picture."""
    zero = _constant(model, np.zeros(1, np.int64), f"{out}_zero")
    ones = _constant(model, np.ones(rank - 1, np.int64), f"{out}_ones")
    return [
        helper.make_node("Shape", [INPUT], [f"{out}_sizes"]),
        helper.make_node("Gather", [f"{out}_sizes", zero], [f"{out}_batch"]),
        helper.make_node("Concat", [f"{out}_batch", ones], [f"{out}_target"], axis=0),
        helper.make_node("Expand", [name, f"{out}_target"], [out]),
    ]


def _constant(model: ModelProto, value: NDArray[np.int64], name: str) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
