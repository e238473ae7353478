"""Embeddings of classes that lie apart, as far as they are asked to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clusters(
    classes: int = 6, count: int = 12, spread: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Embeddings (N, 16) and labels (N,) of noise around a centre of each class."""
    rng = np.random.default_rng(seed)
    y = np.repeat([f"class {k}" for k in range(classes)], count)
    centres = np.random.default_rng(1).gamma(2.0, size=(classes, 16))
    return np.maximum(np.repeat(centres, count, axis=0) + spread * rng.normal(size=(len(y), 16)), 0), y
