"""The immutable model: what it answers, and that a later one leaves it as it is."""

from __future__ import annotations

import numpy as np
import pytest

from fieldshot.gallery import Snapshot
from fieldshot.recognizer.model import Model

DIM = 8
CENTRES = dict(zip("abcdef", np.eye(DIM, dtype=np.float32), strict=False))


def snapshot(since: int, version: int, samples: list[tuple[str, str]]) -> Snapshot:
    """Samples as (label, centre); a label with a minus before it stands for its negatives."""
    random = np.random.default_rng(version)
    embeddings = np.stack([CENTRES[centre] + random.uniform(0, 0.05, DIM) for _, centre in samples])
    labels = [label.removeprefix("-") for label, _ in samples]
    negative = np.array([label.startswith("-") for label, _ in samples])
    return Snapshot(since, version, labels, negative, embeddings.astype(np.float32), 0)


def test_a_later_model_leaves_the_earlier_one_as_it_is() -> None:
    earlier = Model(-1, (), None).advanced(snapshot(0, 1, [("a", "a"), ("b", "b")]))
    queries = np.stack([CENTRES["a"], CENTRES["c"]])
    before = earlier.answers(queries)
    later = earlier.advanced(snapshot(1, 2, [("c", "c"), ("a", "a"), ("-b", "d")]))
    assert earlier.answers(queries) == before
    assert [set(answer.scores) for answer in later.answers(queries)] == [{"a", "b", "c"}] * 2
    assert (earlier.version, later.version) == (1, 2)


def test_only_its_own_negatives_take_a_label_away() -> None:
    model = Model(-1, (), None).advanced(
        snapshot(0, 1, [("a", "a"), ("b", "b"), ("c", "c"), ("-a", "d"), ("-a", "d"), ("-b", "c")])
    )
    a, b, c, d = model.answers(np.stack([CENTRES[name] for name in "abcd"]))
    assert (a.label, b.label, c.label, d.label) == ("a", "b", "c", None)
    assert d.confidence == max(d.scores.values())


def test_negatives_of_a_label_without_pictures_wait_for_them() -> None:
    model = Model(-1, (), None).advanced(snapshot(0, 1, [("a", "a"), ("-b", "d"), ("c", "c")]))
    assert set(model.answers(CENTRES["a"][None])[0].scores) == {"a", "c"}
    model = model.advanced(snapshot(1, 2, [("b", "b")]))
    b, d = model.answers(np.stack([CENTRES["b"], CENTRES["d"]]))
    assert b.label == "b" and d.label != "b"


def test_a_rejected_picture_is_no_label_that_is_less_likely_than_chance() -> None:
    samples = [(label, label) for label in "abc" for _ in range(12)]
    model = Model(-1, (), None).advanced(snapshot(0, 1, samples))
    stranger = CENTRES["f"][None]
    assert model.answers(stranger)[0].label is None
    for rejected in "abc":  # whichever label it was rejected for, it stays unknown
        later = model.advanced(snapshot(1, 2, [(f"-{rejected}", "f")]))
        assert later.answers(stranger)[0].label is None
        known = later.answers(np.stack([CENTRES[name] for name in "abc"]))
        assert [answer.label for answer in known] == ["a", "b", "c"]
    few = Model(-1, (), None).advanced(snapshot(0, 1, [("a", "a"), ("b", "b"), ("c", "c"), ("-a", "f"), ("-a", "f")]))
    answer = few.answers(stranger)[0]
    assert answer.label is None and answer.confidence < 0.25


def test_a_stated_false_accept_rate_makes_it_stricter() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c", "d"], 30)
    centres = {label: rng.random(DIM) for label in "abcd"}
    Z = np.stack([centres[label] + rng.normal(0, 0.3, DIM) for label in y]).astype(np.float32)
    data = Snapshot(0, 1, y.tolist(), np.zeros(len(y), bool), Z, 0)
    models = [Model(-1, (), None, rate).advanced(data) for rate in (None, 0.01)]
    refused = [sum(answer.label is None for answer in model.answers(Z)) for model in models]
    assert refused[0] < refused[1]


def test_the_head_threshold_decides_what_is_known() -> None:
    samples = [(label, label) for label in "abc" for _ in range(12)]
    model = Model(-1, (), None).advanced(snapshot(0, 1, samples))
    assert model.head is not None
    queries = np.stack([CENTRES["a"], CENTRES["f"]])
    scores = model.head.open_score(queries)
    model.head.threshold_ = float(scores.mean())
    assert [answer.label for answer in model.answers(queries)] == ["a", None]
    model.head.threshold_ = float("nan")  # too few samples to say: nothing is unknown
    assert None not in [answer.label for answer in model.answers(queries)]
    assert sum(model.answers(queries)[0].scores.values()) == pytest.approx(1)
