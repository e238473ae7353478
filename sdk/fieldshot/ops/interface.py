"""The seam between the algorithm (fieldshot.head) and the hardware: a handful of coarse operations.

N samples, D embedding dimension, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float32", "Float64", "Index", "Ops", "Prior", "Solution", "Support", "Transduction"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Index = NDArray[np.intp]


class Prior(NamedTuple):
    """What the model believes before it has seen a sample, each in units of samples or variance.

    mean : weight of the centre of all classes in a class mean, in samples.
    covariance : weight of the round covariance in the shared covariance, in degrees of freedom.
    spread : expected squared distance of a transformed embedding from its class mean.
    spread_weight : weight of `spread` against the measured one, in degrees of freedom.
    """

    mean: float
    covariance: float
    spread: float
    spread_weight: float


@dataclass(frozen=True)
class Support:
    """Transformed support samples and their statistics.

    U : float32 (M, D), samples at hand; all of them, or where `moment` is there, those to be held out.
    index : intp (M,), their classes.
    counts : float64 (K,), samples of each class.   sums : float64 (K, D), their sums.
    moment : float64 (D, D), second moment of all samples; None where `U` has them all.
    """

    U: Float32
    index: Index
    counts: Float64
    sums: Float64
    moment: Float64 | None


class Solution(NamedTuple):
    """A fitted head: scores are ``U @ weights.T + bias``.

    weights : float32 (K, D).   bias : float32 (K,).
    held_out : float64 (M, K), the scores of M samples under the head fitted without each of them.
    held_out_class : intp (M,), their classes. Samples alone in their class have no such score.
    """

    weights: Float32
    bias: Float32
    held_out: Float64
    held_out_class: Index


class Transduction(NamedTuple):
    """How unlabelled samples pull the class means.

    temperature : factor on scores before the softmax.   weight : what an unlabelled sample counts against
    a labelled one.   steps : rounds.
    """

    temperature: float
    weight: float
    steps: int


class Ops(Protocol):
    """Coarse operations on embeddings; every implementation passes one conformance suite."""

    name: str

    def transform(self, Z: Any) -> Float32:
        """Signed square root, then unit length: (N, D) any float -> (N, D) float32."""
        ...

    def moment(self, U: Float32) -> Float64:
        """Second moment ``U.T @ U``: (N, D) -> (D, D)."""
        ...

    def fit(self, support: Support, prior: Prior) -> Solution:
        """Solve for the weights: in the M x M Gram matrix, or in D x D where there is a second moment."""
        ...

    def scores(self, U: Float32, weights: Float32, bias: Float32) -> Float32:
        """``U @ weights.T + bias``: (N, D) -> (N, K)."""
        ...

    def adapt(
        self,
        unlabelled: Float32,
        weights: Float32,
        bias: Float32,
        support: Support,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples (M, D) pull the class means: new weights (K, D) and bias (K,)."""
        ...
