"""Accuracy on real pictures, beside heads that people use instead."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from fieldshot.backbone import Backbone
from fieldshot.evaluation import mean_interval
from fieldshot.head import FewShotHead
from fieldshot.images import find_classes
from fieldshot_export import export

SETS = ("signdigits", "trashnet", "pcb6")


@pytest.fixture(scope="module")
def embedded(shared, tmp_path_factory):
    """Embeddings and labels of 60 pictures a class of each data set, by MobileNetV2."""
    bundle = tmp_path_factory.mktemp("accuracy") / "mobilenet_v2.fieldshot"
    network = shared / "models" / "mobilenet_v2_1.0_224.onnx"
    export(bundle, onnx=network, size=224, mean=[0.5] * 3, std=[0.5] * 3, float16=False)
    backbone, sets = Backbone.load(bundle), {}
    for name in SETS:
        classes = {k: v[:: max(1, len(v) // 60)][:60] for k, v in find_classes(shared / "data" / name).items()}
        paths = [path for of in classes.values() for path in of]
        sets[name] = backbone.embed(paths), np.repeat(list(classes), [len(of) for of in classes.values()])
    return sets


def test_paired_with_others_it_is_level_or_better_at_every_number_of_shots(embedded):
    """Same episodes for all; averaged over the data sets."""
    for shots, episodes in ((1, 40), (5, 20), (20, 6)):
        gains = {"nearest mean": [], "logistic regression": []}
        for Z, y in embedded.values():
            unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
            classes = np.unique(y)
            for episode in range(episodes):
                rng = np.random.default_rng([shots, episode])
                drawn = [rng.permutation(np.flatnonzero(y == k)) for k in rng.choice(classes, 5, replace=False)]
                support = np.concatenate([rows[:shots] for rows in drawn])
                query = np.concatenate([rows[shots : shots + 15] for rows in drawn])
                ours = FewShotHead().fit(Z[support], y[support]).score(Z[query], y[query])
                labels = np.unique(y[support])
                means = [unit[support][y[support] == label].mean(axis=0) for label in labels]
                nearest = KNeighborsClassifier(1).fit(means, labels)
                gains["nearest mean"].append(ours - nearest.score(unit[query], y[query]))
                logistic = LogisticRegression(C=10, max_iter=200).fit(unit[support], y[support])
                gains["logistic regression"].append(ours - logistic.score(unit[query], y[query]))
        for name, gain in gains.items():
            mean, interval = mean_interval(gain)
            assert mean + interval >= 0, f"{shots} shots: {100 * mean:.1f} points below the {name}"
            if shots > 1:
                assert mean > 0, f"{shots} shots: not above the {name}"


@pytest.mark.parametrize(("rate", "strangers_refused", "known_refused"), [(None, 0.05, 0.15), (0.05, 0.80, 0.95)])
def test_strangers_of_the_same_kind(embedded, rate, strangers_refused, known_refused):
    """Half the classes enrolled at 20 shots, the others asked: near strangers, the hard case for "unknown"."""
    refused = {"strangers": [], "known": []}
    for Z, y in embedded.values():
        classes = np.unique(y)
        for episode in range(5):
            rng = np.random.default_rng(episode)
            drawn = [rng.permutation(np.flatnonzero(y == k)) for k in rng.permutation(classes)]
            enrolled, others = drawn[: len(drawn) // 2 + 1], drawn[len(drawn) // 2 + 1 :]
            support = np.concatenate([rows[:20] for rows in enrolled])
            head = FewShotHead(false_accept_rate=rate).fit(Z[support], y[support])
            for name, rows in (("strangers", [r[:20] for r in others]), ("known", [r[20:40] for r in enrolled])):
                refused[name].append(np.mean(head.open_score(Z[np.concatenate(rows)]) < head.threshold_))
    assert np.mean(refused["strangers"]) > strangers_refused
    assert np.mean(refused["known"]) < known_refused
