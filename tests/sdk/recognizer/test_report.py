"""The report: what each picture would have been answered had it not been enrolled, counted, and in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clusters import clusters
from fieldshot.backbone import Backbone
from fieldshot.errors import FieldshotError
from fieldshot.gallery import Gallery, Sample
from fieldshot.head import FewShotHead
from fieldshot.images import find_classes
from fieldshot.recognizer import Recognizer
from fieldshot.recognizer.model import Model
from fieldshot.recognizer.report import Report, examined


def report(
    folder: Path, Z: np.ndarray, y: np.ndarray, rejected: dict[str, np.ndarray] | None = None, **options
) -> Report:
    """Of a gallery with embeddings Z (N, D) of labels y; sources are their numbers."""
    with Gallery.create(folder / "a.gallery", contract="c0ffee", dim=Z.shape[1]) as gallery:
        for label in dict.fromkeys(y.tolist()):
            rows = np.flatnonzero(y == label)
            gallery.enroll(label, [Sample(b"%d" % row, Z[row].astype(np.float32), str(row)) for row in rows])
        for label, others in (rejected or {}).items():
            gallery.reject(label, [Sample(b"-%d" % row, z, f"not {row}") for row, z in enumerate(others)])
        return examined(gallery, Model(-1, (), None), **options)


def test_a_picture_is_asked_about_by_a_head_that_has_not_seen_it(tmp_path: Path) -> None:
    Z, y = clusters(3, 6, spread=1.6)
    said = Counter()
    for part in range(6):  # one of each class at a time
        out = np.arange(len(y)) % 6 == part
        head = FewShotHead().fit(Z[~out].astype(np.float32), y[~out])
        said.update(zip(y[out].tolist(), head.predict(Z[out].astype(np.float32)).tolist(), strict=True))
    assert any(own != got for own, got in said)
    got = report(tmp_path, Z, y)
    for of in got.labels:
        assert (of.pictures, of.negatives, of.asked) == (6, 0, 6)
        assert of.recognized + of.unknown + sum(of.taken_for.values()) == 6
        assert of.recognized <= said[of.label, of.label]  # the rest may be unknown
        assert all(count <= said[of.label, other] for other, count in of.taken_for.items())
    assert sum(of.unknown for of in got.labels) <= 2


def test_a_picture_under_the_wrong_label_is_doubtful(tmp_path: Path) -> None:
    Z, y = clusters(4, 12, spread=0.3)
    y[30] = "class 0"
    got = report(tmp_path, Z, y)
    assert [(doubt.label, doubt.source, doubt.looks_like) for doubt in got.doubts] == [("class 0", "30", "class 2")]
    assert got.doubts[0].probability < 0.02 < got.doubts[0].confidence
    assert got.labels[0].taken_for == {"class 2": 1}
    assert [line for line in got.advice if "doubtful" not in line] == []
    (tmp_path / "clean").mkdir()
    clean = report(tmp_path / "clean", *clusters(4, 12, spread=0.3))
    assert (clean.doubts, clean.advice, clean.version) == ((), (), 4)


def test_wrong_labels_among_real_pictures_are_found(shared: Path, tmp_path: Path) -> None:
    """Of 5 % of ten classes of twenty hand signs, by the embedded backbone, most; and little else is doubtful."""
    classes = {label: paths[:20] for label, paths in find_classes(shared / "data/signdigits").items()}
    Z = Backbone.default().embed([path for paths in classes.values() for path in paths])
    found, listed = 0, 0
    for seed in range(5):
        y, random = np.repeat(list(classes), 20), np.random.default_rng(seed)
        wrong = random.choice(len(y), 10, replace=False)
        y[wrong] = np.roll(list(classes), 1 + seed)[wrong // 20]
        folder = tmp_path / str(seed)
        folder.mkdir()
        doubtful = {int(doubt.source) for doubt in report(folder, Z, y).doubts}
        found, listed = found + len(doubtful & set(wrong.tolist())), listed + len(doubtful)
    assert found >= 0.6 * 50
    assert found >= 0.9 * listed


def test_a_lone_picture_and_negatives_always_stay(tmp_path: Path) -> None:
    Z, y = clusters(3, 12, spread=0.3)
    rows = np.flatnonzero((y != "class 2") | (np.arange(len(y)) == 24))
    got = report(tmp_path, Z[rows], y[rows], {"class 0": Z[30:32].astype(np.float32)})
    assert [(of.label, of.pictures, of.negatives, of.asked) for of in got.labels] == [
        ("class 0", 12, 2, 12),
        ("class 1", 12, 0, 12),
        ("class 2", 1, 0, 0),
    ]
    assert got.advice == ("enrol more pictures, 5 of a label at least: of 'class 2' (1)",)


def test_labels_that_are_hard_to_tell_apart_are_named(tmp_path: Path) -> None:
    Z, y = clusters(3, 20, spread=0.3)
    Z[20:40] = clusters(3, 20, spread=0.3, seed=1)[0][:20]  # the second label shows what the first does
    got = report(tmp_path, Z, y)
    first, second, third = got.labels
    assert list(first.taken_for) == ["class 1"] and list(second.taken_for) == ["class 0"]
    assert third.recognized >= 18 and third.taken_for == {}
    right, taken = second.recognized, second.taken_for["class 0"]
    said = f"{right} of 20 pictures of 'class 1' are recognized, {taken} are taken for 'class 0'"
    assert said in " ".join(got.advice)


def test_progress_and_what_it_raises(tmp_path: Path) -> None:
    Z, y = clusters(2, 30)
    told: list[tuple[int, int | None]] = []
    report(tmp_path, Z, y, progress=lambda *at: told.append(at))
    assert told == [(part, 10) for part in range(1, 11)]


@pytest.mark.parametrize("count", [0, 3])
def test_there_must_be_two_labels(tmp_path: Path, count: int) -> None:
    Z, y = clusters(1, 3)
    with pytest.raises(FieldshotError, match="two labels"):
        report(tmp_path, Z[:count], y[:count])


def test_other_pictures_are_asked_about_too(tmp_path: Path, tiny_bundle: Path) -> None:
    """Of two labels one is enrolled; of the other, which looks like it, too little is unknown."""
    random = np.random.default_rng(0)

    def pictures(red: int, blue: int) -> list[np.ndarray]:
        return [np.clip(random.normal((red, 60, blue), 20, (40, 40, 3)), 0, 255).astype(np.uint8) for _ in range(8)]

    with Recognizer.create(tmp_path / "a.gallery", Backbone.load(tiny_bundle)) as recognizer:
        recognizer.enroll_many({"red": pictures(200, 30), "blue": pictures(30, 200)})
        told: list[tuple[int, int | None]] = []
        others = {"blue": pictures(30, 200), "plum": pictures(60, 160)}
        got = recognizer.report(others, progress=lambda *at: told.append(at))
        assert recognizer.gallery.version() == 2
    blue, plum, red = got.labels
    assert (blue.label, blue.pictures, blue.asked, blue.recognized) == ("blue", 8, 8, 8)
    assert (plum.label, plum.pictures, plum.asked, plum.recognized) == ("plum", 0, 8, 0)
    assert (red.label, red.pictures, red.asked) == ("red", 8, 0)
    assert plum.unknown + plum.taken_for["blue"] == 8
    assert got.doubts == ()
    assert got.advice == (f"'plum' is not enrolled, and {plum.unknown} of 8 are unknown: reject some of the others",)
    assert told[-1] == (16, 16)
