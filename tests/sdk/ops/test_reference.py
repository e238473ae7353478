"""The reference operations against the formulas written out, scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from fieldshot.ops import Prior, Support, Transduction
from fieldshot.ops.reference import ReferenceOps, held_out_scores, softmax

PRIOR = Prior(2.0, covariance=50.0, pull=0.3, spread=0.25, spread_weight=2.0, temperature=0.1, temperature_weight=5.0)
OPS = ReferenceOps()


def transform(Z):
    return OPS.absorb(Z, np.array([0, len(Z)], np.int32))[0]


def scores(queries, solution):
    return queries @ solution.weights.T + solution.bias


def problem(seed, n=23, dim=40, classes=4):
    """Transformed embeddings with every class present, class sizes uneven, the last class alone."""
    rng = np.random.default_rng(seed)
    index = np.sort(np.concatenate([np.arange(classes), rng.integers(0, classes - 1, n - classes)]))
    centres = rng.gamma(2.0, size=(classes, dim))
    return transform(centres[index] + rng.gamma(1.0, size=(n, dim))), index


def support_of(U, index, classes, through_moment=False):
    """Of samples in any order."""
    counts = np.bincount(index, minlength=classes).astype(float)
    sums = np.zeros((classes, U.shape[1]))
    np.add.at(sums, index, U)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Support(U[np.argsort(index)], starts, counts, sums, OPS.moment(U) if through_moment else None)


def written_out(U, index, classes, prior, variance=None, added=None):
    """The formulas at the head of fieldshot/ops/reference.py, letter by letter, in float64.

    With the round variance and the scatter that the pull adds as given, if they are.
    """
    U = U.astype(np.float64)
    support = support_of(U, index, classes)
    counts, sums = support.counts, support.sums
    means = sums / counts[:, None]
    offsets = means - means.mean(axis=0)
    pull = np.sqrt(prior.pull / (counts - 1 + 2 * prior.pull))
    apart = U - means[index]
    residuals = apart + pull[index, None] * offsets[index]
    freedom = len(U) - classes
    if added is None:
        added = residuals.T @ residuals - apart.T @ apart
    scatter = apart.T @ apart + added
    nearest = [min(np.sum((a - b) ** 2) for b in np.delete(means, k, axis=0)) for k, a in enumerate(means)]
    spread = np.sum(apart**2) + prior.spread_weight * prior.spread * np.mean(nearest)
    spread /= freedom + prior.spread_weight
    if variance is None:
        variance = spread / U.shape[1]
    sigma = (scatter + prior.covariance * variance * np.eye(U.shape[1])) / (freedom + prior.covariance)
    trust = counts / (counts + prior.mean)
    weights = trust[:, None] * np.linalg.solve(sigma, offsets.T).T
    bias = -0.5 * trust * np.sum(weights * offsets, axis=1) - weights @ means.mean(axis=0)
    return weights, bias, (variance, added)


@pytest.mark.parametrize("seed", range(5))
def test_fit_is_the_formula(seed):
    U, index = problem(seed)
    solution = OPS.fit(support_of(U, index, 4), PRIOR)
    weights, bias, _ = written_out(U, index, 4, PRIOR)
    np.testing.assert_allclose(solution.weights, weights, rtol=2e-6, atol=1e-4)
    np.testing.assert_allclose(solution.bias, bias, rtol=2e-6, atol=1e-4)


@pytest.mark.parametrize(("n", "dim"), [(23, 40), (200, 17), (5, 1), (6, 127)])
def test_the_moment_gives_what_the_samples_give(n, dim):
    U, index = problem(1, n, dim)
    one = OPS.fit(support_of(U, index, 4), PRIOR)
    other = OPS.fit(support_of(U, index, 4, through_moment=True), PRIOR)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_held_out_scores_are_those_of_a_head_without_the_sample(seed):
    U, index = problem(seed)
    held_out, own = held_out_scores(support_of(U, index, 4), PRIOR)
    _, _, kept = written_out(U, index, 4, PRIOR)
    counted = np.bincount(index, minlength=4)
    left_out = [i for i in range(len(U)) if counted[index[i]] > 1]
    assert own.tolist() == index[left_out].tolist()
    assert len(left_out) == len(U) - 1  # the last class is alone
    for row, i in enumerate(left_out):
        rest = np.arange(len(U)) != i
        weights, bias, _ = written_out(U[rest], index[rest], 4, PRIOR, *kept)
        np.testing.assert_allclose(held_out[row], U[i] @ weights.T + bias, rtol=1e-6, atol=1e-6)


def test_one_shot_is_a_ridge_regression_on_the_prototypes():
    rng = np.random.default_rng(0)
    U, index = transform(rng.random((7, 64))), np.arange(7)
    solution = OPS.fit(support_of(U, index, 7), PRIOR)
    centred = U.astype(np.float64) - U.mean(axis=0)
    apart = np.sort(cdist(centred, centred, "sqeuclidean"), axis=1)[:, 1].mean()
    alpha = 2.0 * PRIOR.covariance * PRIOR.spread * apart / 64  # half of the scatter of the means stands in
    ridge = Ridge(alpha=alpha, fit_intercept=False).fit(centred, np.eye(7))
    expected = 2.0 * PRIOR.covariance / (1.0 + PRIOR.mean) * ridge.coef_
    np.testing.assert_allclose(solution.weights, expected, rtol=1e-5, atol=1e-5)


def test_at_many_shots_the_pull_hardly_matters():
    U, index = problem(0, 400, 17)
    weights = [OPS.fit(support_of(U, index, 4), PRIOR._replace(pull=pull)).weights[:3] for pull in (1e-12, 0.1)]
    assert np.abs(weights[1] - weights[0]).max() < 0.01 * np.abs(weights[0]).max()


@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 0.9])
def test_without_priors_on_the_mean_it_is_shrunk_lda(shrinkage):
    rng = np.random.default_rng(3)
    U, index = transform(rng.gamma(1.0, size=(60, 12))), np.repeat(np.arange(3), 20)
    freedom = len(U) - 3
    covariance = freedom * shrinkage / (1 - shrinkage)
    prior = PRIOR._replace(mean=0.0, covariance=covariance, pull=1e-12, spread=0.0, spread_weight=0.0)
    solution = OPS.fit(support_of(U, index, 3), prior)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3)
    lda.fit(U.astype(np.float64), index)
    queries = transform(rng.gamma(1.0, size=(500, 12)))
    got, expected = scores(queries, solution), lda.decision_function(queries)
    scale = freedom / len(U)  # scikit-learn divides the scatter by N, not by its degrees of freedom
    got, expected = got - got[:, :1], scale * (expected - expected[:, :1])
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1e30, 1e30)))
def test_transform_is_the_signed_root_of_unit_length(Z):
    U = transform(Z)
    assert U.dtype == np.float32
    for z, u in zip(Z, U, strict=True):
        if np.abs(z).max() == 0:
            assert not u.any()
            continue
        root = np.sign(z) * np.sqrt(np.abs(z) / np.abs(z).max())
        np.testing.assert_allclose(u, root / np.linalg.norm(root), rtol=1e-5, atol=1e-6)


@given(st.floats(1e-30, 1e30))
def test_transform_does_not_depend_on_scale(scale):
    Z = np.random.default_rng(0).normal(size=(3, 9))
    np.testing.assert_allclose(transform(Z * scale), transform(Z), atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 2**31))
def test_samples_in_any_order_give_the_same_fit(extra, classes, seed):
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(classes), rng.integers(0, classes, extra)])
    U = transform(rng.random((len(index), 6)))
    order = rng.permutation(len(index))
    one = OPS.fit(support_of(U, index, classes), PRIOR)
    other = OPS.fit(support_of(U[order], index[order], classes), PRIOR)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(one.bias, other.bias, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("through_moment", [False, True])
def test_adapt_without_weight_changes_nothing_and_with_it_pulls_the_means(through_moment):
    U, index = problem(2)
    support = support_of(U, index, 4, through_moment)
    counts, sums = support.counts, support.sums
    solution = OPS.fit(support, PRIOR)
    queries, _ = problem(5, n=31)
    shares = softmax(0.3 * scores(queries, solution).astype(np.float64))
    weights, bias = OPS.adapt(queries, shares, support, PRIOR, Transduction(temperature=0.3, weight=0.0, steps=3))
    np.testing.assert_allclose(weights, solution.weights, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(bias, solution.bias, rtol=1e-4, atol=1e-3)

    # One round written out: soft counts and sums in the place of counts and sums, the covariance held.
    rule = Transduction(temperature=0.3, weight=0.5, steps=1)
    weights, bias = OPS.adapt(queries, shares, support, PRIOR, rule)
    means = sums / counts[:, None]
    residuals = U - means[index]
    _, _, (variance, added) = written_out(U, index, 4, PRIOR)
    sigma = residuals.T @ residuals + added + PRIOR.covariance * variance * np.eye(U.shape[1])
    sigma /= len(U) - 4 + PRIOR.covariance
    soft_counts = counts + 0.5 * shares.sum(axis=0)
    soft_means = (sums + 0.5 * shares.T @ queries) / soft_counts[:, None]
    trust = soft_counts / (soft_counts + PRIOR.mean)
    offsets = soft_means - soft_means.mean(axis=0)
    expected = trust[:, None] * np.linalg.solve(sigma, offsets.T).T
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(
        bias,
        -0.5 * trust * np.sum(expected * offsets, axis=1) - expected @ soft_means.mean(axis=0),
        rtol=1e-4,
        atol=1e-3,
    )
    # The next round starts from the shares that this one gives.
    again = softmax(0.3 * (queries @ weights.T + bias).astype(np.float64))
    twice = OPS.adapt(queries, shares, support, PRIOR, rule._replace(steps=2))
    for got, want in zip(twice, OPS.adapt(queries, again, support, PRIOR, rule), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_at_one_shot_no_scale_matters():
    rng = np.random.default_rng(1)
    U, index = rng.random((5, 20)).astype(np.float32), np.arange(5)
    one, other = (OPS.fit(support_of(factor * U, index, 5), PRIOR) for factor in (1.0, 0.5))
    np.testing.assert_allclose(scores(0.5 * U, other), scores(U, one), rtol=1e-5)
    assert other.temperature == pytest.approx(one.temperature)


@pytest.mark.parametrize("classes", [1, 3])
def test_classes_that_lie_on_one_another_get_finite_scores(classes):
    U = np.tile(transform(np.random.default_rng(2).random((1, 8))), (classes, 1))
    solution = OPS.fit(support_of(U, np.arange(classes), classes), PRIOR)
    assert np.isfinite(scores(U, solution)).all()
    assert np.isfinite(solution.temperature)
