"""The demo on a folder, and on the pictures that packages bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot.backbone import Backbone
from fieldshot.demo import DemoResult, DemoRow, pictures, run
from fieldshot.demo.sheet import Answered, draw
from fieldshot.errors import MissingDependencyError, PictureError
from fieldshot.recognizer import Recognition

COLOURS = {"red": (220, 40, 30), "green": (30, 200, 60), "blue/ sky": (40, 60, 230)}


@pytest.fixture
def folder(tmp_path):
    """Three classes of noisy single colours, 12 pictures each."""
    rng = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (tmp_path / "data" / label.replace("/", "_")).mkdir(parents=True)
        for number in range(12):
            noisy = np.clip(colour + rng.normal(0, 30, size=(40, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "data" / label.replace("/", "_") / f"{number}.png")
    return tmp_path / "data"


def test_a_folder_of_classes_is_enrolled_recognised_and_shown(folder, tmp_path, tiny_bundle):
    seen = []
    result = run(folder, Backbone.load(tiny_bundle), tmp_path / "out", progress=lambda *args: seen.append(args))
    assert [(row.task, row.classes, row.shots) for row in result.rows] == [("data", 3, 1), ("data", 3, 5)]
    for row in result.rows:
        assert row.accuracy > 0.95
        assert 0 <= row.unknown < 0.3
        assert min(row.enrol_ms, row.refit_ms, row.recognize_ms) > 0
    assert seen == [(0, 2), (1, 2), (2, 2)]
    lines = result.table().splitlines()
    assert len(lines) == 3
    assert "accuracy" in lines[0]
    with Image.open(result.sheet) as sheet:
        assert sheet.format == "PNG"
        colours = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    for colour in COLOURS.values():  # thumbnails of every class are on it
        assert np.abs(colours - np.array(colour)).max(axis=1).min() < 12


def test_the_table_says_what_the_rows_say():
    row = DemoRow("a very long name of a task", 3, 5, 0.93217, 0.00414, 0.1234, 12.345, 0.678, 9.876)
    line = DemoResult([row], Path("sheet.png")).table().splitlines()[1]
    assert " ".join(line.split()) == "a very long 3 5 93.2 % +- 0.4 12 % 12.3 ms 0.7 ms 9.9 ms"


def test_support_and_query_never_share_a_picture(folder):
    task = pictures.from_folder(folder)
    for label, support in task.support.items():
        assert len(support) == 6
        assert not set(support) & set(task.query[label])


def test_folders_that_show_nothing_are_refused(folder):
    with pytest.raises(PictureError, match=r"at least two classes \(got 1\)"):
        for name in ("red", "green"):
            for path in (folder / name).iterdir():
                path.unlink()
            (folder / name).rmdir()
        pictures.from_folder(folder)
    (folder / "lonely").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "lonely" / "one.png")
    with pytest.raises(PictureError, match=r"'lonely' must have at least two pictures .got 1."):
        pictures.from_folder(folder)


def test_photographs_and_digits_come_from_packages():
    photographs, digits = pictures.from_packages()
    assert len(photographs.support) == 18
    assert sorted(digits.support) == [str(k) for k in range(10)]
    for task in (photographs, digits):
        for label in task.support:
            assert (len(task.support[label]), len(task.query[label])) == (40, 10)
            for picture in task.support[label] + task.query[label]:
                assert picture.dtype == np.uint8
                assert picture.shape[0] == picture.shape[1]
    again, _ = pictures.from_packages()
    np.testing.assert_array_equal(again.support["coffee"][3], photographs.support["coffee"][3])


def test_without_the_packages_the_mend_is_named(monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"fieldshot\[demo\].*--data"):
        pictures.from_packages()


def test_the_sheet_tells_right_wrong_and_unknown_apart(tmp_path):
    def answer(label):
        return Recognition(label, 0.5, {"a": 0.5, "b": 0.5}, 1.0, label is not None, 1, "onnxruntime float32")

    white = np.full((20, 30, 3), 255, np.uint8)
    truth = "a label far too long for the width of a thumbnail on the sheet"
    draw([Answered(white, truth, answer(label)) for label in (truth, "b", None)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        frames = [sheet.getpixel((10 + column * 138, 10)) for column in range(3)]
    assert frames == [(30, 130, 60), (190, 40, 40), (120, 120, 120)]
    draw([], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0
