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
