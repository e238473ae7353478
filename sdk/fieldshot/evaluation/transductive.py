"""Heads that look at all queries together before they answer, each as published, on frozen embeddings.

N support samples, M unlabelled ones (the queries), D embedding dimension, K classes; X stands for features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fieldshot.evaluation.features import Centred, class_means, softmax, unit

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32, Float64, Index

__all__ = ["BASELINES", "FineTuning", "InformationMaximization", "LaplacianShot"]

_TEMPERATURE = 15.0  # of TIM and alpha-TIM; a Python float, so that float32 stays float32


class Terms(NamedTuple):
    """What is minimised: cross-entropy of the support - marginal * H(Y) + conditional * H(Y|X) of the queries.

    Attributes
    ----------
    cross_entropy, marginal, conditional : float
        Weights.
    alpha : float
        Of both entropies, Tsallis' ``(1 - sum p^alpha) / (alpha - 1)``; 1 is Shannon's.
    """

    cross_entropy: float
    marginal: float
    conditional: float
    alpha: float = 1.0


class FineTuning:
    """Transductive fine-tuning (Dhillon et al. 2020, eq. 8) of the head alone.

    Logits are ``w . x + b`` of embeddings after a ReLU, of unit length. w starts as the unit class mean, b as 0; then
    come 25 steps of Adam, each on all samples (one step an epoch), on the cross-entropy of the support plus the
    entropy of the queries.
    """

    def fit(self, Z: Float32, y: Index, unlabelled: Float32) -> FineTuning:
        """Learn from embeddings (N, D) of classes (N,), and from `unlabelled` ones (M, D)."""
        support, queries = _with_one(_rectified(Z)), _with_one(_rectified(unlabelled))
        members, terms = np.eye(int(y.max()) + 1)[y], Terms(1.0, 0.0, 1.0)

        def gradient(weights: Float64) -> Float64:
            of_support, of_queries = logit_gradients(support @ weights.T, members, queries @ weights.T, terms)
            return np.asarray(of_support.T @ support + of_queries.T @ queries)

        means = unit(class_means(np.maximum(np.asarray(Z, dtype=np.float64), 0), y))
        start = np.concatenate([means, np.zeros((len(means), 1))], axis=1)
        self._weights = adam(start, gradient, rate=5e-5, steps=25)
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Probabilities (M, K) of embeddings (M, D)."""
        return softmax(_with_one(_rectified(Z)) @ self._weights.T)


class InformationMaximization:
    """TIM-GD (Boudiaf et al. 2020, eq. 3) and alpha-TIM (Veilleux et al. 2021, eq. 9): confident answers, many classes.

    Embeddings are of unit length, logits ``-(15 / 2) |x - w|^2``, w starts as the class mean; then come 1000 steps of
    Adam at 1e-4. TIM-GD is the better of the two published ways to minimise TIM, ten times as slow as the closed-form
    one.

    Parameters
    ----------
    terms : callable
        Mean number of samples a class -> the terms that are minimised.
    """

    def __init__(self, terms: Callable[[float], Terms]) -> None:
        self._terms = terms

    def fit(self, Z: Float32, y: Index, unlabelled: Float32) -> InformationMaximization:
        """Learn from embeddings (N, D) of classes (N,), and from `unlabelled` ones (M, D)."""
        classes = int(y.max()) + 1
        gradient = partial(
            tim_gradient,
            support=unit(Z).astype(np.float32),
            members=np.eye(classes, dtype=np.float32)[y],
            queries=unit(unlabelled).astype(np.float32),
            terms=self._terms(len(y) / classes),
        )
        # In all dimensions: Adam scales each by itself, so it would not be the same in a basis of the span.
        start = class_means(unit(Z), y).astype(np.float32)
        self._weights = adam(start, gradient, rate=1e-4, steps=1000).astype(np.float64)
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Probabilities (M, K) of embeddings (M, D)."""
        return softmax(distance_logits(unit(Z), self._weights))


def _tim(shots: float) -> Terms:
    return Terms(0.1, 1.0, 0.1)


def _alpha_tim(shots: float) -> Terms:
    """Published are alpha 2 at one shot and 7 from five; between them it is linear."""
    return Terms(1.0, 1.0, 1.0, alpha=float(np.interp(shots, [1, 5], [2, 7])))


class LaplacianShot:
    """Nearest mean, with neighbouring queries in agreement (Ziko et al. 2020, eq. 10, algorithm 1).

    Features are of unit length, less the mean of support and queries (the published one is of base classes, which
    are not at hand), and of unit length again. Each query is tied to its two nearest: the three of the published code
    count the query itself. lambda is 0.7, and there are 20 updates.
    """

    _ties, _strength, _updates = 2, 0.7, 20

    def fit(self, Z: Float32, y: Index, unlabelled: Float32) -> LaplacianShot:
        """Learn from embeddings (N, D) of classes (N,), and from `unlabelled` ones (M, D)."""
        self._map = Centred(unit, np.concatenate([unit(Z), unit(unlabelled)]).mean(axis=0))
        self._means, self._queries = class_means(self._map(Z), y), self._map(unlabelled)
        nearness, ties = -_squared(self._queries, self._means), self._ties_of(self._queries)
        self._assigned = softmax(nearness)
        for _ in range(self._updates - 1):  # the last one is made where it is asked for
            self._assigned = self._updated(nearness, ties)
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Soft assignments (M, K): of the samples that it saw, after the last update; of others, tied to those."""
        X = self._map(Z)
        return self._updated(-_squared(X, self._means), self._ties_of(X))

    def _ties_of(self, X: Float64) -> Float64:
        """1 where a sample is tied to a query (L, M), else 0; none is tied to itself."""
        gaps = _squared(X, self._queries)
        gaps[gaps < 1e-12] = np.inf
        ties = np.zeros_like(gaps)
        np.put_along_axis(ties, np.argsort(gaps, axis=1, kind="stable")[:, : self._ties], 1, axis=1)
        return np.where(gaps < np.inf, ties, 0)

    def _updated(self, nearness: Float64, ties: Float64) -> Float64:
        return softmax(nearness + self._strength * ties @ self._assigned)


def distance_logits(X: Float64, weights: Float64) -> Float64:
    """``-(15 / 2) |x - w|^2`` less what all classes share: (N, D), (K, D) -> (N, K)."""
    return np.asarray(_TEMPERATURE * (X @ weights.T - np.sum(weights**2, axis=1) / 2))


def tim_gradient(weights: Any, support: Any, members: Any, queries: Any, terms: Terms) -> Any:
    """Gradient (K, D) of the terms, where logits are `distance_logits`."""
    gradients = logit_gradients(distance_logits(support, weights), members, distance_logits(queries, weights), terms)
    pulls = sum(
        of.T @ X - of.sum(axis=0)[:, None] * weights for of, X in zip(gradients, (support, queries), strict=True)
    )
    return _TEMPERATURE * pulls


def logit_gradients(of_support: Any, members: Any, of_queries: Any, terms: Terms) -> tuple[Any, Any]:
    """Gradients of the terms by the logits of support (N, K) and queries (M, K); `members` (N, K) is one-hot."""
    seen, found = softmax(of_support), softmax(of_queries)
    by_probability = terms.conditional * _slope(found, terms.alpha)
    by_probability -= terms.marginal * _slope(found.mean(axis=0), terms.alpha)
    by_logit = found * (by_probability - np.sum(found * by_probability, axis=1, keepdims=True))
    return terms.cross_entropy * (seen - members) / len(seen), by_logit / len(found)


def _slope(p: Any, alpha: float) -> Any:
    """Derivative of Tsallis' entropy by each probability."""
    if alpha == 1:
        return -1 - np.log(p + 1e-12)
    return -alpha / (alpha - 1) * p ** (alpha - 1)


def adam(start: Any, gradient: Callable[[Any], Any], rate: float, steps: int) -> Any:
    """Minimise by Adam (Kingma and Ba 2015, algorithm 1) with its usual decay rates."""
    point, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        slope = gradient(point)
        first += 0.1 * (slope - first)
        second += 0.001 * (slope * slope - second)
        point -= rate / (1 - 0.9**step) * first / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return point


def _rectified(Z: Any) -> Float64:
    return unit(np.maximum(np.asarray(Z), 0))


def _with_one(X: Float64) -> Float64:
    """A column of ones for the bias."""
    return np.concatenate([X, np.ones((len(X), 1))], axis=1)


def _squared(X: Float64, means: Float64) -> Float64:
    """Squared distances (M, K)."""
    return np.asarray(np.sum(X**2, axis=1)[:, None] - 2 * X @ means.T + np.sum(means**2, axis=1))


# Name -> what makes a fresh one, in the order of tables.
BASELINES: dict[str, Callable[[], FineTuning | InformationMaximization | LaplacianShot]] = {
    "transductive fine-tuning": FineTuning,
    "TIM": partial(InformationMaximization, _tim),
    "alpha-TIM": partial(InformationMaximization, _alpha_tim),
    "LaplacianShot": LaplacianShot,
}
