"""What is drawn: never twice, the same for all methods, in the proportions that papers state."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldshot.evaluation import Cell, Pool, draw
from fieldshot.evaluation.episodes import _apportioned

SIZES = (12, 15, 20, 30, 40, 60)


def pool(sizes=SIZES, tested=None):
    def labels(counts):
        return np.repeat(np.arange(len(counts)), counts)

    return Pool.of(labels(sizes), None if tested is None else labels(tested))


def owner(rows, of):
    """Class of each row."""
    classes = np.empty(sum(map(len, of)), int)
    classes[np.concatenate(of)] = np.repeat(np.arange(len(of)), [len(rows_of) for rows_of in of])
    return classes[rows]


CELLS = [
    Cell(3, 2, 10, "balanced", 1),
    Cell(6, "all", 5, "balanced", 1),
    Cell(3, 2, 10, 2.0, 1),
    Cell(4, "all", 5, 0.5, 1),
    Cell("drawn", "drawn", 10, "balanced", 1),
    Cell("drawn", "drawn", 10, 2.0, 1),
]


@pytest.mark.parametrize("tested", [None, (10,) * 6], ids=["one set", "split"])
@pytest.mark.parametrize("cell", CELLS, ids=str)
@given(number=st.integers(0, 10**6))
def test_support_and_queries_are_of_their_classes_and_never_the_same(cell, tested, number):
    drawn = pool(tested=tested)
    episode = draw(drawn, cell, 0, number)
    asked = drawn.members if tested is None else drawn.asked
    learnt, known = owner(episode.support, drawn.members), owner(episode.query, asked)
    ways = len(np.unique(learnt))
    assert np.unique(episode.classes).tolist() == list(range(ways))
    names = {int(k): int(learnt[episode.classes == k][0]) for k in range(ways)}
    assert learnt.tolist() == [names[k] for k in episode.classes.tolist()]
    assert known.tolist() == [names[k] for k in episode.truth.tolist()]
    assert len(np.unique(episode.support)) == len(episode.support)
    assert len(np.unique(episode.query)) == len(episode.query) > 0
    if tested is None:
        assert not np.intersect1d(episode.support, episode.query).size


def test_shots_and_queries_are_as_many_as_asked():
    episode = draw(pool(), Cell(3, 2, 10, "balanced", 1), 0, 0)
    assert np.bincount(episode.classes).tolist() == [2, 2, 2]
    assert np.bincount(episode.truth).tolist() == [10, 10, 10]
    everything = draw(pool(), Cell(6, "all", 5, "balanced", 1), 0, 0)
    assert sorted(np.bincount(everything.classes)) == [size - 5 for size in SIZES]
    split = draw(pool(tested=(10,) * 6), Cell(6, "all", 5, "balanced", 1), 0, 0)
    assert sorted(np.bincount(split.classes)) == list(SIZES)


def test_an_episode_depends_on_seed_cell_and_number_only():
    cell = Cell(3, 2, 4, "balanced", 10)
    first = draw(pool(), cell, 0, 3)
    again = draw(pool(), dataclasses.replace(cell, episodes=99), 0, 3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    others = [
        draw(pool(), cell, 1, 3),
        draw(pool(), cell, 0, 4),
        draw(pool(), dataclasses.replace(cell, shots=3), 0, 3),
    ]
    for other in others:
        assert not np.array_equal(first.query, other.query)


def test_the_balance_changes_the_queries_and_not_the_support():
    cell = Cell(3, 2, 10, "balanced", 1)
    for number in range(5):
        even, uneven = draw(pool(), cell, 0, number), draw(pool(), dataclasses.replace(cell, balance=2.0), 0, number)
        np.testing.assert_array_equal(even.support, uneven.support)
        assert len(uneven.query) <= 30


def test_proportions_are_those_of_the_dirichlet_distribution():
    """Of a symmetric one with K parts each share has mean 1/K and variance (K - 1) / (K^2 (K alpha + 1))."""
    ways, alpha, queries = 4, 2.0, 100
    large = pool((1000,) * 4)
    counts = []
    for number in range(2000):
        episode = draw(large, Cell(ways, 1, queries, alpha, 1), 0, number)
        assert len(episode.query) == ways * queries
        counts.append(np.bincount(episode.truth, minlength=ways))
    shares = np.array(counts) / (ways * queries)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / ways, atol=0.015)
    np.testing.assert_allclose(shares.var(axis=0), (ways - 1) / (ways**2 * (ways * alpha + 1)), rtol=0.15)


def test_classes_without_queries_are_legal():
    counts = [np.bincount(draw(pool(), Cell(5, 1, 2, 0.1, 1), 0, n).truth, minlength=5) for n in range(50)]
    assert min(c.min() for c in counts) == 0
    assert min(c.sum() for c in counts) > 0


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20), st.integers(0, 1000))
def test_apportioning_rounds_each_share_and_keeps_the_total(weights, total):
    shares = np.array(weights) / sum(weights)
    counts = _apportioned(shares, total)
    assert counts.sum() == total
    assert (np.abs(counts - shares * total) < 1).all()


def test_heterogeneous_episodes_are_those_of_meta_dataset():
    sizes = np.random.default_rng(0).integers(8, 300, 80)
    large = pool(tuple(sizes))
    ways, uneven = [], []
    for number in range(400):
        episode = draw(large, Cell("drawn", "drawn", 10, "balanced", 1), 0, number)
        shots, queries = np.bincount(episode.classes), np.bincount(episode.truth)
        ways.append(len(shots))
        uneven.append(shots.max() / shots.min())
        smallest = min(len(large.members[k]) for k in np.unique(owner(episode.support, large.members)))
        assert set(queries.tolist()) == {min(10, smallest // 2)}
        assert shots.min() >= 1
        assert shots.sum() <= 500
    assert (min(ways), max(ways)) == (5, 50)
    assert np.mean(ways) == pytest.approx(27.5, abs=2)
    assert np.median(uneven) > 3


@pytest.mark.parametrize(("classes", "expected"), [(3, {2, 3}), (6, {5, 6})])
def test_ways_are_drawn_as_far_as_classes_go(classes, expected):
    few = pool((20,) * classes)
    cell = Cell("drawn", "drawn", 10, "balanced", 1)
    assert {int(draw(few, cell, 0, number).classes.max()) + 1 for number in range(40)} == expected
