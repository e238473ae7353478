"""A network that comes as an ONNX file, cut at any named tensor."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, inliner, shape_inference, version_converter

from fieldshot.errors import ExportError, MissingFileError
from fieldshot_export import batch, fold, graph
from fieldshot_export.source import INPUT, OUTPUT, Floats, Source, first_line, open_session

MIN_OPSET = 13
"""Older networks are converted: from here on Clip, Squeeze and their kin mean the same to every engine."""

_LISTED = 12  # candidates for a cut that an error names


def load(path: str | Path, size: tuple[int, int], *, cut: str | None = None) -> Source:
    """Read an ONNX file and make it a backbone.

    Parameters
    ----------
    path : path
        The file; weights in files beside it are read as well.
    size : (int, int)
        Height and width in pixels of what the network will see.
    cut : str, optional
        Tensor that becomes the embedding, (N, D), or (N, D, H, W) to be averaged over H and W. Unless given:
        the output named `embedding`, else the only two-dimensional output.

    Returns
    -------
    Source
        The network, and a function that runs the original file, unchanged, in ONNX Runtime.

    Raises
    ------
    MissingFileError
        There is no such file.
    ExportError
        The file is no ONNX network, has no such tensor, or cannot become a backbone.
    """
    path = Path(path)
    original = _read(path)
    tensor = _choose(original, cut)
    model = ModelProto()
    model.CopyFrom(original)
    graph.cut(model, tensor)
    value = _only_input(model, tensor)
    notes = []
    channels_last = _adopt_size(value, size)
    try:
        framework = _Original(original, tensor, value, channels_last)
        shape = framework.run(batch.noise(1, size)).shape
    except Exception as error:
        raise ExportError(
            f"{path.name} must run in ONNX Runtime on pictures of {size[0]}x{size[1]} (got {first_line(error)})",
            hint="check --size, and that the file runs where it came from",
        ) from error
    model = _modernise(model, notes)
    graph.lift_constants(model)
    graph.rename(model, value.name, INPUT)
    graph.rename(model, tensor, OUTPUT)
    if channels_last:
        _add_transpose(model, size)
        notes.append("the network takes channels last: a transpose was put in front")
    if len(shape) == 4:
        _add_pool(model)
        notes.append(f"{tensor} is a map of {shape[2]}x{shape[3]}: its mean is the embedding")
    elif len(shape) != 2:
        raise ExportError(
            f"{tensor} must have 2 dimensions (N, D), or 4 (N, D, H, W) (got shape {_show(list(shape))})",
            hint="cut after the class token is taken or the tokens are averaged",
        )
    hint = "export it again with a dynamic batch dimension and in evaluation mode"
    model, note = batch.make_dynamic(model, size, hint=hint)
    notes += [note] if note else []
    if count := fold.batch_norms(model):
        notes.append(f"{count} batch norms were folded into their convolutions")
    graph.strip(model)
    return Source(path.stem, f"{path.name}, cut at {tensor}", model, framework.embed, tuple(notes))


def _read(path: Path) -> ModelProto:
    if not path.is_file():
        raise MissingFileError(f"the ONNX file must exist (got {path})", hint="check the path after --onnx")
    if path.stat().st_size == 0:
        raise ExportError(f"{path} must be an ONNX network (got an empty file)", hint="export or copy it again")
    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ValueError("it holds no nodes")
        if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
            raise ValueError("it is larger than 2 GB")
        onnx.checker.check_model(model)
        return inliner.inline_local_functions(model)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path} must lie together with its weights (got {first_line(error)})",
            hint="copy the .data file beside it",
        ) from error
    except Exception as error:
        raise ExportError(
            f"{path} must be an ONNX network (got {first_line(error)})", hint="export or copy it again"
        ) from error


def _choose(model: ModelProto, cut: str | None) -> str:
    """Name the tensor to cut at; an error lists what there is to choose from."""
    outputs = [value.name for value in model.graph.output]
    made = [name for node in model.graph.node for name in node.output if name]
    if cut in made:
        return cut
    values = {v.name: v for v in [*_inferred(model).graph.value_info, *model.graph.output]}
    shapes = {name: graph.shape_of(values[name]) if name in values else None for name in made}
    if cut is None:
        if OUTPUT in outputs:
            return OUTPUT
        flat = [name for name in outputs if len(shapes[name] or []) == 2] if len(outputs) > 1 else outputs
        if len(flat) == 1:
            return flat[0]
        message = f"the tensor to cut at must be named: no output is called {OUTPUT!r} and {len(flat)} are 2-D"
        listed = flat or outputs
    else:
        message = f"the tensor to cut at must be one of the network's (got {cut!r})"
        near = difflib.get_close_matches(cut, made, _LISTED // 2, 0.5)
        # The last tensors of ranks that can be an embedding: where people cut.
        usual = [name for name in reversed(made) if shapes[name] is None or len(shapes[name]) in (2, 4)]
        listed = list(dict.fromkeys([*near, *outputs, *usual]))[:_LISTED]
    raise ExportError(message, hint="use --cut with " + ", ".join(f"{n} {_show(shapes[n])}" for n in listed))


def _only_input(model: ModelProto, tensor: str) -> ValueInfoProto:
    values = graph.data_inputs(model.graph)
    if len(values) != 1:
        names = ", ".join(value.name for value in values) or "none"
        raise ExportError(
            f"{tensor} must be computed from exactly one input, the picture (got {names})",
            hint="cut elsewhere, or export the network with its other inputs fixed",
        )
    kinds = {values[0].type.tensor_type.elem_type} | {
        t.data_type for t in model.graph.initializer if t.data_type in graph.FLOATS_BELOW_32
    }
    if kinds != {TensorProto.FLOAT}:
        names = ", ".join(sorted(TensorProto.DataType.Name(kind).lower() for kind in kinds - {TensorProto.FLOAT}))
        raise ExportError(
            f"{values[0].name} and the weights must be float32 (got {names})",
            hint="export the network in float32; the bundle gets a float16 copy of its own",
        )
    return values[0]


def _adopt_size(value: ValueInfoProto, size: tuple[int, int]) -> bool:
    """Tell whether channels come last, and refuse an input that cannot be a picture of `size`."""
    shape = graph.shape_of(value)
    if shape is None:
        return False
    for channels_last, expected in ((False, (3, *size)), (True, (*size, 3))):
        if len(shape) == 4 and all(not isinstance(s, int) or s == e for s, e in zip(shape[1:], expected, strict=True)):
            return channels_last
    raise ExportError(
        f"{value.name} must take pictures of 3 channels and {size[0]}x{size[1]} (got shape {_show(shape)})",
        hint="give --size as the network has it: height x width",
    )


class _Original:
    """The file's own network, unchanged but for one more output, in ONNX Runtime."""

    def __init__(self, model: ModelProto, tensor: str, value: ValueInfoProto, channels_last: bool) -> None:
        copy = ModelProto()
        copy.CopyFrom(model)
        if tensor not in {output.name for output in copy.graph.output}:
            known = [v for v in copy.graph.value_info if v.name == tensor]
            unknown = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)
            copy.graph.output.append(known[0] if known else unknown)
        # Inputs that do not reach the tensor must be fed all the same.
        self._feeds = {
            v.name: np.zeros([d if isinstance(d, int) else 1 for d in graph.shape_of(v) or []], _dtype(v))
            for v in graph.data_inputs(copy.graph)
            if v.name != value.name
        }
        self._input, self._output, self._channels_last = value.name, tensor, channels_last
        shape = graph.shape_of(value)
        self._n = shape[0] if shape and isinstance(shape[0], int) else 1
        # Not optimised: what the engine's optimiser makes of the network is checked along with the rest.
        self._session = open_session(copy, optimise=False)

    def run(self, pictures: Floats) -> Floats:
        """Return the tensor for pictures of shape (n, 3, H, W), as the network gives it."""
        rows = []
        for start in range(0, len(pictures), self._n):
            part = pictures[start : start + self._n]
            # A network of fixed batch is fed a full one; the surplus is dropped.
            full = np.concatenate([part, np.repeat(part[-1:], self._n - len(part), axis=0)])
            fed = np.ascontiguousarray(full.transpose(0, 2, 3, 1)) if self._channels_last else full
            rows.append(self._session.run([self._output], {self._input: fed, **self._feeds})[0][: len(part)])
        return np.concatenate(rows)

    def embed(self, pictures: Floats) -> Floats:
        """Return embeddings of shape (n, D): maps are averaged."""
        out = self.run(pictures)
        return out.mean(axis=(2, 3), dtype=np.float64).astype(np.float32) if out.ndim == 4 else out


def _modernise(model: ModelProto, notes: list[str]) -> ModelProto:
    """Raise an old opset, which engines no longer read alike; lower the IR version to what is needed."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 1))
    if opset < MIN_OPSET:
        try:
            model = version_converter.convert_version(model, MIN_OPSET)
        except Exception as error:
            raise ExportError(
                f"the network's opset must be {MIN_OPSET} or newer (got {opset}, and {first_line(error)})",
                hint=f"export it again with opset {MIN_OPSET} to 20",
            ) from error
        notes.append(f"opset {opset} was converted to {MIN_OPSET}")
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    return model


def _add_transpose(model: ModelProto, size: tuple[int, int]) -> None:
    inner = INPUT + "_channels_last"
    graph.rename(model, INPUT, inner)
    model.graph.node.insert(0, helper.make_node("Transpose", [INPUT], [inner], perm=[0, 2, 3, 1]))
    graph.replace(model.graph.input, [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, *size])])


def _add_pool(model: ModelProto) -> None:
    graph.rename(model, OUTPUT, OUTPUT + "_map")
    model.graph.node.append(helper.make_node("GlobalAveragePool", [OUTPUT + "_map"], [OUTPUT + "_mean"]))
    model.graph.node.append(helper.make_node("Flatten", [OUTPUT + "_mean"], [OUTPUT]))
    graph.replace(model.graph.output, [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)])


def _inferred(model: ModelProto) -> ModelProto:
    try:
        return shape_inference.infer_shapes(model)
    except shape_inference.InferenceError:  # shapes only inform here
        return model


def _dtype(value: ValueInfoProto) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _show(shape: list[int | str | None] | None) -> str:
    return "of unknown shape" if shape is None else "(" + ", ".join(str(s or "?") for s in shape) + ")"
