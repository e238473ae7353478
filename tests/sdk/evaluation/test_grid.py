"""`evaluate`: what is reported, that methods are paired, and that a measurement goes on where it stopped."""

from __future__ import annotations

import json
import logging
from functools import partial

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from clusters import clusters
from fieldshot import evaluation
from fieldshot.errors import EmbeddingError, FieldshotError, LabelError, OptionError
from fieldshot.evaluation import evaluate, grid, mean_interval, worst_decile
from fieldshot.head import FewShotHead
from standins import Blind, Dies, Foretells, Nearest, Wrong


def plain(rows):
    """All but the times."""
    return [{name: value for name, value in vars(row).items() if name != "fit_ms"} for row in rows]


def test_separate_classes_are_told_apart_and_random_ones_are_not():
    Z, y = clusters(spread=0.01)
    rows = evaluate(Z, y, ways=5, shots=[1, 5], queries=5, episodes=10)
    assert [(r.ways, r.shots, r.queries, r.episodes, r.accuracy) for r in rows] == [(5, 1, 5, 10, 1), (5, 5, 5, 10, 1)]
    assert (rows[0].data, rows[0].method, rows[0].balance) == ("data", "fieldshot", "balanced")
    noise = np.random.default_rng(0).random(Z.shape)
    (row,) = evaluate(noise, y, ways=5, shots=1, queries=5, episodes=200)
    assert abs(row.accuracy - 0.2) < row.interval + 0.02
    assert row.fit_ms > 0


def test_a_row_says_of_its_episodes_what_they_are():
    (row,) = evaluate(*clusters(spread=2.0), ways=4, shots=1, queries=4, episodes=20)
    assert len(row.accuracies) == len(row.hardness) == 20
    assert (row.accuracy, row.interval) == mean_interval(row.accuracies)
    assert row.worst_decile == worst_decile(row.accuracies) <= row.accuracy
    assert 0 < row.ece < 1
    assert 0 < row.brier < 2
    easy = evaluate(*clusters(spread=0.1), ways=4, shots=1, queries=4, episodes=20)[0]
    assert np.mean(easy.hardness) < np.mean(row.hardness)


def test_the_accuracy_is_that_of_the_head_on_the_episodes_that_are_drawn():
    Z, y = clusters(spread=2.0)
    (row,) = evaluate(Z, y, ways=4, shots=3, queries=4, episodes=10, seed=5)
    Z, pool, cell = Z.astype(np.float32), evaluation.Pool.of(y), evaluation.Cell(4, 3, 4, "balanced", 10)
    for number, accuracy in enumerate(row.accuracies):
        drawn = evaluation.draw(pool, cell, 5, number)
        assert FewShotHead().fit(Z[drawn.support], y[drawn.support]).score(Z[drawn.query], y[drawn.query]) == accuracy


def test_seeded_and_independent_of_the_other_cells_and_methods():
    Z, y = clusters(spread=2.0)
    both = evaluate(
        Z, y, ways=[4, 2], shots=[1, 3], queries=4, episodes=20, methods=["fieldshot, adapted", "fieldshot"]
    )
    (alone,) = evaluate(Z, y, ways=4, shots=[3], queries=4, episodes=20)
    (other,) = evaluate(Z, y, ways=4, shots=[3], queries=4, episodes=20, seed=1)
    assert [(r.ways, r.shots, r.method) for r in both][2:4] == [(4, 3, "fieldshot, adapted"), (4, 3, "fieldshot")]
    assert both[3].accuracies == alone.accuracies != other.accuracies
    assert both[3].hardness == both[2].hardness


def test_whole_numbers_may_be_those_of_numpy(tmp_path):
    Z, y = clusters(spread=2.0)
    words = {"ways": 4, "shots": 3, "queries": 4, "episodes": 5, "seed": 1}
    rows = evaluate(Z, y, **words, done=tmp_path / "rows.jsonl")
    assert evaluate(Z, y, **{word: np.int64(n) for word, n in words.items()}, done=tmp_path / "rows.jsonl") == rows


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
    (row,) = evaluate(Z, y, test=(Z, wrong), ways="all", shots="all", queries=12, episodes=2)
    assert (row.accuracy, row.shots) == (0, "all")


def test_a_method_of_ones_own_is_paired_with_fieldshot():
    Z, y = clusters(spread=1.0)
    rows = evaluate(Z, y, ways=4, shots=1, queries=4, episodes=30, methods={"mine": Nearest, "blind": Blind})
    assert [row.method for row in rows] == ["mine", "blind"]
    assert rows[1].accuracy == pytest.approx(0.25)
    assert rows[1].ece == pytest.approx(0, abs=1e-9)
    assert rows[1].brier == pytest.approx(0.75)
    (head,) = evaluate(Z, y, ways=4, shots=1, queries=4, episodes=30)
    # At one shot the head is the nearest mean of transformed embeddings: near, and on the same episodes.
    assert np.corrcoef(rows[0].accuracies, head.accuracies)[0, 1] > 0.5


@pytest.mark.parametrize(
    "make",
    [partial(KNeighborsClassifier, n_neighbors=2), LogisticRegression, LinearSVC],
    ids=["predict_proba", "a third parameter of fit", "decision_function"],
)
@pytest.mark.parametrize("ways", [2, 4])
def test_a_classifier_of_scikit_learn_is_a_method(make, ways):
    Z, y = clusters(spread=2.0)
    (row,) = evaluate(Z, y, ways=ways, shots=3, queries=4, episodes=4, methods={"theirs": make})
    Z, pool, cell = Z.astype(np.float32), evaluation.Pool.of(y), evaluation.Cell(ways, 3, 4, "balanced", 4)
    for number, accuracy in enumerate(row.accuracies):
        drawn = evaluation.draw(pool, cell, 0, number)
        classifier = make().fit(Z[drawn.support], drawn.classes)
        assert classifier.score(Z[drawn.query], drawn.truth) == accuracy
    assert 0 < row.brier < 1


def test_transductive_methods_see_the_queries_and_no_others():
    Z, y = clusters(spread=3.0)
    (row,) = evaluate(Z, y, ways=4, shots=1, queries=4, episodes=5, methods={"foretells": Foretells}, balance=2.0)
    assert row.accuracy > 0
    assert row.balance == 2.0


def test_imbalanced_episodes_weigh_every_query_alike_in_brier():
    Z, y = clusters(spread=1.0)
    (row,) = evaluate(Z, y, ways=3, shots=1, queries=4, episodes=30, methods={"blind": Blind}, balance=0.5)
    assert row.brier == pytest.approx(2 / 3)
    assert len(set(row.accuracies)) > 1


def test_heterogeneous_episodes_are_one_cell():
    (row,) = evaluate(*clusters(spread=0.01), heterogeneous=True, episodes=5)
    assert (row.ways, row.shots, row.queries, row.accuracy) == ("drawn", "drawn", 10, 1)


def test_progress_grows_to_all_the_work():
    seen = []
    Z, y = clusters()
    evaluate(Z, y, ways=2, shots=[1, 2], queries=2, episodes=25, progress=lambda *args: seen.append(args))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {seen[-1][0]}
    assert len(seen) >= 4


def test_processes_give_the_same_rows(monkeypatch):
    Z, y = clusters(spread=2.0)
    words = {"ways": 3, "shots": [1, 4], "queries": 4, "episodes": 23, "methods": ["fieldshot", "fieldshot, adapted"]}
    alone = evaluate(Z, y, **words)
    monkeypatch.setattr(grid, "_JOB_WORK", 1)
    assert plain(evaluate(Z, y, **words, jobs=2)) == plain(alone)
    with pytest.raises(OptionError, match="finite probabilities"):
        evaluate(Z, y, **{**words, "methods": {"wrong": Wrong}}, jobs=2)
    with pytest.raises(FieldshotError, match=r"--jobs"):
        evaluate(Z, y, **{**words, "methods": {"dies": Dies}}, jobs=2)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"ways": 7}, OptionError, "at least 7 classes for 7 ways .got 6."),
        ({"shots": [9]}, OptionError, "must have 13 pictures .* .got 12 of 'class 0'."),
        ({"shots": [9], "test": clusters(count=3)}, OptionError, "must have 4 pictures to recognise .got 3 of 'class"),
        ({"test": clusters(classes=7)}, OptionError, "same classes"),
        ({"test": (np.ones((3, 5)), ["class 0"] * 3)}, EmbeddingError, "shape .N, 16"),
        ({"seed": -1}, OptionError, "seed must be a whole number, at least 0"),
        ({"seed": 0.5}, OptionError, "seed must be a whole number, at least 0 .got 0.5."),
        ({"jobs": 0}, OptionError, "jobs must be a whole number, at least 1"),
        ({"methods": {"wrong": Wrong}}, OptionError, "'wrong' must give finite probabilities of shape"),
        ({"methods": {"near": KNeighborsClassifier()}}, OptionError, "must be a class, .* KNeighborsClassifier object"),
        ({"methods": {"none": object}}, OptionError, "'none' must have fit and predict_proba .*got object"),
        ({"labels": ["class 0"]}, LabelError, "labels must have shape .72,."),
        ({"embeddings": np.full((72, 16), np.nan)}, EmbeddingError, "must be finite"),
    ],
)
def test_what_makes_no_sense_is_refused(options, kind, message):
    Z, y = clusters()
    asked = {"embeddings": Z, "labels": y, "ways": 3, "shots": [1], "queries": 4, **options}
    with pytest.raises(kind, match=message):
        evaluate(**asked)
    with pytest.raises(OptionError, match="at least a second class"):
        evaluate(np.eye(3), [0, 0, 0], ways=2)


def test_what_a_grid_leaves_out_is_logged(caplog):
    with caplog.at_level(logging.WARNING, "fieldshot"):
        rows = evaluate(*clusters(), ways="grid", shots="grid", queries=5, episodes=2, name="mine")
    assert {row.ways for row in rows} == {2, 5, 6}
    assert "mine: the grid leaves out 10, 20 ways (there are 6 classes)" in caplog.text


class Stop(BaseException):
    """Stands for an interrupt."""


def test_a_stopped_measurement_goes_on_where_it_was(tmp_path, monkeypatch, caplog):
    Z, y = clusters(spread=2.0)
    done = tmp_path / "rows.jsonl"
    words = {"ways": 3, "shots": [1, 2, 3], "queries": 4, "episodes": 5}

    def stop(finished, total):
        if finished > total / 2:
            raise Stop

    with pytest.raises(Stop):
        evaluate(Z, y, **words, done=done, progress=stop)
    kept = done.read_bytes()
    assert kept.count(b"\n") == 2
    done.write_bytes(kept + b'{"key": "abc", "ro')  # a power loss in the midst of a line
    assert "were measured before" not in caplog.text
    seen = []
    rows = evaluate(Z, y, **words, done=done, progress=lambda *args: seen.append(args))
    assert f"data: 2 of 3 rows were measured before: they are taken from {done}" in caplog.text
    assert plain(rows) == plain(evaluate(Z, y, **words))
    assert done.read_bytes().startswith(kept)
    assert done.read_bytes().count(b"\n") == 3
    assert len(seen) == 1
    assert seen[0][0] == seen[0][1]
    lines = [json.loads(line)["row"] for line in done.read_text().splitlines()]
    assert [line["shots"] for line in lines] == [1, 2, 3]
    monkeypatch.setattr(evaluation.work, "_run", None)  # nothing is left to do
    assert evaluate(Z, y, **words, done=done) == rows


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"episodes": 6},
        {"queries": 3},
        {"balance": 2.0},
        {"methods": ["fieldshot, adapted"]},
        {"embeddings": clusters(spread=2.0, seed=1)[0]},
        {"labels": np.roll(clusters()[1], 1)},
        {"test": clusters()},
        {"name": "other"},
        {"__version__": "0.0.0"},
        {"_code": lambda: "another"},
        {"FIELDSHOT_DEVICE": "reference"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_settings_or_data_never_mix(tmp_path, monkeypatch, other):
    Z, y = clusters(spread=2.0)
    done = tmp_path / "rows.jsonl"
    words = {"embeddings": Z, "labels": y, "ways": 3, "shots": 1, "queries": 4, "episodes": 5}
    evaluate(**words, done=done)
    if other.keys() <= {"__version__", "_code"}:
        monkeypatch.setattr(grid, *next(iter(other.items())))
    elif "FIELDSHOT_DEVICE" in other:
        monkeypatch.setenv("FIELDSHOT_DEVICE", other["FIELDSHOT_DEVICE"])
    else:
        words |= other
    rows = evaluate(**words, done=done)
    assert plain(rows) == plain(evaluate(**words))
    keys = [json.loads(line)["key"] for line in done.read_text().splitlines()]
    assert len(set(keys)) == 2
