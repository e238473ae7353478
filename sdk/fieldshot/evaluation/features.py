"""What baselines do to embeddings before they learn: unit length, the signed root, centring; and softmax after.

N samples, D embedding dimension, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float64, Index

__all__ = ["Centred", "Features", "centred", "class_means", "power", "softmax", "unit"]

# Embeddings (N, D) of any float -> float64 (N, D).
Features = Callable[[Any], "Float64"]


def unit(Z: Any, dtype: type[np.floating[Any]] = np.float64) -> NDArray[Any]:
    """Each row divided by its Euclidean length (N, D), of `dtype`; a row of zeros stays zeros."""
    array = np.asarray(Z, dtype=dtype)
    lengths = np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(dtype).tiny)
    return np.asarray(array / lengths)


def power(Z: Any) -> Float64:
    """Signed square root of each number, then unit length (Hu et al. 2021, PT-MAP, at one half)."""
    array = np.asarray(Z, dtype=np.float64)
    return unit(np.sign(array) * np.sqrt(np.abs(array)))


def class_means(X: Float64, y: Index) -> Float64:
    """Mean of the samples of each class (K, D); `y` is of 0..K-1, every class present."""
    members = np.eye(int(y.max()) + 1)[y].T
    return np.asarray(members @ X / members.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Centred:
    """Features less a centre, and unit length again: Wang et al. 2019, "SimpleShot", CL2N.

    Attributes
    ----------
    base : callable
        What comes before.
    centre : float64 (D,)
    """

    base: Features
    centre: Float64

    def __call__(self, Z: Any) -> Float64:
        """Embeddings (N, D) -> float64 (N, D)."""
        return unit(self.base(Z) - self.centre)


def centred(base: Features, Z: Any, y: Index) -> Centred:
    """`base`, centred by the mean of the class means of a support set."""
    return Centred(base, class_means(base(Z), y).mean(axis=0))


def softmax(logits: Float64) -> Float64:
    """Over the last axis: (M, K) -> (M, K), rows sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))
