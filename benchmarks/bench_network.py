"""The network of each engine that is here, beside bare ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from fieldshot import Backbone
from turns import in_turn


@pytest.mark.parametrize("batch", [1, 8], ids=lambda batch: f"batch-{batch}")
def bench_network(benchmark: Any, compared: dict[str, float], backbone: Backbone, batch: int) -> None:
    """`run` beside a session of the same options."""
    network = backbone.bundle.read("backbone.onnx")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    bare = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    inputs = np.random.default_rng(0).normal(size=(batch, 3, *backbone.preprocessing.size)).astype(np.float32)

    def run() -> np.ndarray:
        return bare.run(["embedding"], {"input": inputs})[0]

    compared.update(in_turn(3, ours=lambda: backbone.run(inputs), onnxruntime=run))
    benchmark.extra_info.update(compared, engine=backbone.info()["engine"])
    embeddings = benchmark.pedantic(backbone.run, (inputs,), rounds=20, warmup_rounds=2)
    np.testing.assert_allclose(embeddings, run(), rtol=1e-3, atol=1e-3)
