"""What people get wrong: each error names the mend, and leaves what was enrolled as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from bundles import write_tiny_bundle
from shell import Shell


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "empty"), (b"no picture", "picture"), ("truncated", "picture")],
    ids=["empty", "text", "truncated"],
)
def test_enrolling_what_is_no_picture(
    shell: Shell, gallery: str, pictures: Path, content: bytes | str, word: str
) -> None:
    if content == "truncated":
        content = (pictures / "leaf/0.png").read_bytes()[:100]
    Path("broken.png").write_bytes(content)
    before = shell("history", gallery)
    error = shell.fails("enroll", gallery, "bolt", pictures / "leaf/0.png", "broken.png")
    assert "broken.png" in error
    assert word in error
    assert shell("history", gallery) == before


def test_an_unreadable_picture_names_the_option_that_leaves_it_out(shell: Shell, gallery: str, pictures: Path) -> None:
    Path("broken.png").write_bytes(b"no picture")
    (pictures / "rust/9.png").write_bytes(b"no picture")
    for words in (["enroll", gallery, "--from", pictures], ["reject", gallery, "leaf", "broken.png", "absent.png"]):
        shell(*words, code=1)
        assert "; --skip-unreadable leaves such pictures out" in shell.err
        shell(*words, "--skip-unreadable")


def test_hints_name_what_a_command_can_do(shell: Shell, gallery: str, pictures: Path, tiny_bundle: Path) -> None:
    picture = pictures / "sky/0.png"
    assert "`fieldshot enroll`" in shell.fails("recognize", "no.gallery", picture)
    Path("text.gallery").write_text("no gallery, but long enough to look like a file of some kind" * 20)
    assert "`fieldshot enroll`" in shell.fails("recognize", "text.gallery", picture)
    assert "Hint: the history lists" in shell.fails("rollback", gallery, 99)
    for _ in range(3):
        shell("undo", gallery)
    assert "Hint: a rollback restores" in shell.fails("undo", gallery)
    assert "--ways 3" in shell.fails("eval", pictures, "--backbone", tiny_bundle, "--ways", 4, "--episodes", 1)
    tiny_bundle.rename("moved.fieldshot")
    try:
        assert "in a command: --backbone" in shell.fails("recognize", gallery, picture)
    finally:
        Path("moved.fieldshot").rename(tiny_bundle)


def test_a_place_that_cannot_be_written(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    Path("file").touch()
    error = shell.fails("demo", "--data", pictures, "--backbone", tiny_bundle, "--out", "file/shown")
    assert "file/shown must be usable (got: " in error
    assert "Hint: check the path" in error
    few = ["--ways", 2, "--shots", 1, "--queries", 1, "--episodes", 1]
    error = shell.fails("eval", pictures, "--backbone", tiny_bundle, *few, "--json", "absent/x.json")
    assert "absent/x.json must be usable (got: No such file" in error


def test_folders_without_pictures(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    Path("empty").mkdir()
    assert "sub-folder" in shell.fails("enroll", "a.gallery", "--from", "empty", "--backbone", tiny_bundle)
    assert "must hold pictures" in shell.fails("enroll", "a.gallery", "bolt", "empty", "--backbone", tiny_bundle)
    assert "absent" in shell.fails("eval", "absent", "--backbone", tiny_bundle)
    assert not Path("a.gallery").exists()


def test_one_class_only(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    shell("enroll", "a.gallery", "leaf", pictures / "leaf", "--backbone", tiny_bundle)
    assert "Hint: enrol another label" in shell.fails("recognize", "a.gallery", pictures / "sky/0.png")


def test_labels_too_long_or_strange(shell: Shell, gallery: str, pictures: Path) -> None:
    Image.new("RGB", (40, 40), "white").save("white.png")
    assert "10,000 characters" in shell.fails("enroll", gallery, "x" * 10_000, "white.png")
    assert "must be one line" in shell.fails("enroll", gallery, "two\nlines", "white.png")
    strange = "../Schrauben/M8 \N{NUT AND BOLT}"
    assert shell("enroll", gallery, strange, "white.png") == f"enrolled {strange}: 1 new\n"
    assert strange in shell.json("info", gallery)["classes"]


def test_a_changed_byte_in_the_bundle(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    data = bytearray(tiny_bundle.read_bytes())
    place = data.index(b"GlobalAveragePool")
    data[place] ^= 1
    Path("changed.fieldshot").write_bytes(data)
    assert "backbone.onnx" in shell.fails("enroll", "a.gallery", "--from", pictures, "--backbone", "changed.fieldshot")
    assert not Path("a.gallery").exists()


def test_a_gallery_of_another_backbone(shell: Shell, gallery: str, pictures: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other.fieldshot", seed=1)
    error = shell.fails("recognize", gallery, pictures / "sky/0.png", "--backbone", other)
    assert "tiny-0" in error
    assert "tiny-1" in error
    assert "Hint: " in error


def test_a_gallery_that_may_not_be_written(shell: Shell, gallery: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        path = shutil.copy(gallery, folder)
        Path(path).chmod(0o444)
        root = os.geteuid() == 0
        if root:  # who may write anything
            os.seteuid(65534)
        try:
            before = shell("history", path)
            assert "Hint: " in shell.fails("forget", path, "sky")
            assert shell("history", path) == before
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("content", [None, b"", b"not a gallery, but long enough to be taken for one" * 100])
def test_what_is_no_gallery(shell: Shell, content: bytes | None) -> None:
    if content is not None:
        Path("a.gallery").write_bytes(content)
    assert "a.gallery" in shell.fails("history", "a.gallery")
