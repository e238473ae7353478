"""The commands that show and measure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from bundles import coarse, tiny_onnx, write_tiny_bundle
from fieldshot.backbone import Backbone
from shell import Shell


def test_info(shell: Shell, gallery: str, tiny_bundle: Path) -> None:
    assert shell.json("info", "--backbone", tiny_bundle)["backbone"]["dim"] == 16
    assert "tiny-0" in shell("info", "--backbone", tiny_bundle)
    out = shell("info", gallery)
    assert "tiny-0" in out
    assert "leaf" in out
    assert re.search(r"^views +1$", out, re.MULTILINE)
    assert re.search(r"^open_set\n  threshold +0.\d+\n  false_accept_rate 0.\d+$", out, re.MULTILINE)


def test_info_and_bench_of_another_precision(shell: Shell, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "both.fieldshot", others={"backbone.int8.onnx": coarse(tiny_onnx())})
    facts = shell.json("info", "--backbone", bundle, "--precision", "int8")["backbone"]
    assert facts["engine"]["precision"] == "int8"
    assert facts["precisions"] == ["float32", "int8"]
    assert facts["contract"] != shell.json("info", "--backbone", bundle)["backbone"]["contract"]
    assert "on onnxruntime int8, one picture" in shell("bench", "--backbone", bundle, "--precision", "int8")
    error = shell.fails("info", "--backbone", tiny_bundle, "--precision", "int8")
    assert "must hold its network in int8 (got float32)" in error


def test_demo_on_a_folder_of_classes(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    out = shell("demo", "--data", pictures, "--backbone", tiny_bundle, "--out", "shown")
    assert "accuracy" in out
    assert f"contact sheet: {Path('shown', 'sheet.png')}" in out
    with Image.open("shown/sheet.png") as sheet:
        assert min(sheet.size) > 100
    rows = shell.json("demo", "--data", pictures, "--backbone", tiny_bundle, "--out", "shown")["rows"]
    assert [row["shots"] for row in rows] == [1]
    assert rows[0]["accuracy"] > 0.5


def test_a_sheet_takes_the_place_of_a_sheet_only(
    shell: Shell, pictures: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["demo", "--data", pictures, "--backbone", tiny_bundle, "--out", "."]
    shell(*words)
    shell(*words)
    Image.new("RGB", (8, 8)).save("sheet.png")
    mine = Path("sheet.png").read_bytes()
    monkeypatch.setattr(Backbone, "embed", None)
    assert "another kind" in shell.fails(*words)
    assert Path("sheet.png").read_bytes() == mine
    Path("sheet.png").unlink()
    Path("sheet.png").mkdir()
    assert "sheet.png" in shell.fails(*words)


def test_info_of_a_gallery_takes_no_other_options(shell: Shell, gallery: str, tiny_bundle: Path) -> None:
    for words in (("--precision", "int8"), ("--engine", "onnxruntime"), ("--backbone", tiny_bundle)):
        assert "must have no other options" in shell.fails("info", gallery, *words)
    assert f"Hint: info --backbone {tiny_bundle}" in shell.fails("info", tiny_bundle)
