"""FewShotHead: scikit-learn's contract, the equalities it promises, and what it says to bad input."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from fieldshot import FewShotHead
from fieldshot.errors import BundleError, EmbeddingError, LabelError, MissingFileError, NotFittedError, OptionError
from fieldshot.head.contract import DataConversionWarning


def samples(seed, counts, dim=24, spread=1.0):
    """ReLU-like embeddings around one centre a class."""
    rng = np.random.default_rng(seed)
    centres = rng.gamma(2.0, size=(len(counts), dim))
    y = np.repeat(np.arange(len(counts)), counts)
    return np.maximum(centres[y] + spread * rng.normal(size=(len(y), dim)), 0).astype(np.float32), y


def assert_same(one, other, tolerance=1e-4):
    Z, _ = samples(99, [5] * 8, dim=one.n_features_in_)
    np.testing.assert_array_equal(one.classes_, other.classes_)
    np.testing.assert_allclose(one.predict_proba(Z), other.predict_proba(Z), atol=tolerance)
    np.testing.assert_allclose(one.open_score(Z), other.open_score(Z), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(one.threshold_, other.threshold_, rtol=1e-3, atol=1e-3)


def test_scikit_learn_accepts_the_estimator():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        warnings.simplefilter("always", DataConversionWarning)
        # The contract is kept without the base class: the runtime does not depend on scikit-learn.
        warnings.filterwarnings("ignore", "Estimator FewShotHead does not inherit")
        results = check_estimator(FewShotHead(), on_fail=None)
    assert [r for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) > 45


counts = st.lists(st.integers(1, 9), min_size=1, max_size=6)


# D = 24 keeps to the Gram matrix up to 24 samples; D = 3 passes to second moments, and past 6 samples drops them.
@settings(deadline=None, max_examples=60)
@given(counts, st.integers(1, 5), st.sampled_from([3, 24]), st.integers(0, 2**31))
def test_partial_fit_equals_fit(counts, pieces, dim, seed):
    Z, y = samples(seed, counts, dim)
    order = np.random.default_rng(seed).permutation(len(y))
    Z, y = Z[order], y[order]
    grown = FewShotHead()
    for part in np.array_split(np.arange(len(y)), pieces):
        if len(part):
            grown.partial_fit(Z[part], y[part])
    assert_same(grown, FewShotHead().fit(Z, y))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.sampled_from([3, 24]), st.integers(0, 2**31), st.data())
def test_forget_equals_never_seen(counts, dim, seed, data):
    Z, y = samples(seed, counts, dim)
    gone = data.draw(st.integers(0, len(counts) - 1))
    head = FewShotHead().fit(Z, y).forget(gone)
    assert_same(head, FewShotHead().fit(Z[y != gone], y[y != gone]))


@settings(deadline=None, max_examples=40)
@given(counts, st.sampled_from([3, 24]), st.integers(0, 2**31), st.data())
def test_merge_equals_learning_from_the_samples_of_both(counts, dim, seed, data):
    Z, y = samples(seed, counts, dim)
    first = np.array(data.draw(st.lists(st.booleans(), min_size=len(y), max_size=len(y))))
    one, other = (FewShotHead().fit(Z[part], y[part]) if part.any() else FewShotHead() for part in (first, ~first))
    if not hasattr(other, "classes_"):
        with pytest.raises(NotFittedError):
            one.merge(other)
        return
    before = other.predict_proba(Z)
    assert_same(one.merge(other), FewShotHead().fit(Z, y))
    np.testing.assert_array_equal(other.predict_proba(Z), before)


def test_merge_of_large_classes_and_of_other_embeddings():
    Z, y = samples(0, [150, 3, 150], 3)
    # One holds samples of the first class, the other its second moment.
    parts = [slice(0, 6), slice(6, 303)]
    small, large = (FewShotHead().fit(Z[part], y[part]) for part in parts)
    whole = FewShotHead().fit(Z, y)
    assert_same(FewShotHead().merge(small).merge(large), whole, 2e-3)
    # Other samples stay at hand for the temperature, which is a factor on all logits.
    logits = [head.decision_function(Z) for head in (FewShotHead().merge(large).merge(small), whole)]
    np.testing.assert_allclose(*(of / np.linalg.norm(of) for of in logits), atol=1e-5)
    both = [Z[parts[1]]] * 2, [y[parts[1]]] * 2
    twice = [FewShotHead().merge(large).merge(large), FewShotHead().fit(*map(np.concatenate, both))]
    logits = [head.decision_function(Z) for head in twice]
    np.testing.assert_allclose(*(of / np.linalg.norm(of) for of in logits), atol=1e-5)
    queries, _ = samples(1, [5, 5, 5], 3)
    adapted = FewShotHead().fit(Z, y).adapt(np.concatenate([queries[:7], queries[7:]]))
    assert_same(small.adapt(queries[:7]).merge(large.adapt(queries[7:])), adapted)
    assert_same(FewShotHead().merge(adapted), adapted)
    with pytest.raises(EmbeddingError, match="same number of features"):
        small.merge(FewShotHead().fit(*samples(0, [2, 2], 4)))
    with pytest.raises(OptionError, match=r"must be a FewShotHead .got int.*partial_fit"):
        small.merge(3)


def test_equalities_hold_past_the_samples_kept_for_holding_out():
    Z, y = samples(0, [300, 70, 2], dim=8)
    Z = Z[np.random.default_rng(0).permutation(len(y))]
    grown = FewShotHead()
    for start in range(0, len(y), 37):
        grown.partial_fit(Z[start : start + 37], y[start : start + 37])
    assert_same(grown, FewShotHead().fit(Z, y))
    assert_same(grown.forget(0), FewShotHead().fit(Z[y > 0], y[y > 0]))


def test_memory_does_not_grow_with_samples():
    head = FewShotHead()
    for seed in range(20):
        head.partial_fit(*samples(seed, [500, 500], dim=8))
    assert all(len(s.samples) <= 64 for s in head._statistics.values())
    assert [s.count for s in head._statistics.values()] == [10_000, 10_000]


@pytest.mark.parametrize("shots", [[700], [700, 900], [100, 50, 3]])
@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_samples_that_are_as_good_as_alike(shots, spread):
    """Pictures of a camera that stands still, past D of them and past 2 D a class."""
    Z, y = samples(0, shots, dim=64, spread=spread)
    queries, _ = samples(1, [9] * 5, dim=64)
    expected = FewShotHead(device="reference").fit(Z, y).decision_function(queries)
    streamed = FewShotHead().fit(Z[::3], y[::3]).partial_fit(Z[1::3], y[1::3])
    for head in (FewShotHead().fit(Z, y), streamed.merge(FewShotHead().fit(Z[2::3], y[2::3]))):
        np.testing.assert_allclose(head.decision_function(queries), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("rows", [2, 2000])  # looked through in one call, and in several
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_at_the_end_of_their_range_are_finite(rows, dtype):
    Z = np.full((rows, 8), np.finfo(dtype).max, dtype)
    Z[::2, 0] = 0
    head = FewShotHead().fit(Z, np.arange(rows) % 2)
    assert head.score(Z, np.arange(rows) % 2) == 1
    Z[-1, 1] = np.nan
    with pytest.raises(EmbeddingError, match=f"got NaN in row {rows - 1}"):
        head.predict(Z)


def test_one_sample_again_and_again_in_two_classes():
    """What is left of squares that cancel must not be less than nothing, of up to D samples either."""
    Z = np.random.default_rng(8).gamma(0.05, size=(1, 700)).astype(np.float32)
    head = FewShotHead().fit(Z.repeat(700, axis=0), np.arange(700) % 2)
    np.testing.assert_allclose(head.predict_proba(Z), 0.5)


@pytest.mark.parametrize(("classes", "shots", "dim"), [(1, 60, 1280), (2, 30, 1280), (2, 64, 64), (4, 35, 64)])
def test_one_scene_in_every_class(classes, shots, dim):
    """Nothing tells the classes apart, nor the samples of one from another but noise."""
    rng = np.random.default_rng(0)
    Z = rng.gamma(0.5, size=(1, dim)) * (1 + 1e-5 * rng.normal(size=(classes * shots, dim)))
    head = FewShotHead().fit(Z, np.arange(len(Z)) % classes)
    np.testing.assert_allclose(head.predict_proba(Z).sum(axis=1), 1.0)


def test_a_small_class_does_not_keep_the_batch_that_it_came_in():
    Z, y = samples(0, [5, 2000], dim=8)
    head = FewShotHead().fit(Z, y)
    assert all(s.samples.base is None for s in head._statistics.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.forget(1),
        lambda head: head.partial_fit(*samples(1, [0, 9])),
        lambda head: head.merge(FewShotHead().fit(*samples(1, [0, 9]))),
    ],
    ids=["forget", "partial_fit", "merge"],
)
def test_a_class_does_not_keep_what_others_no_longer_need(change):
    head = change(FewShotHead().fit(*samples(0, [2, 9])))
    assert head._statistics[0].samples.base is None


def test_held_out_samples_are_few_unless_a_stated_rate_needs_more():
    Z, y = samples(1, [64] * 50, dim=8)
    assert FewShotHead().fit(Z, y).open_set_.samples == 50 * 11  # 512 of all, the same of each
    strict = FewShotHead(false_accept_rate=0.0008).fit(Z, y)
    assert strict.open_set_.samples == 50 * 25
    assert np.isfinite(strict.threshold_)


def test_where_a_class_has_few_samples_more_of_others_are_held_out():
    Z, y = samples(1, [20, 560, 30, *[1] * 20], dim=700)
    assert FewShotHead().fit(Z, y).open_set_.samples == 512
    assert np.isfinite(FewShotHead(false_accept_rate=1 / 512).fit(Z, y).threshold_)


@pytest.mark.parametrize(("dim", "most"), [(700, 512), (8, 2 * 64)])  # past 2 D samples a class remembers 64
def test_up_to_512_samples_are_held_out_of_those_that_are_remembered(dim, most):
    Z, y = samples(1, [300, 350], dim=dim)
    assert FewShotHead().fit(Z, y).open_set_.samples == most
    assert FewShotHead().fit(Z[:512], y[:512]).open_set_.samples == most


@pytest.mark.parametrize(
    "labels",
    [
        ["bolt", "nut", "washer"],
        ["Schraube/M6", "🔩", "螺栓"],
        [10, -3, 7],
        [True, False],
        np.array(["b", "a"], dtype=object),
        [("rack", 1), ("rack", 2)],
        [1.0, 2.0],
    ],
)
def test_any_labels(labels):
    Z, y = samples(1, [4] * len(labels), spread=0.1)
    named = np.empty(len(y), dtype=object)
    named[:] = [labels[k] for k in y]
    if not isinstance(labels[0], tuple):
        named = np.array([labels[k] for k in y])
    head = FewShotHead().fit(Z, named)
    assert head.classes_.tolist() == sorted(labels)
    assert head.predict(Z).tolist() == named.tolist()
    assert head.forget(labels[0]).classes_.tolist() == sorted(labels)[:0] + sorted(x for x in labels if x != labels[0])


def test_predicting_changes_nothing():
    Z, y = samples(2, [3, 8, 1])
    head = FewShotHead().fit(Z, y)
    before = head.predict_proba(Z)
    for method in (head.predict, head.predict_log_proba, head.decision_function, head.open_score):
        method(Z[::-1])
    np.testing.assert_array_equal(head.predict_proba(Z), before)


def test_the_ways_to_ask_agree():
    Z, y = samples(3, [5, 5, 5])
    head = FewShotHead().fit(Z, y)
    probabilities = head.predict_proba(Z)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(head.predict_log_proba(Z)), probabilities, rtol=1e-6)
    np.testing.assert_array_equal(head.predict(Z), head.classes_[head.decision_function(Z).argmax(axis=1)])
    assert head.score(Z, y) == np.mean(head.predict(Z) == y)


def test_a_rare_class_is_not_swallowed_by_a_frequent_one():
    Z, y = samples(4, [400, 3, 3], spread=1.5)
    queries, truth = samples(4, [200, 200, 200], spread=1.5)  # the same seed: the same centres
    ours = FewShotHead().fit(Z, y).predict(queries)
    theirs = LogisticRegression(C=10, max_iter=500).fit(Z, y).predict(queries)
    rare = truth > 0
    assert np.mean(ours[rare] == truth[rare]) > np.mean(theirs[rare] == truth[rare])
    assert np.mean(ours[rare] == truth[rare]) > 0.8


@pytest.mark.parametrize("shots", [1, 2, 5, 20, 200])
def test_more_samples_do_not_hurt_and_confidence_is_honest(shots):
    Z, y = samples(5, [shots + 200] * 5, dim=64, spread=2.5)
    support = np.concatenate([np.flatnonzero(y == k)[:shots] for k in range(5)])
    query = np.setdiff1d(np.arange(len(y)), support)
    head = FewShotHead().fit(Z[support], y[support])
    accuracy = head.score(Z[query], y[query])
    assert accuracy > {1: 0.45, 2: 0.55, 5: 0.7, 20: 0.85, 200: 0.9}[shots]
    # One sample a class says nothing of how far samples scatter: there the prior speaks alone.
    assert abs(head.predict_proba(Z[query]).max(axis=1).mean() - accuracy) < (0.3 if shots == 1 else 0.25)


def test_unknown_things_fall_below_the_threshold():
    Z, y = samples(6, [30] * 6, dim=64)
    known = y < 4
    head = FewShotHead(false_accept_rate=0.05).fit(Z[known][::2], y[known][::2])
    assert np.mean(head.open_score(Z[~known]) >= head.threshold_) < 0.25
    assert np.mean(head.open_score(Z[known][1::2]) >= head.threshold_) > 0.8
    assert np.isnan(FewShotHead().fit(Z[[0, 30, 60]], y[[0, 30, 60]]).threshold_)


def test_adapt_gives_a_new_head_and_helps():
    Z, y = samples(7, [101] * 5, dim=64, spread=2.5)
    support = np.array([np.flatnonzero(y == k)[0] for k in range(5)])
    query = np.setdiff1d(np.arange(len(y)), support)
    head = FewShotHead().fit(Z[support], y[support])
    before = head.predict_proba(Z[query])
    adapted = head.adapt(Z[query])
    np.testing.assert_array_equal(head.predict_proba(Z[query]), before)
    assert adapted is not head
    assert adapted.score(Z[query], y[query]) > head.score(Z[query], y[query])


def test_an_adapted_head_goes_on_learning():
    Z, y = samples(8, [6] * 4)
    adapted = FewShotHead().fit(Z[::2], y[::2]).adapt(Z[1::2]).partial_fit(Z[1::2], y[1::2])
    assert_same(adapted, FewShotHead().fit(Z, y).adapt(Z[1::2]))


@pytest.mark.parametrize("dim", [3, 24])
@pytest.mark.parametrize("adapt", [False, True])
def test_save_and_load(tmp_path, dim, adapt):
    Z, y = samples(9, [9, 2, 80], dim)
    head = FewShotHead(mean_prior=3.0).fit(Z, [f"class {k}" for k in y])
    if adapt:
        head = head.adapt(Z[::3])
    head.save(tmp_path / "a.head")
    loaded = FewShotHead.load(tmp_path / "a.head")
    assert loaded.get_params() == head.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(Z), head.predict_proba(Z))
    more, again = samples(10, [3, 3], dim)
    names = [f"class {k + 2}" for k in again]
    np.testing.assert_array_equal(
        loaded.partial_fit(more, names).predict_proba(Z), head.partial_fit(more, names).predict_proba(Z)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.head"]


def test_what_is_no_head_is_refused(tmp_path):
    with pytest.raises(MissingFileError):
        FewShotHead.load(tmp_path / "none")
    (tmp_path / "text").write_text("not a head at all")
    with pytest.raises(BundleError, match="whole"):
        FewShotHead.load(tmp_path / "text")
    head = FewShotHead().fit(*samples(0, [3, 3]))
    head.save(tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match="whole"):
        FewShotHead.load(tmp_path / "cut")
    (tmp_path / "newer").write_bytes(data.replace(b'"fieldshot-head":"1"', b'"fieldshot-head":"2"'))
    with pytest.raises(BundleError, match="format 1"):
        FewShotHead.load(tmp_path / "newer")
    for place in np.linspace(20, len(data) - 1, 40).astype(int):  # of header, labels, counts and samples
        (tmp_path / "flipped").write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(BundleError):
            FewShotHead.load(tmp_path / "flipped")
    with pytest.raises(LabelError, match="to be saved"):
        FewShotHead().fit(np.eye(2), np.array([(1, 2), (3, 4)], dtype="i,i").astype(object)).save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_one_class_is_learned_and_always_predicted():
    Z, _ = samples(0, [3])
    head = FewShotHead().fit(Z, ["bolt"] * 3)
    assert head.predict(Z).tolist() == ["bolt"] * 3
    np.testing.assert_array_equal(head.predict_proba(Z), np.ones((3, 1)))
    with pytest.raises(NotFittedError, match="no samples yet"):
        head.forget("bolt").predict(Z)
    for name in ("classes_", "n_features_in_", "threshold_", "open_set_", "adaptation_"):
        assert not hasattr(head, name)
        with pytest.raises(NotFittedError, match="FewShotHead must be fitted before it is used"):
            getattr(head, name)
    with pytest.raises(AttributeError, match="no attribute 'classes'"):
        head.classes  # noqa: B018
    assert head.partial_fit(Z[:, :7], ["nut"] * 3).n_features_in_ == 7  # as new: another dimension is fine


@pytest.mark.parametrize(
    "Z",
    [
        np.zeros((6, 5)),
        np.ones((6, 5)),
        np.full((6, 5), 1e-38, np.float32),
        np.full((6, 5), 1e38, np.float32),
        np.tile(np.arange(5.0), (6, 1)),
        np.diag([1e-30, 1e30, 1.0, 1.0, 1.0, 1.0])[:, :5],
    ],
)
def test_embeddings_without_information_give_finite_answers(Z):
    head = FewShotHead().fit(Z, [0, 0, 1, 1, 2, 2])
    assert np.isfinite(head.predict_proba(Z)).all()
    assert np.isfinite(head.adapt(Z).decision_function(Z)).all()


def test_more_classes_than_samples_of_any_and_duplicates():
    Z, y = samples(11, [1] * 50)
    head = FewShotHead().fit(np.repeat(Z, 2, axis=0), np.repeat(y, 2))
    assert head.score(Z, y) == 1.0


@pytest.mark.parametrize(
    ("Z", "y", "error", "message"),
    [
        (np.ones(4), [1], EmbeddingError, r"shape \(N, D\) \(got \(4,\)\)"),
        (np.ones((0, 2)), [], EmbeddingError, "at least 1 sample"),
        (np.ones((2, 0)), [1, 2], EmbeddingError, "minimum of 1"),
        (np.array([[1.0, np.nan], [0, 0]]), [1, 2], EmbeddingError, "in row 0"),
        (np.array([[1.0, 0], [0, np.inf]]), [1, 2], EmbeddingError, r"\(got inf in row 1\)"),
        (np.array([[1.0, np.nan], [-np.inf, 0]]), [1, 2], EmbeddingError, r"\(got NaN in row 0\)"),
        (np.array([[1.0, 0], [-np.inf, 0]]), [1, 2], EmbeddingError, r"\(got -inf in row 1\)"),
        (np.ones((2, 2)) * 1j, [1, 2], EmbeddingError, "real"),
        ([["a", "b"]], [1], EmbeddingError, "numbers"),
        (np.ones((2, 2)), [1], LabelError, r"shape \(2,\)"),
        (np.ones((2, 2)), None, LabelError, "None"),
        (np.ones((2, 2)), [0.5, 1.5], LabelError, "continuous"),
        (np.ones((2, 2)), [np.nan, 1.0], LabelError, "finite"),
        (np.ones((2, 2)), np.array(["a", 1], dtype=object), LabelError, "sort"),
    ],
)
def test_bad_input_is_refused_and_the_head_stays_as_it_was(Z, y, error, message):
    with pytest.raises(error, match=message):
        FewShotHead().fit(Z, y)
    good, labels = samples(12, [4, 4], dim=2)
    head = FewShotHead().fit(good, labels)
    before = head.predict_proba(good)
    for method in (head.fit, head.partial_fit):
        with pytest.raises(error, match=message.replace("N, D", "N, (D|2)")):
            method(Z, y)
    np.testing.assert_array_equal(head.predict_proba(good), before)


def test_the_wrong_dimension_names_the_right_one():
    head = FewShotHead().fit(*samples(0, [3, 3], dim=24))
    for method in (head.predict, head.adapt, lambda Z: head.partial_fit(Z, [0])):
        with pytest.raises(EmbeddingError, match=r"shape \(N, 24\) \(got \(1, 7\)\).*Hint"):
            method(np.ones((1, 7)))
    with pytest.raises(LabelError, match="sort"):
        head.partial_fit(np.ones((1, 24)), ["text among numbers"])
    with pytest.raises(LabelError, match="one of the 2 known"):
        head.forget("x" * 10_000)


@pytest.mark.parametrize("params", [{"mean_prior": 0}, {"covariance_prior": 0.5}, {"false_accept_rate": 1.5}])
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(OptionError, match=next(iter(params))):
        FewShotHead(**params).fit(*samples(0, [3, 3]))
    with pytest.raises(OptionError, match="one of"):
        FewShotHead().set_params(no_such_thing=1)


def test_a_prediction_takes_labels_and_weights_from_one_fit(monkeypatch):
    Z, y = samples(14, [5, 5], spread=0.1)
    ops = FewShotHead()._ops()
    head = FewShotHead()

    class Meanwhile(type(ops)):
        """Another thread fits other classes in the middle of a prediction."""

        def predict(self, loaded, queries, **options):
            monkeypatch.setattr(FewShotHead, "_ops", lambda self: ops)
            head.fit(Z, np.where(y == 0, "p", "q"))
            return super().predict(loaded, queries, **options)

    monkeypatch.setattr(FewShotHead, "_ops", lambda self: Meanwhile())
    head.fit(Z, y)
    assert head.predict(Z).tolist() == y.tolist()
    assert head.predict(Z).tolist() == np.where(y == 0, "p", "q").tolist()


def test_other_threads_predict_with_a_whole_head_while_one_learns():
    Z, y = samples(13, [40] * 6)
    head = FewShotHead().fit(Z[y < 2], y[y < 2])
    stop, wrong = threading.Event(), []

    def predict():
        while not stop.is_set():
            width = head.predict_proba(Z[:3]).shape[1]
            if width not in (2, 4, 6):
                wrong.append(width)
            if not set(head.predict(Z[:40]).tolist()) <= set(range(6)):
                wrong.append("label")

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            head.partial_fit(Z[(y >= 2) & (y < 4)], y[(y >= 2) & (y < 4)])
            head.partial_fit(Z[y >= 4], y[y >= 4])
            head.fit(Z[y < 2], y[y < 2])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
