"""Surgery on an ONNX graph: cut it at a tensor, rename, drop what describes the author's machine.

Every function changes the model that it is given, in place, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

FLOATS_BELOW_32 = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in a node's attributes: the branches of If, the bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def check_flat(model: ModelProto) -> None:
    """Refuse a network with subgraphs (If, Loop, Scan), by a ValueError."""
    if any(True for node in model.graph.node for _ in subgraphs(node)):
        raise ValueError("networks with If, Loop or Scan are not converted")


def reads(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its subgraphs capture from outside included."""
    yield from filter(None, node.input)
    for graph in subgraphs(node):
        own = {v.name for v in [*graph.input, *graph.initializer]} | {o for n in graph.node for o in n.output}
        for inner in graph.node:
            yield from (name for name in reads(inner) if name not in own)
        yield from (v.name for v in graph.output if v.name not in own)


def data_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """List the inputs that a caller must feed: files before IR version 4 have the weights among the inputs."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def replace(field: object, items: list) -> None:
    """Set a repeated protobuf field to `items`."""
    kept = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(kept)


def shape_of(value: ValueInfoProto) -> list[int | str | None] | None:
    """Read a value's shape: numbers, names of unknown sizes or None; None in all for an unknown rank."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]


def element_types(model: ModelProto) -> dict[str, int]:
    """Map the tensors whose element type is known, as shape inference leaves it, to that type."""
    graph = model.graph
    values = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    values |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: kind for name, kind in values.items() if kind != TensorProto.UNDEFINED}


def cut(model: ModelProto, tensor: str) -> None:
    """Make `tensor` the only output and keep only what feeds it: nodes, weights, inputs, shapes.

    Parameters
    ----------
    model : onnx.ModelProto
        Model with topologically sorted nodes and no local functions, changed in place.
    tensor : str
        Name of a float tensor of the graph.
    """
    graph = model.graph
    needed, nodes = {tensor}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(reads(node))
    known = [value for value in [*graph.value_info, *graph.output] if value.name == tensor]
    output = known[0] if known else helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)
    replace(graph.node, nodes[::-1])
    replace(graph.output, [output])
    for field in (graph.initializer, graph.sparse_initializer, graph.input, graph.value_info):
        replace(field, [item for item in field if _name(item) in needed and item is not output])
    graph.ClearField("quantization_annotation")


def rename(model: ModelProto, old: str, new: str) -> None:
    """Rename a tensor everywhere; a tensor that already has the new name steps aside.

    Parameters
    ----------
    model : onnx.ModelProto
        Model, changed in place.
    old, new : str
        Names; nothing happens when they are equal.
    """
    if old == new:
        return
    aside, names = new, set(_all_names(model.graph))
    while aside in names:
        aside += "_"
    _rename(model.graph, {old: new, new: aside})


def strip(model: ModelProto) -> None:
    """Drop descriptions, and the metadata in which exporters record paths of the author's machine."""
    for holder in [
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
        *model.graph.value_info,
    ]:
        for field in ("doc_string", "metadata_props"):
            if field in holder.DESCRIPTOR.fields_by_name:
                holder.ClearField(field)


def lift_constants(model: ModelProto) -> None:
    """Turn Constant nodes that hold a tensor into initializers, so that weights are found in one place."""
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            value.name = node.output[0]
            model.graph.initializer.append(value)
        else:
            kept.append(node)
    replace(model.graph.node, kept)


def _name(item: object) -> str:
    return item.values.name if hasattr(item, "values") else item.name


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _all_nodes(inner)


def _all_names(graph: GraphProto) -> Iterator[str]:
    for value in [*graph.input, *graph.output, *graph.initializer]:
        yield value.name
    for node in _all_nodes(graph):
        yield from node.input
        yield from node.output


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for value in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
        for inner in subgraphs(node):
            _rename(inner, names)
