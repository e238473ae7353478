"""What unlabelled samples do to a head, and how far they are trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fieldshot.ops import Support, Transduction
from fieldshot.ops.reference import softmax, unit

if TYPE_CHECKING:
    from fieldshot.ops import Float32, Float64, Ops, Prior, Solution

__all__ = ["Adaptation", "adapted"]

# What an unlabelled sample counts against all labelled ones of a class, as long as classes are equally frequent.
_WEIGHT = 0.4
# At this imbalance unlabelled samples count nothing.
_MOST_IMBALANCE = 0.7
# So many of them a class count nothing, and from twice as many on they count in full: a handful says little of where
# the class means are, and as it vouches for itself the confidences of all other samples would fall.
_HANDFUL = 5.0
# They choose their classes by scores of which the best leads the next by so much on average: more sharply than
# confidences say, for shares spread over all classes would pull all means to the centre.
_LEAD, _STEPS = 4.0, 6
# Of the covariance prior where no class has shown scatter yet: it stays round.
_ROUND = 1e6
# So many samples settle how sure the head is on average.
_SURENESS_SAMPLES = 1024


@dataclass(frozen=True)
class Adaptation:
    """What a head has made of unlabelled samples.

    Attributes
    ----------
    samples : int
        How many there were.
    imbalance : float
        Mean squared deviation of the classes' shares, times their number, from 1, as the head saw them before, less
        what chance would give: 0 for equally frequent classes.
    weight : float
        What each counted against a labelled sample: less the more of these a class has, and the less equally frequent
        the classes seem, nothing at an imbalance of 0.7; nothing where there are up to 5 a class, in full from 10 on.
    proportions : float64 (K,)
        How the samples are spread over `classes_`, as the adapted head sees them; sums to 1.
    """

    samples: int
    imbalance: float
    weight: float
    proportions: Float64


def adapted(
    unlabelled: Float32, solution: Solution, temperature: float, support: Support, prior: Prior, ops: Ops
) -> tuple[Float32, Float32, float, Adaptation]:
    """Let unlabelled samples (M, D) pull the class means: weights (K, D), bias (K,), temperature and what was decided.

    Where all labelled samples are at hand, the unlabelled choose their classes among features that are centred by all
    samples together and of unit length again (CL2N of Wang et al., "SimpleShot", 2019, with the centre of the task).
    Thereby no class near the centre of the queries takes them all, which a support of few samples is bound to have.
    """
    scores = _scores(unlabelled, solution.weights, solution.bias)
    before = softmax(temperature * scores)
    (M, K), shots = scores.shape, float(support.counts.mean())
    answers = np.bincount(scores.argmax(axis=1), minlength=K) / M
    imbalance = max(0.0, float(np.mean((K * answers - 1.0) ** 2)) - (K - 1) / M)
    weight = _WEIGHT / shots * max(0.0, 1.0 - imbalance / _MOST_IMBALANCE)
    weight *= min(1.0, max(0.0, M / (_HANDFUL * K) - 1.0))
    if weight == 0.0 or K < 2:
        same = Adaptation(M, imbalance, 0.0, before.mean(axis=0))
        return solution.weights, solution.bias, temperature, same
    rule = Transduction(_sharpness(scores), weight, _STEPS)
    if support.moment is None:
        shares, rule = _shares_among_centred(unlabelled, support, prior, weight, ops), rule._replace(steps=1)
    else:
        shares = softmax(rule.temperature * scores)
    weights, bias = ops.adapt(unlabelled, shares, support, prior, rule)
    scores = _scores(unlabelled, weights, bias)
    temperature = _as_sure_as(before[:_SURENESS_SAMPLES], scores[:_SURENESS_SAMPLES])
    proportions = softmax(temperature * scores).mean(axis=0)
    return weights, bias, temperature, Adaptation(M, imbalance, weight, proportions)


def _shares_among_centred(unlabelled: Float32, support: Support, prior: Prior, weight: float, ops: Ops) -> Float64:
    """Shares of the classes (M, K) after expectation maximisation on features around the centre of all samples."""
    samples = len(support.U) + len(unlabelled)
    centre = (support.sums.sum(axis=0) + unlabelled.sum(axis=0, dtype=np.float64)) / samples
    queries, U = (unit(rows - centre).astype(np.float32) for rows in (unlabelled, support.U))
    sums = np.eye(len(support.counts))[support.index].T @ U
    around = Support(U, support.starts, support.counts, sums, None)
    if len(support.U) == len(support.counts):
        prior = prior._replace(covariance=_ROUND)
    solution = ops.fit(around, prior)
    scores = _scores(queries, solution.weights, solution.bias)
    rule = Transduction(_sharpness(scores), weight, _STEPS - 1)
    weights, bias = ops.adapt(queries, softmax(rule.temperature * scores), around, prior, rule)
    return softmax(rule.temperature * _scores(queries, weights, bias))


def _scores(queries: Float32, weights: Float32, bias: Float32) -> Float64:
    return np.asarray(queries @ weights.T + bias, np.float64)


def _sharpness(scores: Float64) -> float:
    """The factor on scores under which the best leads the next by `_LEAD` on average."""
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return _LEAD / max(float(np.mean(two[:, 1] - two[:, 0])), 1e-9)


def _as_sure_as(before: Float64, scores: Float64) -> float:
    """The factor on scores under which the best class is as probable on average as it was before.

    Unlabelled samples moved the means towards themselves, so that their own scores overstate how sure they are.
    """
    wanted, size = float(before.max(axis=1).mean()), max(float(scores.std()), 1e-9)
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        if softmax(math.exp(middle) / size * scores).max(axis=1).mean() > wanted:
            high = middle
        else:
            low = middle
    return math.exp(middle) / size
