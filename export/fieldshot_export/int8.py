"""An int8 copy of a float32 ONNX network, as explicit Q/DQ that TensorRT takes: symmetric, weights per channel.

ONNX Runtime's static quantisation measures the ranges and puts the pairs in; here is decided where they stand, and what
they cost is made good again: every layer's bias takes back the mean error of the rounding in and before it (Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, on pictures).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from fieldshot.backbone.int8 import RECTIFIED, RECTIFIED_SCALE, SIGNED
from fieldshot.errors import ExportError
from fieldshot_export import graph
from fieldshot_export.source import INPUT, OUTPUT, Floats, open_session

_LAYERS = {"Conv", "Gemm", "MatMul"}
_RECTIFIERS = {"Clip", "Relu"}
_SAME_RANGE = {"Identity", "MaxPool"}
_SUMS = {"Add", "AveragePool", "GlobalAveragePool"}
_WITH_BIAS = {"Conv", "Gemm"}


def convert(model: ModelProto, pictures: Floats) -> ModelProto:
    """Quantise a network to int8 weights and activations.

    Quantised are convolutions and products with constant weights, sums and pools of what they make; the first layer,
    which sees the picture, stays in float32, like all else, biases and the embedding included.

    Parameters
    ----------
    model : onnx.ModelProto
        Float32 network; left as it is.
    pictures : ndarray of shape (n, 3, H, W), dtype float32
        Inputs to calibrate on.

    Returns
    -------
    onnx.ModelProto
        Network of the same float32 input and output.

    Raises
    ------
    ExportError
        There is nothing in it to quantise.
    ValueError
        The network holds subgraphs (If, Loop, Scan).
    """
    graph.check_flat(model)
    named = shape_inference.infer_shapes(model)
    for number, node in enumerate(named.graph.node):
        node.name = f"{node.op_type}_{number}"
    chosen = _chosen(named)
    quantised = _with_pairs(named, chosen, pictures)
    _tell_apart(quantised)
    graph.strip(quantised)
    quantised.graph.ClearField("value_info")
    _correct(model, quantised, pictures)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _chosen(model: ModelProto) -> list[str]:
    """Name the nodes to quantise."""
    constants = {tensor.name for tensor in model.graph.initializer}
    raw, maps, layers, sums = {INPUT}, set(), [], []
    for node in model.graph.node:
        data = [name for name in node.input if name and name not in constants]
        if node.op_type in _LAYERS and len(data) == 1 and node.input[1] in constants:
            if data[0] not in raw:
                layers.append(node.name)
            maps.update(node.output)
        elif data and maps.issuperset(data) and node.op_type in _SUMS | _RECTIFIERS | _SAME_RANGE:
            if node.op_type in _SUMS and len(data) == len(node.input):
                sums.append(node.name)
            maps.update(node.output)
        elif data and raw.issuperset(data):
            raw.update(node.output)  # the picture, turned or scaled
    if not layers:
        raise ExportError(
            "the network must have layers behind the first that int8 can compute (got no convolution or product "
            "with constant weights)",
            hint="leave out --int8",
        )
    return layers + sums


def _with_pairs(model: ModelProto, chosen: list[str], pictures: Floats) -> ModelProto:
    """Put Q/DQ in front of the chosen nodes, and DQ behind their weights, by the ranges that the pictures make.

    Outputs get none of their own: what a layer makes is rounded where the next takes it, past its ReLU. Biases stay
    float32, for TensorRT dequantises no int32.
    """
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # or it warns that we did not
    with tempfile.TemporaryDirectory(prefix="fieldshot-int8-") as folder:
        plain, quantised = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, plain)
        quantize_static(
            plain,
            quantised,
            _Reader(pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted(_LAYERS | _SUMS),
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": sorted(_LAYERS | _SUMS),
            },
        )
        return onnx.load(quantised)


class _Reader(CalibrationDataReader):
    """Feeds pictures one by one: all that a network makes on the way is a lot."""

    def __init__(self, pictures: Floats) -> None:
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, Floats] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {INPUT: picture[None]}


def _tell_apart(model: ModelProto) -> None:
    """Name zero points and scales of activations by what `fieldshot.backbone.int8` may make of them."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    names: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            rectified = _is_rectified(node.input[0], makers, constants)
            names[node.input[1]] = node.input[1] + (RECTIFIED_SCALE if rectified else "")
            names[node.input[2]] = RECTIFIED if rectified else SIGNED
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    kept = {}
    for name, tensor in constants.items():
        # Written as raw bytes, all of them, and each zero point once.
        kept[names.get(name, name)] = numpy_helper.from_array(numpy_helper.to_array(tensor), names.get(name, name))
    graph.replace(model.graph.initializer, list(kept.values()))


def _is_rectified(name: str, makers: dict[str, NodeProto], constants: dict[str, TensorProto]) -> bool:
    while name in makers and makers[name].op_type in _SAME_RANGE:
        name = makers[name].input[0]
    node = makers.get(name)
    if node is None or node.op_type != "Clip":
        return node is not None and node.op_type == "Relu"
    least = constants.get(node.input[1]) if len(node.input) > 1 else None
    return least is not None and float(numpy_helper.to_array(least).min()) >= 0


def _correct(model: ModelProto, quantised: ModelProto, pictures: Floats) -> None:
    """Give each quantised layer, from first to last, a bias with what its outputs lack on average."""
    weights = {tensor.name: tensor for tensor in quantised.graph.initializer}
    dequantised = {node.output[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    layers = {
        node.output[0]
        for node in quantised.graph.node
        if node.op_type in _WITH_BIAS
        and node.input[1] in dequantised
        and weights.keys() >= {*node.input[2:]}  # or none
    }
    wanted = _means(model, layers, pictures)
    left = Counter(name for node in quantised.graph.node for name in node.input)
    values = {INPUT: pictures}
    for node in quantised.graph.node:
        left.subtract(node.input)
        feeds = {name: values[name] for name in node.input if name in values}
        values.update(_run_node(quantised, node, weights, feeds))
        for name in [name for name in feeds if not left[name]]:
            del values[name]
        if node.output[0] in layers:
            made = values[node.output[0]]
            lack = (wanted[node.output[0]] - _mean(made)).astype(np.float32)
            values[node.output[0]] = made + lack.reshape(-1, *[1] * (made.ndim - 2))
            bias = numpy_helper.to_array(weights[node.input[2]]) if len(node.input) > 2 else np.float32(0)
            node.input[2:] = [f"{node.name}:bias"]  # its own: another layer may share the old one
            quantised.graph.initializer.append(numpy_helper.from_array(bias + lack, node.input[2]))
    graph.cut(quantised, OUTPUT)


def _run_node(
    model: ModelProto, node: NodeProto, weights: Mapping[str, TensorProto], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run one node of a network on what the nodes before it made."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
        for name, value in feeds.items()
    ]
    names = [name for name in node.output if name]
    constants = [weights[name] for name in {*node.input} if name in weights]
    alone = helper.make_graph(
        [node], node.name, inputs, [helper.make_empty_tensor_value_info(name) for name in names], constants
    )
    whole = helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
    return dict(zip(names, open_session(whole, optimise=False).run(names, dict(feeds)), strict=True))


def _means(model: ModelProto, names: Iterable[str], pictures: Floats) -> dict[str, np.ndarray]:
    """Average tensors of a network over all but their channels."""
    names = [OUTPUT, *sorted({*names} - {OUTPUT})]
    watched = ModelProto.FromString(model.SerializeToString())
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names[1:])
    session = open_session(watched)
    rows = [[_mean(value) for value in session.run(names, {INPUT: picture[None]})] for picture in pictures]
    return {name: np.mean(column, axis=0) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _mean(value: np.ndarray) -> np.ndarray:
    return value.mean(axis=(0, *range(2, value.ndim)), dtype=np.float64)
