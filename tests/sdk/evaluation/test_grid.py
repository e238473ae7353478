"""Episodes: what is drawn, what is reported, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fieldshot.errors import OptionError
from fieldshot.evaluation import evaluate, mean_interval


def clusters(classes=6, count=12, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat([f"class {k}" for k in range(classes)], count)
    centres = np.random.default_rng(1).gamma(2.0, size=(classes, 16))
    return np.maximum(np.repeat(centres, count, axis=0) + spread * rng.normal(size=(len(y), 16)), 0), y


def test_separate_classes_are_told_apart_and_random_ones_are_not():
    Z, y = clusters(spread=0.01)
    rows = evaluate(Z, y, ways=5, shots=[1, 5], queries=5, episodes=10)
    assert [(r.ways, r.shots, r.queries, r.episodes, r.accuracy) for r in rows] == [(5, 1, 5, 10, 1), (5, 5, 5, 10, 1)]
    noise = np.random.default_rng(0).random(Z.shape)
    (row,) = evaluate(noise, y, ways=5, shots=[1], queries=5, episodes=200)
    assert abs(row.accuracy - 0.2) < row.interval + 0.02
    assert row.fit_ms > 0


def test_seeded_and_independent_of_the_other_shots():
    Z, y = clusters(spread=2.0)
    both = evaluate(Z, y, ways=4, shots=[1, 3], queries=4, episodes=20)
    (alone,) = evaluate(Z, y, ways=4, shots=[3], queries=4, episodes=20)
    (other,) = evaluate(Z, y, ways=4, shots=[3], queries=4, episodes=20, seed=1)
    assert both[1].accuracy == alone.accuracy != other.accuracy


def test_queries_are_never_in_the_support():
    # Every sample is unlike every other one: only by having seen it could its class be known.
    Z, y = np.eye(60), np.repeat(np.arange(5), 12)
    (row,) = evaluate(Z, y, ways=5, shots=[6], queries=6, episodes=50)
    assert row.accuracy < 0.4


def test_a_separate_test_set_is_what_is_asked():
    Z, y = clusters(spread=0.01)
    (row,) = evaluate(Z, y, test=(Z[::-1], y[::-1]), ways=6, shots=[12], queries=12, episodes=2)
    assert row.accuracy == 1
    wrong = np.roll(y, 12)  # the test set names every class by its neighbour
    (row,) = evaluate(Z, y, test=(Z, wrong), ways=6, shots=[12], queries=12, episodes=2)
    assert row.accuracy == 0


def test_progress_counts_every_episode():
    Z, y = clusters()
    seen = []
    evaluate(Z, y, ways=2, shots=[1, 2], queries=2, episodes=3, progress=lambda *args: seen.append(args))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).random(400)
    mean, interval = mean_interval(values)
    assert mean == pytest.approx(values.mean())
    assert interval == pytest.approx(1.96 * values.std(ddof=1) / 20)
    assert mean_interval([0.5]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 7}, "at least 7 classes for 7 ways .got 6."),
        ({"ways": 1}, "ways must be at least 2"),
        ({"shots": []}, "shots must be at least 1"),
        ({"shots": [1, 0]}, "shots must be at least 1"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"shots": [9]}, "must have 13 pictures .* .got 12 of 'class 0'."),
        ({"shots": [9], "test": clusters(count=3)}, "must have 4 pictures to recognise .got 3 of 'class 0'."),
        ({"test": clusters(classes=7)}, "same classes"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        evaluate(*clusters(), **{"ways": 3, "shots": [1], "queries": 4, **options})
    with pytest.raises(OptionError, match="at least a second class"):
        evaluate(np.eye(3), [0, 0, 0], ways=2)
