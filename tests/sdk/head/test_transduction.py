"""Unlabelled samples: what they do, written out, and how far they are trusted."""

from __future__ import annotations

import numpy as np
import pytest

from fieldshot import FewShotHead


def task(seed, shots, queries, dim=32):
    """Support and queries of len(queries) overlapping classes, so many queries of each."""
    rng = np.random.default_rng(seed)
    centres = rng.gamma(2.0, size=(len(queries), dim))

    def drawn(counts):
        y = np.repeat(np.arange(len(counts)), counts)
        return np.maximum(centres[y] + 1.3 * rng.normal(size=(len(y), dim)), 0).astype(np.float32), y

    return (*drawn([shots] * len(queries)), *drawn(queries))


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def transform(Z):
    return np.sqrt(Z) / np.linalg.norm(np.sqrt(Z), axis=1, keepdims=True)


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def written_out(Z, y, queries, weight, classes):
    """docs/head.md in float64: scores of the adapted head, up to one factor for all."""
    S, Q = transform(Z.astype(np.float64)), transform(queries.astype(np.float64))
    member = np.eye(classes)[y]
    counts = member.sum(axis=0)
    alone = len(y) == classes

    def model(S, covariance):
        means = member.T @ S / counts[:, None]
        offsets = means - means.mean(axis=0)
        pull = np.sqrt(0.05 / (counts - 1 + 0.1))[y, None]
        apart = S - means[y]
        nearest = [min(np.sum((a - b) ** 2) for b in np.delete(means, k, axis=0)) for k, a in enumerate(means)]
        freedom = len(y) - classes
        variance = (np.sum(apart**2) + 2 * 0.6 * np.mean(nearest)) / (freedom + 2) / S.shape[1]
        residuals = apart + pull * offsets[y]
        return residuals.T @ residuals + covariance * variance * np.eye(S.shape[1]), freedom + covariance

    def scores(S, Q, H, scale, share):
        soft = counts + weight * share.sum(axis=0)
        means = (member.T @ S + weight * share.T @ Q) / soft[:, None]
        offsets, centre, trust = means - means.mean(axis=0), means.mean(axis=0), soft / (soft + 2)
        directions = np.linalg.solve(H, offsets.T).T
        return scale * (trust * ((Q - centre) @ directions.T) - 0.5 * trust**2 * np.sum(offsets * directions, axis=1))

    centre = np.concatenate([S, Q]).mean(axis=0)
    around = unit(S - centre), unit(Q - centre)
    H, scale = model(around[0], 1e6 if alone else 200.0)
    found = scores(*around, H, scale, np.zeros((len(Q), classes)))
    best = np.sort(found, axis=1)
    sharpness = 4 / np.mean(best[:, -1] - best[:, -2])
    for _ in range(5):
        found = scores(*around, H, scale, softmax(sharpness * found))
    H, scale = model(S, 200.0)
    return scores(S, Q, H, scale, softmax(sharpness * found))


@pytest.mark.parametrize("device", ["reference", "host"])
@pytest.mark.parametrize("shots", [1, 3])
def test_adapt_is_what_is_written(device, shots):
    Z, y, queries, _ = task(0, shots, [15] * 4)
    adapted = FewShotHead(device=device).fit(Z, y).adapt(queries)
    expected = written_out(Z, y, queries, adapted.adaptation_.weight, 4)
    logits = adapted.decision_function(queries)
    expected -= expected.mean(axis=1, keepdims=True)
    logits -= logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(unit(logits.ravel()[None]), unit(expected.ravel()[None]), atol=1e-4)


def test_trust_falls_with_labelled_samples():
    weights = []
    for shots in (1, 2, 5, 20):
        Z, y, queries, _ = task(1, shots, [20] * 4)
        weights.append(FewShotHead().fit(Z, y).adapt(queries).adaptation_.weight)
    assert 0.4 >= weights[0] > weights[1] > weights[2] > weights[3] > 0


def test_trust_falls_with_imbalance_and_the_imbalance_is_seen():
    found = []
    for counts in ([20] * 4, [32, 24, 16, 8], [80, 0, 0, 0]):
        Z, y, queries, truth = task(2, 5, counts)
        head = FewShotHead().fit(Z, y)
        adapted = head.adapt(queries)
        told = adapted.adaptation_
        assert told.samples == 80
        assert told.proportions.sum() == pytest.approx(1)
        np.testing.assert_allclose(told.proportions, np.array(counts) / 80, atol=0.15)
        assert adapted.score(queries, truth) >= head.score(queries, truth) - 0.02
        found.append((told.weight, told.imbalance))
    (even, none), (odd, some), (nothing, much) = found
    assert even > odd > nothing == 0.0
    assert none < some < much
    assert none < 0.1 < 0.7 < much


def test_unlabelled_samples_of_one_class_leave_the_head_as_it_was():
    Z, y, queries, _ = task(3, 5, [30, 0, 0, 0])
    head = FewShotHead().fit(Z, y)
    np.testing.assert_array_equal(head.adapt(queries).predict_proba(Z), head.predict_proba(Z))
    assert head.adaptation_ is None


@pytest.mark.parametrize("shots", [1, 5])
def test_a_handful_counts_nothing_and_ten_a_class_count_in_full(shots):
    Z, y, queries, _ = task(8, shots, [30] * 4)
    order = np.random.default_rng(0).permutation(len(queries))
    head = FewShotHead().fit(Z, y)
    before = head.predict_proba(queries)
    for count in (1, 2, 4, 20):
        adapted = head.adapt(queries[order[:count]])
        assert adapted.adaptation_.weight == 0.0
        np.testing.assert_array_equal(adapted.predict_proba(queries), before)
    for count in (21, 28, 39, 40, 41, 120):
        told = head.adapt(queries[order[:count]]).adaptation_
        full = 0.4 / shots * (1.0 - told.imbalance / 0.7)
        assert told.weight == pytest.approx(full * min(1.0, count / 20 - 1.0))
        assert told.weight > 0.0


@pytest.mark.parametrize("shots", [1, 5])
def test_it_is_as_sure_as_before(shots):
    Z, y, queries, _ = task(4, shots, [25] * 4)
    head = FewShotHead().fit(Z, y)
    before, after = (of.predict_proba(queries).max(axis=1).mean() for of in (head, head.adapt(queries)))
    assert after == pytest.approx(before, abs=1e-3)


def test_one_class_adapts_to_itself():
    Z, y, queries, _ = task(5, 3, [4])
    assert FewShotHead().fit(Z, y).adapt(queries).predict(queries).tolist() == [0] * 4


def test_many_labelled_samples_of_which_few_are_at_hand():
    Z, y, queries, truth = task(6, 100, [25] * 4)  # past 2 D of a class: moments
    head = FewShotHead().fit(Z, y)
    adapted = head.adapt(queries)
    assert 0 < adapted.adaptation_.weight < 0.005
    assert adapted.score(queries, truth) >= head.score(queries, truth) - 0.01
