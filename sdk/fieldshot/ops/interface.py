"""The seam between the algorithm (fieldshot.head) and the hardware: a handful of coarse operations.

N samples, D embedding dimension, K classes. Samples come class by class: those of class k are the rows
``starts[k]`` to ``starts[k + 1]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fieldshot.images import Picture, Preprocessing

__all__ = [
    "Classifier",
    "Float32",
    "Float64",
    "Index",
    "Ops",
    "Prediction",
    "Prior",
    "Solution",
    "Support",
    "Transduction",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Index = NDArray[np.int32]


class Prior(NamedTuple):
    """What the model believes before it has seen a sample, each in units of samples or variance.

    mean : weight of the centre of all classes in a class mean, in samples.
    covariance : weight of the round covariance in the shared covariance, in degrees of freedom.
    pull : how far a class's distance from the centre stands for its scatter while it has shown none, in samples.
    spread : expected squared distance of a transformed embedding from its class mean, as a share of that between the
        class mean and the next.
    spread_weight : weight of `spread` against the measured one, in degrees of freedom.
    temperature : factor on scores before the softmax, as long as the covariance is round.
    temperature_weight : weight of `temperature` against the measured one, in samples.
    """

    mean: float
    covariance: float
    pull: float
    spread: float
    spread_weight: float
    temperature: float
    temperature_weight: float


@dataclass(frozen=True)
class Support:
    """Transformed support samples and their statistics.

    U : float32 (N, D), samples at hand: all of them, the M to be held out last; where `moment` is there, these alone.
    starts : int32 (K + 1), first of each class among those to be held out, and M.
    counts : float64 (K,), samples of each class.   sums : float64 (K, D), their sums.
    moment : float64 (D, D), second moment of all samples; None where `U` has them all.
    """

    U: Float32
    starts: Index
    counts: Float64
    sums: Float64
    moment: Float64 | None

    @property
    def held_out(self) -> int:
        """M, how many samples are to be held out."""
        return int(self.starts[-1])

    @property
    def index(self) -> Index:
        """Class of each row of `U`: int32 (N,)."""
        classes, held_out = np.arange(len(self.counts), dtype=np.int32), self.starts[1:] - self.starts[:-1]
        index = np.repeat(classes, held_out)
        if len(index) == len(self.U):
            return index
        return np.concatenate([np.repeat(classes, self.counts.astype(np.int32) - held_out), index])


class Solution(NamedTuple):
    """A fitted head, and what it would have said of its own samples had it not seen them.

    weights : float32 (K, D).   bias : float32 (K,).   prototypes : float32 (K, D), class means of unit length.
    temperature : factor on scores before the softmax, with the least log-loss on held-out samples.
    known : float64 (M,), cosine of each sample with the nearest class mean, held out of its own.
    unknown : float64 (M,), cosine with the nearest mean of another class. Both nan where alone in its class.
    held_out : float32 (M, K), scores of each sample under the head fitted without it; 0 where alone in its class.
    """

    weights: Float32
    bias: Float32
    prototypes: Float32
    temperature: float
    known: Float64
    unknown: Float64
    held_out: Float32


class Classifier(NamedTuple):
    """What predicting needs: logits are ``temperature * (u @ weights.T + bias)`` of a transformed embedding u.

    weights : float32 (K, D).   bias : float32 (K,).   prototypes : float32 (K, D), class means of unit length.
    """

    weights: Float32
    bias: Float32
    prototypes: Float32
    temperature: float


class Prediction(NamedTuple):
    """Answers to N embeddings.

    logits, probabilities : float64 (N, K).
    best : int32 (N, top), classes of the largest logits, largest first.
    cosines : float64 (N, K) with the class means; None unless asked for.
    """

    logits: Float64
    probabilities: Float64
    best: Index
    cosines: Float64 | None = None


class Transduction(NamedTuple):
    """How unlabelled samples pull the class means.

    temperature : factor on scores before the softmax.   weight : what an unlabelled sample counts against
    a labelled one.   steps : rounds, 1 at least.
    """

    temperature: float
    weight: float
    steps: int


class Ops(Protocol):
    """Coarse operations on embeddings; every implementation passes one conformance suite (tests/kernels)."""

    name: str
    about: str  # what runs, in words for a person
    threads: int  # that may call at once and finish sooner by it

    def preprocess(self, pictures: Sequence[Picture], spec: Preprocessing) -> Float32:
        """Resize, crop and normalise pictures of any sizes: uint8 RGB -> (N, 3, height, width), as ``spec.apply``."""
        ...

    def absorb(self, Z: Any, starts: Index) -> tuple[Float32, Float64]:
        """Transform embeddings and add up each class's: (N, D) any float -> (N, D) float32, (K, D) float64.

        The transform is the signed square root, then unit length.
        """
        ...

    def moment(self, U: Float32, before: Float64 | None = None) -> Float64:
        """Second moment ``before + U.T @ U``: (N, D) -> (D, D)."""
        ...

    def fit(self, support: Support, prior: Prior) -> Solution:
        """Fine-tune: in the N x N Gram matrix, or in D x D where there is a second moment."""
        ...

    def load(self, classifier: Classifier) -> Any:
        """Put a classifier where it will be used; what comes back is for `predict` of the same operations."""
        ...

    def predict(self, loaded: Any, Z: Any, *, top: int = 1, cosines: bool = False) -> Prediction:
        """Transform embeddings (N, D) and answer, with the `top` best classes each."""
        ...

    def adapt(
        self,
        unlabelled: Float32,
        shares: Float64,
        support: Support,
        prior: Prior,
        rule: Transduction,
    ) -> tuple[Float32, Float32]:
        """Let unlabelled samples (M, D) of classes by `shares` (M, K) pull the means: weights (K, D) and bias (K,)."""
        ...
