"""Folding of batch norms."""

from __future__ import annotations

import numpy as np

from fieldshot_export import batch, fold
from networks import CONVOLUTIONS, network, run


def test_a_folded_network_gives_the_same() -> None:
    model, pictures = network(), batch.noise(2, (32, 32))
    expected = run(model, {"input": pictures}, "embedding")
    assert fold.batch_norms(model) == 1
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert {t.name for t in model.graph.initializer} == {"normed_weight", "normed_bias", "w2", "b2"}
    np.testing.assert_allclose(run(model, {"input": pictures}, "embedding"), expected, rtol=1e-5, atol=1e-6)


def test_a_convolution_without_bias_gets_one() -> None:
    model, pictures = network(CONVOLUTIONS.replace("(input, w1, b1)", "(input, w1)")), batch.noise(2, (32, 32))
    expected = run(model, {"input": pictures}, "embedding")
    assert fold.batch_norms(model) == 1
    np.testing.assert_allclose(run(model, {"input": pictures}, "embedding"), expected, rtol=1e-5, atol=1e-6)


def test_a_convolution_with_another_reader_is_left() -> None:
    model = network(CONVOLUTIONS.replace("Relu (normed)", "Add (normed, conv)"))
    assert fold.batch_norms(model) == 0
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}


def test_a_convolution_that_is_an_output_is_left() -> None:
    model = network(outputs="float[N, 16] embedding, float[N, 8, 16, 16] conv")
    assert fold.batch_norms(model) == 0
