"""Batches of pictures on their way into a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fieldshot import Backbone


def test_memory_of_inputs_is_used_again(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone.load(tiny_bundle, "onnxruntime", threads=2)
    run, seen = backbone._engine.run_beside, set()

    def note(inputs: np.ndarray) -> np.ndarray:
        seen.add(inputs.__array_interface__["data"][0])
        return run(inputs)

    monkeypatch.setattr(backbone._engine, "run_beside", note)
    pictures = np.random.default_rng(0).integers(0, 256, (61, 40, 40, 3), np.uint8)
    assert backbone.embed(list(pictures)).shape == (61, 16)
    assert 1 <= len(seen) <= 2
