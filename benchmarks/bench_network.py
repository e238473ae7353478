"""The embedded network by each engine and in each precision, beside bare ONNX Runtime on the CPU; loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bare
from fieldshot import Backbone
from fieldshot.errors import DeviceError, MissingDependencyError
from turns import Compare


@pytest.mark.parametrize("batch", [1, 8], ids=lambda batch: f"batch-{batch}")
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("engine", ["onnxruntime", "tensorrt"])
def bench_network(
    benchmark: Any, compare: Compare, backbone: Backbone, engine: str, precision: str, batch: int
) -> None:
    """`run` beside a session of the same network and options."""
    if precision not in backbone.bundle.precisions:
        pytest.skip(f"the embedded bundle has no network in {precision}")
    try:
        ours = Backbone.default(engine=engine, precision=precision)
    except (DeviceError, MissingDependencyError) as error:
        pytest.skip(error.message)
    assert ours.precision == precision
    session = bare.session(backbone.bundle.read(backbone.bundle.network(precision)))
    inputs = np.random.default_rng(0).normal(size=(batch, 3, *ours.preprocessing.size)).astype(np.float32)
    compare(2, ours=lambda: ours.run(inputs), onnxruntime=lambda: bare.run(session, inputs))
    embeddings = benchmark.pedantic(ours.run, (inputs,), rounds=20, warmup_rounds=2)
    tolerance = 1e-3 if precision == "float32" else 0.03
    np.testing.assert_allclose(embeddings, bare.run(session, inputs), rtol=tolerance, atol=tolerance)


def bench_load(benchmark: Any, compare: Compare, backbone: Backbone) -> None:
    """Every digest and the verification pictures are checked in it."""
    network = backbone.bundle.read("backbone.onnx")
    compare(2, ours=Backbone.default, onnxruntime=lambda: bare.session(network))
    assert benchmark.pedantic(Backbone.default, rounds=5).contract == backbone.contract


def bench_first_embed(benchmark: Any, compare: Compare, backbone: Backbone, photographs: dict[int, Path]) -> None:
    """Of a backbone just loaded, beside one that has been at it."""

    def embed(fresh: Backbone) -> np.ndarray:
        return fresh.embed(photographs[640])

    compare(2, ours=(Backbone.default, embed), warm=lambda: embed(backbone))
    first = benchmark.pedantic(embed, setup=lambda: ((Backbone.default(),), {}), rounds=5)
    np.testing.assert_array_equal(first, embed(backbone))
