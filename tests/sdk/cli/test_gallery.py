"""The commands on a gallery: what they print, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bundles import coarse, tiny_onnx, write_tiny_bundle
from fieldshot.backbone import Backbone
from fieldshot.recognizer import Recognizer
from shell import Shell

COLOURS = ["leaf", "rust", "sky"]


def test_enroll_a_folder_of_classes(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    out = shell("enroll", "site.gallery", "--from", pictures, "--backbone", tiny_bundle)
    assert out.startswith("created site.gallery with backbone tiny-0\nenrolled leaf: 8 new\n")
    assert "24 pictures in 3 classes" in out
    again = shell.json("enroll", "site.gallery", "--from", pictures)
    assert again["created"] is False
    assert [(row["label"], row["added"], row["duplicates"]) for row in again["labels"]] == [(n, 0, 8) for n in COLOURS]


def test_time_that_is_left_goes_into_views(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    budget = ("--budget-ms", "10000")
    out = shell("enroll", "a.gallery", "--from", pictures, "--backbone", tiny_bundle, *budget)
    assert out.startswith("created a.gallery with backbone tiny-0, 3 views\n")
    assert "8 already there" in shell("enroll", "a.gallery", "--from", pictures, *budget)


def test_a_budget_goes_with_a_gallery_whose_views_fit(
    shell: Shell, pictures: Path, gallery: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "_takes_ms", lambda self: 10.0 * self.views)
    new = ("enroll", "a.gallery", "--from", pictures, "--backbone", tiny_bundle)
    assert "2 views" in shell(*new, "--budget-ms", 25)
    shell(*new, "--budget-ms", 45)
    assert Recognizer.open("a.gallery").backbone.views == 2
    error = shell.fails(*new, "--budget-ms", 15)
    assert "for the 2 views of a picture that a.gallery was made with (got 15 ms, time for 1 here)" in error
    for nothing in (0, -3, "nan", "inf"):
        for words in (new, ("enroll", "b.gallery", "--from", pictures, "--backbone", tiny_bundle)):
            assert "budget_ms must be a number of milliseconds above 0" in shell.fails(*words, f"--budget-ms={nothing}")
    assert not Path("b.gallery").exists()
    shell("enroll", gallery, "--from", pictures, "--budget-ms", 2)


def test_a_gallery_keeps_to_its_precision(shell: Shell, pictures: Path, tmp_path: Path) -> None:
    both = write_tiny_bundle(tmp_path / "both.fieldshot", others={"backbone.int8.onnx": coarse(tiny_onnx())})
    new = ("enroll", "a.gallery", "--from", pictures, "--backbone", both)
    shell(*new, "--precision", "int8", "--engine", "onnxruntime")
    shell(*new)
    assert "--precision must be int8, which a.gallery was made with (got float16)" in shell.fails(
        *new, "--precision", "float16"
    )
    assert shell.json("info", "a.gallery")["precision"] == "int8"
    (answer,) = shell.json("recognize", "a.gallery", pictures / "leaf/0.png", "--engine", "onnxruntime")
    assert answer["engine"] == "onnxruntime int8"
    facts = shell.json("info", "--backbone", both, "--precision", "int8", "--engine", "onnxruntime")
    assert facts["backbone"]["engine"]["precision"] == "int8"


def test_enroll_one_label_with_files_and_folders(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    some = [pictures / "leaf/0.png", pictures / "leaf/1.png"]
    shell("enroll", "a.gallery", "leaf", "--backbone", tiny_bundle, *some)  # an option between label and files
    assert shell("enroll", "a.gallery", "leaf", pictures / "leaf") == "enrolled leaf: 6 new, 2 already there\n"


def test_options_may_stand_between_the_words(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    leaf = pictures / "leaf/0.png"
    shell("enroll", "a.gallery", "--backbone", tiny_bundle, "leaf", leaf)
    out = shell("enroll", "a.gallery", "--backbone", tiny_bundle, "rust", "--skip-unreadable", pictures / "rust")
    assert out == "enrolled rust: 8 new\n"
    shell("enroll", "a.gallery", "--json", "sky", code=2)
    shell("enroll", "a.gallery", "--from", pictures, "sky", leaf, code=2)


def test_a_gallery_that_another_program_makes_meanwhile(
    shell: Shell, pictures: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Recognizer.create

    def late(*args: Any, **options: Any) -> Recognizer:
        create(*args, **options).close()
        return create(*args, **options)

    monkeypatch.setattr(Recognizer, "create", late)
    out = shell("enroll", "a.gallery", "leaf", pictures / "leaf", "--backbone", tiny_bundle)
    assert out == "enrolled leaf: 8 new\n"


def test_recognize_prints_a_line_a_picture(shell: Shell, gallery: str, pictures: Path) -> None:
    lines = shell("recognize", gallery, pictures / "leaf/0.png", pictures / "sky").splitlines()
    assert len(lines) == 9
    file, label, confidence, latency_ms = lines[0].split("\t")
    assert (file, label) == (str(pictures / "leaf/0.png"), "leaf")
    assert 0 < float(confidence) <= 1
    assert float(latency_ms) > 0


def test_recognize_json(shell: Shell, gallery: str, pictures: Path) -> None:
    (answer,) = shell.json("recognize", gallery, pictures / "rust/3.png")
    assert answer["label"] == "rust"
    assert answer["version"] == 3
    assert answer["latency_ms"] > 0
    assert set(answer["scores"]) == set(COLOURS)


def test_recognize_goes_on_after_a_picture_that_cannot_be_read(shell: Shell, gallery: str, pictures: Path) -> None:
    Path("broken.png").write_bytes(b"")
    good = pictures / "sky/0.png"
    out = shell("recognize", gallery, "broken.png", "absent.png", good, code=1)
    assert out.startswith(f"{good}\tsky\t")
    assert "broken.png" in shell.err
    assert "absent.png" in shell.err
    shell("recognize", gallery, "broken.png", good, "--json", code=1)
    broken, fine = json.loads(shell.out)
    assert "broken.png" in broken["error"]
    assert fine["label"] == "sky"


def test_an_undecodable_name_can_be_enrolled_and_printed(shell: Shell, gallery: str, pictures: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.png")
    try:
        (pictures / "leaf/0.png").rename(name)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert shell("recognize", gallery, name).startswith("caf\\udce9\\n.png\tleaf\t")
    assert shell.json("recognize", gallery, name)[0]["file"] == name


def test_reject_then_forget_then_undo_then_rollback(shell: Shell, gallery: str, pictures: Path) -> None:
    assert shell("reject", gallery, "leaf", pictures / "rust/0.png") == "rejected for leaf: 0 new, 1 said already\n"
    assert shell("reject", gallery, "leaf", pictures / "leaf/0.png") == "rejected for leaf: 1 new, 1 taken from it\n"
    assert shell.json("forget", gallery, "sky")["removed"] == 8
    assert "sky" not in shell.json("info", gallery)["classes"]
    assert shell.json("undo", gallery)["target"] == 5
    assert shell.json("info", gallery)["classes"]["sky"] == {"pictures": 8, "negatives": 0}
    assert "rollback 1" in shell("rollback", gallery, 1)
    assert list(shell.json("info", gallery)["classes"]) == ["leaf"]
    kinds = [row["kind"] for row in shell.json("history", gallery)]
    assert kinds == ["enroll", "enroll", "enroll", "reject", "forget", "undo", "rollback"]
    assert "forget (undone)" in shell("history", gallery)


def test_unreadable_pictures_can_be_skipped(shell: Shell, gallery: str, pictures: Path) -> None:
    Path("broken.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 40), "white").save("fine.png")
    out = shell("enroll", gallery, "paper", "fine.png", "broken.png", "--skip-unreadable")
    assert out == "enrolled paper: 1 new, 1 unreadable: broken.png\n"


def test_keeping_pictures_is_chosen_at_the_start(shell: Shell, gallery: str, pictures: Path) -> None:
    assert "new gallery" in shell.fails("enroll", gallery, "leaf", pictures / "leaf", "--keep-pictures")


def test_labels_stored_before_an_error_are_named(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    (pictures / "sky/0.png").write_bytes(b"no picture")
    shell("enroll", "a.gallery", "--from", pictures, "--backbone", tiny_bundle, code=1)
    assert "note: 2 of 3 labels were enrolled" in shell.err
    assert list(shell.json("info", "a.gallery")["classes"]) == ["leaf", "rust"]


def test_a_first_enrolment_that_fails_leaves_no_gallery(shell: Shell, tiny_bundle: Path, pictures: Path) -> None:
    Path("bad.jpg").write_bytes(b"no picture")
    shell.fails("enroll", "new.gallery", "x", "bad.jpg")
    assert not list(Path().glob("new.gallery*"))
    shell("enroll", "new.gallery", "leaf", pictures / "leaf", "--backbone", tiny_bundle)
    shell.fails("enroll", "new.gallery", "x", "bad.jpg")
    assert "leaf" in shell("info", "new.gallery")


def test_report(shell: Shell, gallery: str, pictures: Path) -> None:
    Path(pictures, "leaf", "0.png").rename("wrong.png")  # a file is not needed any more
    shell("forget", gallery, "leaf")
    shell("enroll", gallery, "rust", "wrong.png")
    shell("enroll", gallery, "leaf", pictures / "leaf")
    out = shell("report", gallery)
    assert out.startswith("23 of 24 pictures recognized when left out, 0 unknown\nlabel  pictures  negatives  ")
    assert re.search(r"^rust +9 +0 +8/9 +0 +leaf \(1\)$", out, re.MULTILINE)
    assert re.search(r"^doubtful: wrong.png of rust: \d+ % leaf, [01].\d % rust\nadvice: look at", out, re.MULTILINE)
    document = shell.json("report", gallery)
    assert [label["label"] for label in document["labels"]] == COLOURS
    assert document["doubts"][0]["source"] == "wrong.png"
    with Recognizer.open(gallery) as recognizer:
        assert [doubt.source for doubt in recognizer.report().doubts] == ["wrong.png"]
    assert re.search(r"^forget +rust +\d+ +\+0 +-1 ", shell("forget", gallery, "rust", "wrong.png"), re.MULTILINE)
    assert "doubtful" not in shell("report", gallery)
    out = shell("report", gallery, "--on", pictures)
    assert out.startswith(f"23 of 23 pictures recognized of {pictures}, 0 unknown\n")
    for label in ("leaf", "sky"):
        shell("forget", gallery, label)
    shell("rollback", gallery, 0)
    for label, file in (("leaf", "leaf/1.png"), ("sky", "sky/1.png")):
        shell("enroll", gallery, label, pictures / file)
    assert shell("report", gallery).startswith("no label has two pictures, so that one could be left out\nlabel  ")
    shell("forget", gallery, "sky")
    assert "must hold pictures of two labels" in shell.fails("report", gallery)
    assert "must hold pictures of two labels" in shell.fails("report", gallery, "--on", pictures)
