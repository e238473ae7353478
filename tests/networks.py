"""Small networks for tests of the exporter: torch modules with their factories, and ONNX graphs as text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, parser, shape_inference
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class Residual(nn.Module):
    """A residual network of two blocks: (N, 3, 48, 48) to (N, 24)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 12, 2), Block(12, 24, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x).mean(dim=(2, 3))


class Attention(nn.Module):
    """Multi-head self-attention, written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(dim=-1)
        return self.project((weights @ v).transpose(1, 2).reshape(n, t, d))


class Transformer(nn.Module):
    """A vision transformer of one hand-written and one torch layer: (N, 3, 48, 32) to (N, 32), class token."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 6 * 4 + 1, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.norm(self.layer(x))[:, 0]


def residual() -> nn.Module:
    """Make a residual network whose batch norms did see data."""
    torch.manual_seed(0)
    module = Residual()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.2)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.eval()


def transformer() -> nn.Module:
    """Make a vision transformer."""
    torch.manual_seed(0)
    return Transformer().eval()


def flattened_wrongly() -> nn.Module:
    """Make a module that returns a map instead of an embedding."""
    return nn.Conv2d(3, 4, 3)


def number() -> int:
    """Make what is no module."""
    return 7


def failing() -> nn.Module:
    """Make nothing."""
    raise RuntimeError("no such luck")


CONVOLUTIONS = """
    conv = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (input, w1, b1)
    normed = BatchNormalization (conv, scale, shift, mean, variance)
    relu = Relu (normed)
    map = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (relu, w2, b2)
    active = Relu (map)
    pooled = GlobalAveragePool (active)
    embedding = Flatten (pooled)
"""
HEAD = """
    hidden = MatMul (embedding, w3)
    logits = Relu (hidden)
"""


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the weights of `CONVOLUTIONS` and `HEAD`."""
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 8),
        "scale": rng.uniform(0.5, 1.5, 8),
        "shift": rng.normal(0, 0.1, 8),
        "mean": rng.normal(0, 0.1, 8),
        "variance": rng.uniform(0.5, 2, 8),
        "w2": rng.normal(0, 0.3, (16, 8, 3, 3)),
        "b2": rng.normal(0, 0.1, 16),
        "w3": rng.normal(0, 0.3, (16, 5)),
    }


def network(
    body: str = CONVOLUTIONS,
    *,
    inputs: str = "float[N, 3, 32, 32] input",
    outputs: str = "float[N, 16] embedding",
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Build an ONNX network from text; floating-point constants become float32, unless they are float16."""
    constants = weights() if constants is None else constants
    graph = parser.parse_graph(f"net ({inputs}) => ({outputs}) {{ {body} }}")
    read = {name for node in graph.node for name in node.input}
    for name, value in constants.items():
        if name in read:
            value = np.asarray(value)
            value = value.astype(np.float32) if value.dtype == np.float64 else value
            graph.initializer.append(numpy_helper.from_array(value, name))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto | bytes, feeds: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    """Run a network in ONNX's own reference implementation, which shares no code with ONNX Runtime."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(model) if isinstance(model, bytes) else model
    return ReferenceEvaluator(model).run([output], dict(feeds))[0]


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of each tensor, as strict inference finds it."""
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in inferred.initializer}


def node_types(model: onnx.ModelProto) -> dict[str, set[int]]:
    """Floating-point types in which each kind of node computes; casts aside."""
    types, found = element_types(model), {}
    for node in model.graph.node:
        if node.op_type != "Cast":
            found.setdefault(node.op_type, set()).update(types[name] for name in [*node.input, *node.output] if name)
    return {kind: kinds & {TensorProto.FLOAT, TensorProto.FLOAT16} for kind, kinds in found.items()}
