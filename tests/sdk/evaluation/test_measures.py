"""Measures against other people's code, and against what they are by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from sklearn.preprocessing import normalize

from fieldshot.evaluation.features import unit
from fieldshot.evaluation.measures import (
    brier,
    calibration_bins,
    calibration_error,
    hardness,
    mean_interval,
    worst_decile,
)


def predictions(seed=0, count=300, classes=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.5), size=count), rng.integers(0, classes, count)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).random(400)
    mean, interval = mean_interval(values)
    assert mean == pytest.approx(values.mean())
    assert interval == pytest.approx(1.96 * values.std(ddof=1) / 20)
    assert mean_interval([0.5]) == (0.5, pytest.approx(np.nan, nan_ok=True))


@pytest.mark.parametrize(("count", "lowest"), [(1, 1), (9, 1), (10, 1), (11, 2), (200, 20)])
def test_the_worst_tenth(count, lowest):
    values = np.random.default_rng(0).permutation(count) + 1.0
    assert worst_decile(values.tolist()) == pytest.approx((lowest + 1) / 2)


def test_calibration_error_is_the_textbook_loop():
    P, truth = predictions()
    confidence, right = P.max(axis=1), P.argmax(axis=1) == truth
    expected = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(calibration_bins(P, truth)) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.1  # of chance with confidence


def test_calibration_error_of_the_certain():
    P = np.eye(3)[[0, 1, 2, 0]]
    assert calibration_error(calibration_bins(P, np.array([0, 1, 2, 0]))) == 0
    assert calibration_error(calibration_bins(P, np.array([0, 1, 2, 1]))) == pytest.approx(0.25)
    assert calibration_bins(P, np.zeros(4, int))[0].tolist() == [0] * 14 + [4]


@given(st.integers(0, 99), st.integers(1, 299))
def test_calibration_bins_of_parts_add_up(seed, cut):
    P, truth = predictions(seed)
    parts = calibration_bins(P[:cut], truth[:cut]) + calibration_bins(P[cut:], truth[cut:])
    np.testing.assert_allclose(parts, calibration_bins(P, truth), atol=1e-9)
    assert 0 <= calibration_error(parts) <= 1


def test_brier_is_that_of_scikit_learn():
    P, truth = predictions()
    assert brier(P, truth) == pytest.approx(brier_score_loss(truth, P, scale_by_half=False))
    assert brier(np.eye(2)[[1, 1]], np.array([0, 0])) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_length(dtype):
    Z = np.random.default_rng(0).normal(size=(5, 7)) * 100
    found = unit(Z, dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, normalize(Z), rtol=4 * np.finfo(dtype).eps)
    assert unit(np.zeros((1, 3)), dtype).tolist() == [[0, 0, 0]]


def test_hardness_is_that_of_a_softmax_of_cosines():
    rng = np.random.default_rng(0)
    support, queries = (unit(rng.random((count, 8)), np.float32) for count in (9, 20))
    classes, truth = np.repeat([0, 1, 2], 3), rng.integers(0, 3, 20)
    means = torch.stack([torch.tensor(support[classes == k]).mean(0) for k in range(3)])
    cosines = torch.nn.functional.cosine_similarity(torch.tensor(queries)[:, None], means[None], dim=2)
    p = cosines.softmax(1)[torch.arange(20), torch.tensor(truth)]
    assert hardness(support, classes, queries, truth) == pytest.approx(float(torch.log((1 - p) / p).mean()), abs=1e-5)


def test_far_queries_are_harder_than_near_ones():
    support, classes = np.eye(4, dtype=np.float32), np.arange(4)
    near, far = (hardness(support, classes, support[order], classes) for order in ([0, 1, 2, 3], [1, 2, 3, 0]))
    assert near < np.log(3) < far
