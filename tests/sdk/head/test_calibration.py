"""Temperature and open-set threshold against plain searches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from fieldshot import FewShotHead
from fieldshot.head.calibration import open_set, whole_support_factor
from fieldshot.ops import Support
from fieldshot.ops.reference import held_out_cosines, softmax, temperature


def held_out(seed, counts, sharpness):
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.normal(size=(len(index), len(counts))) + sharpness * np.eye(len(counts))[index], index


def test_softmax_rows_are_probabilities_at_any_size():
    scores = np.array([[0.0, 1e4, -1e4], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(softmax(scores), [[0, 1, 0], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("prior_scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("sharpness", [0.0, 2.0, 50.0])
@pytest.mark.parametrize("counts", [(40, 40, 40, 40, 40), (2, 40, 40, 9, 109)])
def test_temperature_is_the_minimum_of_its_objective(prior_scale, sharpness, counts):
    scores, index = held_out(0, counts, sharpness)
    weight = np.ones(len(index))  # where classes are equal; else a class as a whole has n / (n + 5)
    if len(set(counts)) > 1:
        weight = 1.0 / (np.array(counts) + 5.0)[index]
        weight *= len(index) / weight.sum()

    def objective(log_scale):
        loss = -log_softmax(math.exp(log_scale) * scores, axis=1)[np.arange(len(index)), index]
        return weight @ loss + 0.5 * 5.0 * (log_scale - math.log(prior_scale)) ** 2

    grid = np.linspace(math.log(prior_scale) - 10, math.log(prior_scale) + 10, 400)
    start = grid[np.argmin([objective(g) for g in grid])]
    best = minimize_scalar(objective, bracket=(start - 0.1, start + 0.1)).x
    assert math.log(temperature(scores, index, prior_scale, 5.0)) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("device", ["reference", "host"])
@pytest.mark.parametrize("few", [2, 3, 40])
def test_a_class_of_few_samples_does_not_make_all_confidences_timid(device, few):
    sure, right = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        centres = 0.35 * rng.normal(size=(6, 64))
        y, truth = np.repeat(np.arange(6), [40] * 5 + [few]), np.repeat(np.arange(5), 60)
        Z, queries = (np.maximum(centres[of] + rng.normal(size=(len(of), 64)), 0) for of in (y, truth))
        chances = FewShotHead(device=device).fit(Z, y).predict_proba(queries)
        sure.append(chances.max(axis=1).mean())
        right.append(np.mean(chances.argmax(axis=1) == truth))
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.1)


def test_without_held_out_samples_the_prior_stands():
    assert temperature(np.zeros((0, 3)), np.zeros(0, int), 0.25, 5.0) == 0.25
    assert temperature(np.zeros((9, 1)), np.zeros(9, int), 0.25, 5.0) == 0.25


def embeddings(seed, classes=5, count=40, dim=12, spread=0.7):
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(classes), count)
    return (rng.normal(size=(classes, dim))[index] + spread * rng.normal(size=(len(index), dim))).astype(
        np.float32
    ), index


def cosines(U, index):
    counts = np.bincount(index)
    sums = np.stack([U[index == k].sum(axis=0, dtype=np.float64) for k in range(len(counts))])
    return held_out_cosines(Support(U, np.append(0, np.cumsum(counts)), counts.astype(float), sums, None))


def brute_force(U, index):
    """Best cosine of each sample with the class means without it, and with those of the other classes."""
    known, unknown = [], []
    for i, u in enumerate(U.astype(np.float64)):
        rest = np.arange(len(U)) != i
        means = [U[rest & (index == k)].mean(axis=0, dtype=np.float64) for k in range(index.max() + 1)]
        cosines = np.array([u @ m / np.linalg.norm(u) / np.linalg.norm(m) for m in means])
        known.append(cosines.max())
        unknown.append(np.delete(cosines, index[i]).max())
    return np.array(known), np.array(unknown)


@pytest.mark.parametrize("spread", [0.2, 0.7, 2.0])
@pytest.mark.parametrize("rate", [None, 0.1, 0.02])
def test_open_set_is_what_holding_samples_out_gives(rate, spread):
    U, index = embeddings(0, spread=spread)
    result = open_set(*cosines(U, index), 5, rate)
    known, unknown = brute_force(U, index)
    expected = np.quantile(unknown, 1 - (rate or 0.05))
    if rate is None:
        expected = min(np.quantile(known, 0.05), expected)
    assert result.threshold == pytest.approx(expected, abs=1e-5)
    assert result.false_accept_rate == pytest.approx(np.mean(unknown >= expected), abs=0.006)
    assert result.false_reject_rate == pytest.approx(np.mean(known < expected), abs=0.006)
    assert result.samples == len(U)


@pytest.mark.parametrize(("count", "rate"), [(3, None), (1, None), (19, 0.01)])
def test_too_few_samples_promise_nothing(count, rate):
    U, index = embeddings(1, count=count)
    result = open_set(*cosines(U, index), 5, rate)
    assert math.isnan(result.threshold)
    assert result.samples == (len(U) if count > 1 else 0)


def test_the_head_of_all_samples_is_surer_than_those_that_were_judged():
    assert whole_support_factor(np.array([2.0, 2.0])) == 1.5
    assert whole_support_factor(np.array([1.0, 4.0])) == 1.25  # the first held nothing out
    assert whole_support_factor(np.array([1.0, 1.0])) == 1.0
