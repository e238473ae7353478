"""A tiny bundle for tests: a random convolutional network, made in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from fieldshot.backbone import Bundle
from fieldshot.backbone.manifest import PRECISIONS
from fieldshot.images import Preprocessing

TINY_PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def tiny_onnx(*, seed: int = 0, dim: int = 16) -> bytes:
    """Two strided convolutions, ReLU, global pooling; input (N, 3, 32, 32), embedding (N, dim)."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.3, (12, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 12),
        "w2": rng.normal(0, 0.3, (dim, 12, 3, 3)),
        "b2": rng.normal(0.3, 0.1, dim),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c1"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c2"], ["r2"]),
            helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
            helper.make_node("Flatten", ["p"], ["embedding"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dim])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def verification(network: bytes, preprocessing: Preprocessing, *, count: int = 3, seed: int = 0) -> bytes:
    """Verification pictures of random pixels and what a plain ONNX Runtime session gives for them."""
    import onnxruntime

    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (40 + 7 * i, 50 - 3 * i, 3), np.uint8) for i in range(count)]
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["embedding"], {"input": np.stack([preprocessing.apply(p) for p in pictures])})
    return save({"embeddings": expected, **{f"picture_{i}": p for i, p in enumerate(pictures)}})


def coarse(network: bytes) -> bytes:
    """The same network with its weights rounded to 8 bits, as int8 has them, in float32 arithmetic."""
    model = onnx.load_from_string(network)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        step = np.abs(values).max() / 127
        tensor.CopyFrom(numpy_helper.from_array((np.round(values / step) * step).astype(np.float32), tensor.name))
    return model.SerializeToString()


def write_bundle(
    path: Path,
    network: bytes,
    *,
    name: str,
    dim: int,
    preprocessing: Preprocessing,
    others: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a bundle around a network, and others of its precisions; one written by export has measured statistics."""
    others = {} if others is None else others
    loose = {"cosine": 0.99, "max_abs": 0.1}
    Bundle.write(
        path,
        name=name,
        licence="Apache-2.0",
        source="tests",
        dim=dim,
        preprocessing=preprocessing,
        statistics={"count": 1, "mean": [0.25] * dim, "std": [0.5] * dim, "minimum": 0.0},
        verify={"float32": {"cosine": 0.99999, "max_abs": 0.001}, **{PRECISIONS[member]: loose for member in others}},
        files={"backbone.onnx": network, **others, "verify.safetensors": verification(network, preprocessing)},
    )
    return path


def write_tiny_bundle(path: Path, *, seed: int = 0, dim: int = 16, others: Mapping[str, bytes] | None = None) -> Path:
    """Write the bundle of a tiny random network; another seed gives other weights, hence another contract."""
    network = tiny_onnx(seed=seed, dim=dim)
    return write_bundle(path, network, name=f"tiny-{seed}", dim=dim, preprocessing=TINY_PREPROCESSING, others=others)
