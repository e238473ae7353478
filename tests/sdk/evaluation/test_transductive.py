"""Transductive baselines against torch: its gradients, its Adam; and that they gain what they were published for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from fieldshot.evaluation.inductive import BASELINES as INDUCTIVE
from fieldshot.evaluation.transductive import BASELINES, Terms, adam, logit_gradients, tim_gradient


def episode(counts=(15,) * 5, shots=1, dimension=24, seed=0, noise=1.1):
    """Blobs round centres that the few support samples tell badly and the many queries well."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(counts), dimension)) + 0.5
    y, asked = np.repeat(np.arange(len(counts)), shots), np.repeat(np.arange(len(counts)), counts)
    Z, Q = (centres[of] + noise * rng.normal(size=(len(of), dimension)) for of in (y, asked))
    return Z.astype(np.float32), y.astype(np.int32), Q.astype(np.float32), asked


def loss(of_support, y, of_queries, terms):
    """The terms in torch, written from the papers."""
    found = of_queries.softmax(1)
    if terms.alpha == 1:
        marginal, conditional = (torch.special.entr(p).sum(-1).mean() for p in (found.mean(0), found))
    else:
        marginal, conditional = (
            ((1 - p.pow(terms.alpha).sum(-1)) / (terms.alpha - 1)).mean() for p in (found.mean(0), found)
        )
    known = torch.nn.functional.cross_entropy(of_support, torch.as_tensor(y, dtype=torch.long))
    return terms.cross_entropy * known - terms.marginal * marginal + terms.conditional * conditional


TERMS = [Terms(0.1, 1.0, 0.1), Terms(1.0, 0.0, 1.0), Terms(1.0, 1.0, 1.0, 2.0), Terms(1.0, 1.0, 1.0, 4.5)]


@pytest.mark.parametrize("terms", TERMS)
def test_gradients_by_logits(terms):
    rng = np.random.default_rng(0)
    of_support, of_queries = (torch.tensor(2 * rng.normal(size=(n, 3)), requires_grad=True) for n in (6, 9))
    y = np.array([0, 0, 0, 1, 1, 2])
    loss(of_support, y, of_queries, terms).backward()
    ours = logit_gradients(of_support.detach().numpy(), np.eye(3)[y], of_queries.detach().numpy(), terms)
    assert ours[0] == pytest.approx(of_support.grad.numpy(), abs=1e-9)
    assert ours[1] == pytest.approx(of_queries.grad.numpy(), abs=1e-9)


@pytest.mark.parametrize("terms", TERMS)
def test_gradient_by_the_weights_of_distances(terms):
    Z, y, Q, _ = episode(shots=2)
    Z, Q = normalize(Z.astype(np.float64)), normalize(Q.astype(np.float64))
    weights = torch.tensor(np.random.default_rng(1).normal(size=(5, 24)) / 5, requires_grad=True)
    logits = [-7.5 * (torch.tensor(X)[:, None] - weights).square().sum(2) for X in (Z, Q)]
    loss(logits[0], y, logits[1], terms).backward()
    ours = tim_gradient(weights.detach().numpy(), Z, np.eye(5)[y], Q, terms)
    assert ours == pytest.approx(weights.grad.numpy(), abs=1e-9)


def test_adam_is_that_of_torch():
    start = np.random.default_rng(0).normal(size=(3, 4))
    point = torch.tensor(start, requires_grad=True)
    other = torch.optim.Adam([point], lr=0.05)
    for _ in range(40):
        other.zero_grad()
        (point.square().square().sum() + point.sum()).backward()
        other.step()
    ours = adam(start, lambda x: 4 * x**3 + 1, rate=0.05, steps=40)
    assert ours == pytest.approx(point.detach().numpy(), abs=1e-7)


@pytest.mark.parametrize(
    ("name", "shots", "terms"),
    [
        ("TIM", 1, Terms(0.1, 1.0, 0.1)),
        ("alpha-TIM", 1, Terms(1.0, 1.0, 1.0, 2.0)),
        ("alpha-TIM", 3, Terms(1.0, 1.0, 1.0, 4.5)),
        ("alpha-TIM", 8, Terms(1.0, 1.0, 1.0, 7.0)),
    ],
)
def test_information_maximization_in_torch(name, shots, terms):
    Z, y, Q, _ = episode(shots=shots)
    support, queries = (torch.tensor(normalize(X.astype(np.float64))) for X in (Z, Q))
    weights = torch.stack([support[y == k].mean(0) for k in range(5)]).requires_grad_()
    other = torch.optim.Adam([weights], lr=1e-4)

    def logits(X):
        return -7.5 * (X[:, None] - weights).square().sum(2)

    for _ in range(1000):
        other.zero_grad()
        loss(logits(support), y, logits(queries), terms).backward()
        other.step()
    expected = logits(queries).softmax(1).detach().numpy()
    assert BASELINES[name]().fit(Z, y, Q).predict_proba(Q) == pytest.approx(expected, abs=2e-3)


def test_fine_tuning_in_torch():
    Z, y, Q, _ = episode(shots=3)
    support, queries = (torch.nn.functional.normalize(torch.tensor(X, dtype=torch.float64).relu()) for X in (Z, Q))
    means = torch.stack([torch.tensor(Z[y == k], dtype=torch.float64).relu().mean(0) for k in range(5)])
    head = torch.nn.Linear(24, 5, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.nn.functional.normalize(means))
        head.bias.zero_()
    other = torch.optim.Adam(head.parameters(), lr=5e-5)
    for _ in range(25):
        other.zero_grad()
        loss(head(support), y, head(queries), Terms(1.0, 0.0, 1.0)).backward()
        other.step()
    expected = head(queries).softmax(1).detach().numpy()
    assert BASELINES["transductive fine-tuning"]().fit(Z, y, Q).predict_proba(Q) == pytest.approx(expected, abs=1e-6)


def test_laplacian_shot_in_plain_code():
    Z, y, Q, _ = episode(shots=3)
    unit = normalize(np.concatenate([Z, Q]).astype(np.float64))
    support, queries = np.split(normalize(unit - unit.mean(axis=0)), [len(Z)])
    means = np.array([support[y == k].mean(axis=0) for k in range(5)])
    unary = ((queries[:, None] - means) ** 2).sum(axis=2)
    # As in the published code: of three neighbours the first is the query itself.
    tied = NearestNeighbors(n_neighbors=3).fit(queries).kneighbors(queries)[1][:, 1:]
    assigned = softmax(-unary, axis=1)
    for _ in range(20):
        assigned = softmax(-unary + 0.7 * assigned[tied].sum(axis=1), axis=1)
    assert BASELINES["LaplacianShot"]().fit(Z, y, Q).predict_proba(Q) == pytest.approx(assigned, abs=1e-9)


def gain(name, counts, seeds=12, **kwargs):
    """Mean gain in accuracy over the nearest mean, and the entropy of the answers' class counts."""
    gains, spreads = [], []
    for seed in range(seeds):
        Z, y, Q, asked = episode(counts(seed), seed=seed, **kwargs)
        found = BASELINES[name]().fit(Z, y, Q).predict_proba(Q)
        nearest = INDUCTIVE["nearest mean, L2"]().fit(Z, y).predict_proba(Q)
        gains.append(np.mean(found.argmax(axis=1) == asked) - np.mean(nearest.argmax(axis=1) == asked))
        spreads.append(entropy(np.bincount(found.argmax(axis=1), minlength=5)))
    return np.mean(gains), np.mean(spreads)


def balanced(seed):
    return (15,) * 5


def skewed(seed):
    return tuple(np.random.default_rng(seed).permutation([40, 20, 10, 4, 1]))


def test_at_one_shot_many_queries_of_balanced_classes_help():
    assert gain("TIM", balanced)[0] > 0.08
    assert gain("alpha-TIM", balanced)[0] > 0.05
    assert gain("LaplacianShot", balanced)[0] > 0.02


def test_fine_tuning_of_a_frozen_head_hardly_moves_it():
    for seed in range(6):
        Z, y, Q, _ = (np.abs(part) for part in episode(seed=seed))  # positive, as after a ReLU
        found = BASELINES["transductive fine-tuning"]().fit(Z, y, Q).predict_proba(Q).argmax(axis=1)
        assert np.mean(found == INDUCTIVE["nearest mean, L2"]().fit(Z, y).predict_proba(Q).argmax(axis=1)) > 0.95


def test_under_unequal_counts_tim_suffers_and_alpha_tim_gains():
    published, tolerant = gain("TIM", skewed), gain("alpha-TIM", skewed)
    assert tolerant[0] > 0.03
    assert tolerant[0] > published[0] + 0.05
    assert published[1] > tolerant[1]  # TIM answers with all classes as often


@pytest.mark.parametrize("name", BASELINES)
def test_probabilities_also_of_others_than_the_queries(name):
    Z, y, Q, _ = episode((3, 1, 2), shots=2)
    fitted = BASELINES[name]().fit(Z, y, Q[:5])
    found = fitted.predict_proba(Q)
    assert found.shape == (6, 3) and found.dtype == np.float64
    assert found.sum(axis=1) == pytest.approx(1) and (found >= 0).all()
    assert fitted.predict_proba(Q[:2]) == pytest.approx(found[:2], abs=1e-9)


@pytest.mark.parametrize("name", BASELINES)
def test_one_query_is_enough(name):
    Z, y, Q, _ = episode()
    assert np.isfinite(BASELINES[name]().fit(Z, y, Q[:1]).predict_proba(Q[:1])).all()


def test_laplacian_shot_ties_no_query_to_itself():
    Z, y, Q, _ = episode()
    unit = normalize(np.concatenate([Z, Q[:1]]).astype(np.float64))
    support, query = np.split(normalize(unit - unit.mean(axis=0)), [len(Z)])
    alone = softmax(-((query - support) ** 2).sum(axis=1))
    assert BASELINES["LaplacianShot"]().fit(Z, y, Q[:1]).predict_proba(Q[:1])[0] == pytest.approx(alone)
