"""Problems for operations, ragged ones among them, and how close two answers are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fieldshot.ops import Classifier, Ops, Prior, Solution, Support, Transduction
from fieldshot.ops.reference import ReferenceOps

REFERENCE = ReferenceOps()


class Problem(NamedTuple):
    """Embeddings (N, D) class by class, and the support that the reference makes of them."""

    Z: np.ndarray
    starts: np.ndarray
    support: Support
    prior: Prior


def problem(
    counts: list[int],
    D: int,
    *,
    seed: int = 0,
    moment: bool = False,
    keep: int | None = None,
    mean: float = 2.0,
    covariance: float = 200.0,
) -> Problem:
    """ReLU-like embeddings around a centre a class, with `keep` samples of each to be held out."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    Z = np.maximum(rng.gamma(2.0, size=(len(counts), D))[y] + rng.normal(size=(len(y), D)), 0).astype(np.float32)
    starts = np.append(0, np.cumsum(counts)).astype(np.int32)
    U, sums = REFERENCE.absorb(Z, starts)
    sizes = [count if keep is None else min(keep, count) for count in counts]
    held_out = np.concatenate([np.arange(first, first + size) for first, size in zip(starts, sizes, strict=False)])
    others = [] if moment else np.setdiff1d(np.arange(len(U)), held_out)
    at_hand = U[np.append(others, held_out).astype(int)]
    second = REFERENCE.moment(U) if moment else None
    kept_starts = np.append(0, np.cumsum(sizes)).astype(np.int32)
    support = Support(at_hand, kept_starts, np.array(counts, np.float64), sums, second)
    return Problem(Z, starts, support, Prior(mean, covariance, 0.1, 0.6, 2.0, 16.0 / D, 5.0))


def distance(got: Any, expected: Any) -> float:
    """Largest difference, as a share of the largest number; what is not finite must be alike."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    scale = np.abs(expected[finite]).max(initial=0.0)
    return float(np.abs(got[finite] - expected[finite]).max(initial=0.0) / (scale or 1.0))


def errors_of(ops: Ops, given: Problem) -> dict[str, float]:
    """How far each operation is from the reference on one problem."""
    U, sums = ops.absorb(given.Z, given.starts)
    expected_U, expected_sums = REFERENCE.absorb(given.Z, given.starts)
    errors = {"transform": distance(U, expected_U), "class_sums": distance(sums, expected_sums)}
    if given.support.moment is not None:
        half = REFERENCE.moment(expected_U[::2])
        errors["moment"] = distance(ops.moment(np.ascontiguousarray(expected_U[1::2]), half), given.support.moment)
    solution, expected = ops.fit(given.support, given.prior), REFERENCE.fit(given.support, given.prior)
    for name in Solution._fields:
        errors[f"fit {name}"] = distance(getattr(solution, name), getattr(expected, name))

    classifier = Classifier(*expected[:4])
    answers = ops.predict(ops.load(classifier), given.Z, top=3, cosines=True)
    wanted = REFERENCE.predict(REFERENCE.load(classifier), given.Z, top=3, cosines=True)
    for name in ("logits", "probabilities", "cosines"):
        errors[f"predict {name}"] = distance(getattr(answers, name), getattr(wanted, name))
    # Of classes that are as good as equal either may come first.
    ranked = np.take_along_axis(wanted.logits, answers.best, axis=1)
    errors["predict best"] = distance(ranked, np.take_along_axis(wanted.logits, wanted.best, axis=1))

    queries = np.ascontiguousarray(expected_U[::2])
    rule = Transduction(expected.temperature, 0.2, 10)
    state = (queries, answers.probabilities[::2], given.support, given.prior, rule)
    for name, one, other in zip(("weights", "bias"), ops.adapt(*state), REFERENCE.adapt(*state), strict=True):
        errors[f"adapt {name}"] = distance(one, other)
    return errors
