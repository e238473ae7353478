"""What every source of a network hands to the exporter, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT = "input"
"""Name of the network's input in a bundle."""

OUTPUT = "embedding"
"""Name of the network's output in a bundle."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A network to be exported, together with the framework that it came from.

    Parameters
    ----------
    name : str
        Name of the bundle unless the user gives another.
    description : str
        Where the network came from, for the manifest.
    model : onnx.ModelProto
        The network as the bundle holds it: float32, input `input` (N, 3, H, W), output `embedding` (N, D).
    embed : callable
        Maps float32 (N, 3, H, W), preprocessed, to float32 (N, D) with the source's own framework and nothing
        of `model`: what the bundle is measured against.
    notes : tuple of str
        What was changed on the way, in words for the user.
    """

    name: str
    description: str
    model: ModelProto
    embed: Callable[[Floats], Floats]
    notes: tuple[str, ...] = ()


def open_session(model: bytes | ModelProto, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    """Open a network in ONNX Runtime on the CPU, silent about what it thinks of the graph.

    Parameters
    ----------
    model : bytes or onnx.ModelProto
        The network.
    optimise : bool
        False runs the graph as it stands, node by node.

    Returns
    -------
    onnxruntime.InferenceSession
        Session whose failures are exceptions only.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: failures reach the caller as exceptions, not as lines on stderr
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def first_line(error: BaseException) -> str:
    """Keep the first line of another library's message, which is where the reason stands."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
