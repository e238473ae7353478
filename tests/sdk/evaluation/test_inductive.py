"""Each baseline against an independent implementation of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ShrunkCovariance, ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from fieldshot.errors import MissingDependencyError
from fieldshot.evaluation.inductive import BASELINES, baselines


def episode(classes=4, shots=5, dimension=40, seed=0, queries=20, noise=1.5):
    """Support, its classes, queries and theirs: blobs whose numbers are mostly positive, as after a ReLU."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(1, 1, size=(classes, dimension))
    y, asked = np.repeat(np.arange(classes), shots), np.repeat(np.arange(classes), queries)
    Z, Q = (centres[of] + noise * rng.normal(size=(len(of), dimension)) for of in (y, asked))
    return Z.astype(np.float32), y.astype(np.int32), Q.astype(np.float32), asked


def answers(name, Z, y, Q):
    return BASELINES[name]().fit(Z, y).predict_proba(Q)


def centre(base, Z, y, Q):
    """Support and queries less the mean of the support's class means, unit length again."""
    Z, Q = base(Z), base(Q)
    middle = np.mean([Z[y == k].mean(axis=0) for k in np.unique(y)], axis=0)
    return normalize(Z - middle), normalize(Q - middle)


def root(Z):
    return normalize(np.sign(Z) * np.abs(Z) ** 0.5)


UNBALANCED = slice(3, None)  # leaves two of the five samples of the first class


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("nearest mean, L2", lambda Z, y, Q: (normalize(Z), normalize(Q))),
        ("nearest mean, centred", lambda Z, y, Q: centre(normalize, Z, y, Q)),
        ("nearest mean, power + centred", lambda Z, y, Q: centre(root, Z, y, Q)),
    ],
)
def test_nearest_means(name, features):
    Z, y, Q, _ = episode()
    Z, y = Z[UNBALANCED], y[UNBALANCED]
    ours = answers(name, Z, y, Q)
    Zf, Qf = features(Z.astype(np.float64), y, Q.astype(np.float64))
    other = NearestCentroid().fit(Zf, y)
    assert np.array_equal(ours.argmax(axis=1), other.predict(Qf))
    gaps = -((Qf[:, None] - other.centroids_) ** 2).sum(axis=2)
    assert np.log(ours[:, 1:] / ours[:, :1]) == pytest.approx(gaps[:, 1:] - gaps[:, :1], abs=1e-6)


def test_simple_shot_needs_the_mean_of_the_base_classes():
    assert "SimpleShot" not in BASELINES
    Z, y, Q, _ = episode()
    base = Z.mean(axis=0) + 1
    ours = baselines(base)["SimpleShot"]().fit(Z, y).predict_proba(Q)
    other = NearestCentroid().fit(normalize(Z - base), y)
    assert np.array_equal(ours.argmax(axis=1), other.predict(normalize(Q - base)))


def test_neighbours_vote_and_the_nearest_decides_a_draw():
    Z, y, Q, _ = episode(noise=3)
    ours = answers("5-NN", Z, y, Q)
    votes = KNeighborsClassifier(5).fit(normalize(Z), y).predict_proba(normalize(Q))
    assert ours == pytest.approx(votes, abs=1e-3)
    best = np.sort(votes, axis=1)
    decided = best[:, -1] > best[:, -2]
    assert 0 < decided.sum() < len(Q)
    assert np.array_equal(ours.argmax(axis=1)[decided], votes.argmax(axis=1)[decided])
    one = answers("5-NN", Z[::5], y[::5], Q)
    nearest = KNeighborsClassifier(1).fit(normalize(Z[::5]), y[::5])
    assert np.array_equal(one.argmax(axis=1), nearest.predict(normalize(Q)))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("C", [1, 10, 100])
@pytest.mark.parametrize("centred", [False, True])
def test_logistic_in_the_span_is_that_in_all_dimensions(classes, C, centred):
    Z, y, Q, _ = episode(classes)
    ours = answers(f"logistic C={C}, centred" if centred else f"logistic C={C}", Z, y, Q)
    Zf, Qf = centre(normalize, Z, y, Q) if centred else (normalize(Z), normalize(Q))
    other = LogisticRegression(C=C, max_iter=5000, tol=1e-7).fit(Zf.astype(np.float64), y)
    # scikit-learn's own tolerance is on the gradient, which the weaker penalties leave further from the optimum.
    assert ours == pytest.approx(other.predict_proba(Qf), abs=1e-2 if C == 100 else 2e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_svm_in_the_span_is_that_in_all_dimensions(classes):
    Z, y, Q, _ = episode(classes)
    other = LinearSVC(C=1, dual=False, tol=1e-8, max_iter=100_000).fit(normalize(Z).astype(np.float64), y)
    margins = other.decision_function(normalize(Q))
    if classes == 2:
        margins = np.stack([-margins, margins], axis=1)
    gaps = np.diff(np.log(answers("linear SVM", Z, y, Q)), axis=1)
    assert gaps == pytest.approx(np.diff(margins, axis=1), abs=2e-3)


@pytest.mark.parametrize("penalty", [0.1, 0.3, 1])
@pytest.mark.parametrize("shots", [5, 20])  # fewer samples than dimensions, and more
def test_ridge(penalty, shots):
    Z, y, Q, _ = episode(shots=shots)
    other = Ridge(alpha=penalty).fit(normalize(Z)[2:].astype(np.float64), 2 * np.eye(4)[y[2:]] - 1)
    gaps = np.diff(np.log(answers(f"ridge {penalty}", Z[2:], y[2:], Q)), axis=1)
    assert gaps == pytest.approx(np.diff(other.predict(normalize(Q)), axis=1), abs=1e-5)


@pytest.mark.parametrize("shots", [5, 20])
@pytest.mark.parametrize("classes", [2, 4])
def test_lda_with_the_shrinkage_of_the_pooled_residuals(classes, shots):
    Z, y, Q, _ = episode(classes, shots)
    unit = normalize(Z.astype(np.float64))
    residuals = unit - np.array([unit[y == k].mean(axis=0) for k in range(classes)])[y]
    intensity = ledoit_wolf_shrinkage(residuals, assume_centered=True)
    assert 0.05 < intensity < 0.95
    # Of as many samples a class, the mean of covariances shrunk by one intensity is the shrunk mean covariance.
    other = LinearDiscriminantAnalysis("lsqr", covariance_estimator=ShrunkCovariance(shrinkage=intensity))
    other.fit(unit, y)
    assert answers("LDA, Ledoit-Wolf", Z, y, Q) == pytest.approx(
        other.predict_proba(normalize(Q.astype(np.float64))), abs=1e-6
    )


def test_lda_of_one_sample_a_class_is_the_nearest_mean():
    Z, y, Q, _ = episode(shots=1)
    ours, nearest = answers("LDA, Ledoit-Wolf", Z, y, Q), answers("nearest mean, L2", Z, y, Q)
    assert np.log(ours / ours[:, :1]) == pytest.approx(np.log(nearest / nearest[:, :1]) / 2)


def test_lda_of_one_class_with_two_samples_and_others_with_one_is_finite():
    Z, y, Q, _ = episode(shots=2)
    assert np.isfinite(answers("LDA, Ledoit-Wolf", Z[[0, 1, 2, 4, 6]], y[[0, 1, 2, 4, 6]], Q)).all()


@pytest.mark.parametrize("name", BASELINES)
@settings(max_examples=15, deadline=None)
@given(
    classes=st.integers(2, 6), shots=st.integers(1, 4), seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1, 1e3])
)
def test_probabilities_whatever_the_order_and_the_scale(name, classes, shots, seed, scale):
    """Rows sum to 1; an embedding's length says nothing; neither does the order of the samples."""
    Z, y, Q, _ = episode(classes, shots, dimension=12, seed=seed, queries=3)
    found = answers(name, Z, y, Q)
    assert found.shape == (len(Q), classes) and found.dtype == np.float64
    assert found.sum(axis=1) == pytest.approx(1) and (found >= 0).all()
    order = np.random.default_rng(seed).permutation(len(y))
    again = answers(name, np.float32(scale) * Z[order], y[order], np.float32(scale) * Q)
    assert again == pytest.approx(found, abs=1e-2 if "logistic" in name or "SVM" in name else 1e-3)


@pytest.mark.parametrize("name", BASELINES)
def test_it_learns_and_answers_each_query_by_itself(name):
    Z, y, Q, asked = episode(shots=5)
    found = answers(name, Z, y, Q)
    assert np.mean(found.argmax(axis=1) == asked) > 0.7
    assert answers(name, Z, y, Q[:3]) == pytest.approx(found[:3], abs=1e-9)


def test_a_zero_embedding_is_no_trouble():
    Z, y, Q, _ = episode()
    Z[0] = 0
    for name in BASELINES:
        assert np.isfinite(answers(name, Z, y, 0 * Q[:2])).all(), name


def test_classes_that_look_the_same_are_as_likely():
    Z, y, Q, _ = episode(2, shots=1)
    for name in BASELINES:
        assert answers(name, Z[[0, 0]], y, Q) == pytest.approx(0.5, abs=1e-3), name


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    Z, y, Q, _ = episode()
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fieldshot\[eval\]'"):
        answers("logistic C=1", Z, y, Q)
    assert answers("ridge 1", Z, y, Q).shape == (80, 4)
