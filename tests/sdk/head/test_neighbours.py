"""Asking the neighbours: only where that would have said more of held-out samples, and then exactly as stated."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fieldshot import FewShotHead

DIM = 24


def clouds(seed, shots, clouds_each, classes=3):
    """Classes of several clouds around one centre each: no line tells them apart."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).gamma(2.0, size=(classes, clouds_each, DIM))
    y = np.repeat(np.arange(classes), shots)
    Z = centres[y, rng.integers(0, clouds_each, len(y))] + 0.4 * rng.normal(size=(len(y), DIM))
    return np.maximum(Z, 0).astype(np.float32), y


def without(head):
    """The same head that asks no neighbours."""
    head = copy.copy(head)
    head._state = head._state._replace(neighbours=None)
    return head


@pytest.fixture(scope="module", params=["reference", "host"])
def several(request):
    """A head for classes of several clouds."""
    return FewShotHead(device=request.param).fit(*clouds(0, 40, 20))


def test_they_are_asked_where_classes_are_several_clouds_and_help(several):
    queries, truth = clouds(1, 200, 20)
    assert several._state.neighbours is not None
    assert several.score(queries, truth) > without(several).score(queries, truth) + 0.02


def test_logits_are_those_of_the_formula(several):
    Z, y = clouds(0, 40, 20)
    queries, _ = clouds(2, 5, 20)
    U, Q = (np.sqrt(A.astype(np.float64)) for A in (Z, queries))
    U, Q = (A / np.linalg.norm(A, axis=1, keepdims=True) for A in (U, Q))
    density = np.stack([np.exp(40 * (Q @ U[y == k].T - 1)).mean(axis=1) for k in range(3)], axis=1)
    expected = without(several).decision_function(queries) + several._state.neighbours.weight * np.log(density)
    np.testing.assert_allclose(several.decision_function(queries), expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(several.predict(queries), expected.argmax(axis=1))
    chances = np.exp(expected - expected.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(several.predict_proba(queries), chances, atol=1e-4)


@pytest.mark.parametrize(
    ("shots", "clouds_each", "classes"),
    [(9, 20, 3), (40, 1, 3), (200, 1, 3), (12, 4, 70), (40, 20, 1)],
    ids=["few samples", "one cloud a class", "many samples of one cloud", "many classes", "one class"],
)
def test_they_are_not_asked(shots, clouds_each, classes):
    head = FewShotHead().fit(*clouds(3, shots, clouds_each, classes))
    assert head._state.neighbours is None


@pytest.mark.parametrize("shots", [12, 60])  # of the latter the second moment is learned, and eight a class held out
def test_of_many_classes_they_are_asked_however_many_samples_each_has(shots):
    Z, y = clouds(3, shots, 4, 60)
    Z = np.tile(Z, 32)
    assert FewShotHead().fit(Z, y)._state.neighbours is not None


def test_a_class_of_few_samples_silences_them(several):
    Z, _ = clouds(4, 3, 20)
    grown = copy.copy(several).partial_fit(Z[:3], [7, 7, 7])
    assert grown._state.neighbours is None
    assert grown.forget(7)._state.neighbours.weight == several._state.neighbours.weight


def test_of_many_samples_some_are_compared_with():
    head = FewShotHead().fit(*clouds(5, 2000, 20))
    assert head._state.neighbours.counts.tolist() == [64.0] * 3
    queries, truth = clouds(6, 200, 20)
    assert head.score(queries, truth) >= without(head).score(queries, truth)


def test_they_are_kept_by_copies_files_and_adapted_heads(several, tmp_path):
    queries, _ = clouds(7, 20, 20)
    expected = several.predict_proba(queries)
    several.save(tmp_path / "a.head")
    for same in (
        copy.copy(several),
        pickle.loads(pickle.dumps(several)),
        FewShotHead.load(tmp_path / "a.head", device=several.device),
    ):
        np.testing.assert_allclose(same.predict_proba(queries), expected, atol=1e-6)
    assert several.adapt(queries)._state.neighbours is not None
