"""The command eval: what it prints, writes, refuses, and takes up again."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bundles import coarse, tiny_onnx, write_tiny_bundle
from clusters import clusters
from fieldshot.backbone import Backbone
from fieldshot.cli import report_folder
from fieldshot.head import FewShotHead
from shell import Shell
from standins import Nearest

FEW = ["--ways", 3, "--shots", "1,2", "--queries", 4, "--episodes", 5]


@pytest.fixture
def ready(shell: Shell) -> str:
    """Embeddings in a file."""
    Z, y = clusters(spread=1.0)
    np.savez("ready.npz", embeddings=Z, labels=y)
    return "ready.npz"


def accuracies(document: object) -> list[object]:
    return [(row["data"], row["method"], row["ways"], row["shots"], row["accuracies"]) for row in document["rows"]]


def test_one_folder(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    words = ["eval", pictures, "--backbone", tiny_bundle, *FEW, "--seed", 7]
    out = shell(*words, "--json", "result.json")
    assert "24 pictures in 3 classes, backbone tiny-0" in out
    head, *lines = [line.split() for line in out.splitlines()[1:]]
    assert " ".join(head) == "ways shots queries episodes accuracy % +- 95 % worst 10 % ECE % fit ms"
    assert [line[:4] for line in lines] == [["3", "1", "4", "5"], ["3", "2", "4", "5"]]
    written = json.loads(Path("result.json").read_text())
    assert set(written) == {"fieldshot", "folder", "backbone", "seed", "rows"}
    assert (written["folder"], written["backbone"]["name"], written["seed"]) == (str(pictures), "tiny-0", 7)
    assert [row["shots"] for row in written["rows"]] == [1, 2]
    assert written["rows"][0]["data"] == "pictures / tiny-0"
    assert written["rows"][1]["accuracy"] > 0.5
    assert accuracies(shell.json(*words)) == accuracies(written)


def test_several_folders_and_backbones(shell: Shell, pictures: Path, tiny_bundle: Path, ready: str) -> None:
    other = write_tiny_bundle(Path("other.fieldshot"), seed=1)
    shutil.copytree(pictures, "again/pictures")
    words = ["eval", pictures, "--backbone", tiny_bundle, "again/pictures", ready, *FEW, "--backbone", other]
    document = shell.json(*words)
    assert set(document) == {"fieldshot", "folders", "backbones", "seed", "rows"}
    names = list(dict.fromkeys(row["data"] for row in document["rows"]))
    assert names == [
        f"{pictures} / tiny-0", f"{pictures} / tiny-1", "again/pictures / tiny-0", "again/pictures / tiny-1", "ready",
    ]  # fmt: skip
    found = accuracies(document)
    assert [row[4] for row in found[:2]] == [row[4] for row in found[4:6]]  # the same pictures under another name
    out = shell(*words)
    assert len(out.splitlines()) == 5 + 1 + 10
    assert re.search(r"^again/pictures / tiny-1 +3 +1 +4 +5 ", out, re.MULTILINE)


def test_views(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    words = ["eval", pictures, "--backbone", tiny_bundle, *FEW]
    document = shell.json(*words, "--views", 3)
    assert document["backbone"]["views"] == 3
    assert {row["data"] for row in document["rows"]} == {"pictures / tiny-0 3 views"}
    assert "backbone tiny-0 3 views" in shell(*words, "--views", 3)
    alone = shell.json(*words)
    assert alone["backbone"]["views"] == 1
    assert [row["brier"] for row in document["rows"]] != [row["brier"] for row in alone["rows"]]


def test_several_precisions(shell: Shell, pictures: Path) -> None:
    both = write_tiny_bundle(Path("both.fieldshot"), others={"backbone.int8.onnx": coarse(tiny_onnx())})
    anew = write_tiny_bundle(Path("anew.fieldshot"), others={"backbone.int8.onnx": tiny_onnx()})
    words = ["eval", pictures, *FEW, "--backbone", both]
    rows = shell.json(*words, "--precision", "float32", "--precision", "int8")["rows"]
    full, low = (f"pictures / tiny-0 {precision}" for precision in ("float32", "int8"))
    assert list(dict.fromkeys(row["data"] for row in rows)) == [full, low]
    rows = shell.json(*words, "--precision", "int8", "--backbone", anew)["rows"]
    assert all(re.fullmatch(r"pictures / tiny-0 [0-9a-f]{8}", row["data"]) for row in rows)


def test_embeddings_that_are_ready_need_no_backbone(shell: Shell, ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backbone, "default", None)
    document = shell.json("eval", ready, *FEW)
    assert (document["folder"], document["backbone"]) == (ready, None)
    assert [row["data"] for row in document["rows"]] == ["ready"] * 2
    assert "72 pictures in 6 classes" in shell("eval", ready, *FEW)


def test_an_official_split(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    for name in ("train", "test"):
        shutil.copytree(pictures, f"split/{name}")
    # All eight pictures of a class to learn from, and eight to recognise.
    out = shell("eval", "split", "--backbone", tiny_bundle, "--ways", 3, "--shots", 8, "--queries", 8, "--episodes", 2)
    assert "split: 24 pictures to learn from, 24 to recognise, in 3 classes" in out
    (Path("split/test/sky")).rename("split/test/heaven")
    assert "train/sky, test/heaven" in shell.fails("eval", "split", "--backbone", tiny_bundle)


def test_embeddings_are_cached(
    shell: Shell, pictures: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["eval", pictures, "--backbone", tiny_bundle, *FEW]
    first = accuracies(shell.json(*words, "--cache", "kept"))
    shell(*words)
    assert len(os.listdir("kept")) == len(os.listdir("cache/fieldshot")) == 1
    monkeypatch.setattr(Backbone, "embed", None)
    assert accuracies(shell.json(*words, "--cache", "kept")) == first == accuracies(shell.json(*words))


def test_grids_and_drawn_episodes(shell: Shell, ready: str, caplog: pytest.LogCaptureFixture) -> None:
    few = ["--queries", 5, "--episodes", 2]
    rows = shell.json("eval", ready, "--ways", "grid", "--shots", "grid", *few)["rows"]
    assert {row["ways"] for row in rows} == {2, 5, 6}
    assert [row["shots"] for row in rows if row["ways"] == 2] == [1, 2, 3, 5, "all"]
    assert "the grid leaves out 10, 20 ways" in caplog.text
    rows = shell.json("eval", ready, "--ways", "2,all", "--shots", "all", *few)["rows"]
    assert [(row["ways"], row["shots"]) for row in rows] == [(2, "all"), (6, "all")]
    (row,) = shell.json("eval", ready, "--heterogeneous", "--balance", 2, "--episodes", 2)["rows"]
    assert (row["ways"], row["shots"], row["queries"], row["balance"]) == ("drawn", "drawn", 10, 2.0)


def test_one_episode_gives_no_interval(shell: Shell, ready: str) -> None:
    words = ["eval", ready, "--ways", 3, "--shots", 1, "--queries", 4, "--episodes", 1]
    assert shell(*words).splitlines()[-1].split()[5] == "-"
    assert shell.json(*words)["rows"][0]["interval"] is None


def test_several_methods(shell: Shell, ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, baselines in (("inductive", {"nearest, mean": Nearest}), ("transductive", {})):
        module = types.ModuleType(kind)
        module.BASELINES = baselines
        monkeypatch.setitem(sys.modules, f"fieldshot.evaluation.{kind}", module)
    assert "nearest, mean" in shell.fails("eval", ready, "--methods", "best")
    words = ["eval", ready, *FEW, "--methods", "inductive", "--methods", "fieldshot, adapted", "--jobs", 1]
    names = [row["method"] for row in shell.json(*words)["rows"]]
    assert names == ["fieldshot", "nearest, mean", "fieldshot, adapted"] * 2
    pytest.importorskip("fieldshot.evaluation.report")
    lines = [line.split("  ")[1] for line in shell(*words).splitlines() if line.startswith("  ")]
    assert set(names) <= set(lines)


def test_what_cannot_be_is_said_before_anything_is_embedded(
    shell: Shell, pictures: Path, tiny_bundle: Path, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "embed", None)
    monkeypatch.setattr(Backbone, "load", None)
    words = ["eval", ready, pictures, "--backbone", tiny_bundle]
    assert "--ways 3" in shell.fails(*words, "--ways", 4, "--shots", 1, "--queries", 2)
    assert "must have 9 pictures" in shell.fails(*words, "--ways", 2, "--shots", 5, "--queries", 4)
    assert "leave out ways" in shell.fails(*words, "--ways", 3, "--heterogeneous")
    for option in (("--backbone", tiny_bundle), ("--cache", "kept"), ("--views", 3)):
        assert f"leave out {option[0]}" in shell.fails("eval", ready, *option)
    assert "views must be 1, 2 or 3 (got 4)" in shell.fails(*words, *FEW, "--views", 4)
    for mistaken in (("--shots", 1, 5), ("--methods", "fieldshot", "nearest"), ("absent.npz",)):
        error = shell.fails(*words, *mistaken)
        assert f"folder or file {mistaken[-1]} must exist" in error
        assert "--shots 1,5" in error
    Path("file").touch()
    assert "absent/x.json" in shell.fails(*words, *FEW, "--json", "absent/x.json")
    assert "file/out" in shell.fails(*words, *FEW, "--out", "file/out")
    assert str(pictures) in shell.fails(*words, *FEW, "--json", pictures)
    monkeypatch.setattr(report_folder, "find_spec", lambda name: None)
    assert "pip install 'fieldshot[eval]'" in shell.fails(*words, *FEW, "--out", "out")
    assert not Path("x.json").exists()
    shell("eval", ready, "--shots", "1,many", code=2)
    assert "comma-separated numbers or all, or grid" in shell.err


def test_a_result_that_is_there_stays_until_there_is_a_new_one(shell: Shell, ready: str) -> None:
    old = '{"fieldshot": "evaluation", "old": 1}'
    Path("result.json").write_text(old)
    shell.fails("eval", ready, "--ways", 99, "--json", "result.json")
    assert Path("result.json").read_text() == old
    shell.fails("eval", ready, "--ways", 99, "--json", "new.json")
    assert not Path("new.json").exists()
    shell("eval", ready, *FEW, "--json", "result.json")
    assert json.loads(Path("result.json").read_text())["rows"]


def test_what_is_no_result_is_not_replaced(shell: Shell, ready: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ready, "keep.npz")
    Path("empty").touch()
    shell("eval", ready, *FEW, "--json", "empty")
    assert json.loads(Path("empty").read_text())["rows"]
    monkeypatch.setattr("fieldshot.evaluation.evaluate", None)
    # What stands after --json is its FILE, even where a data set was meant.
    error = shell.fails("eval", "--json", "keep.npz", ready)
    assert "keep.npz must be a new file, or a JSON document of fieldshot (evaluation) to be replaced" in error
    assert Path("keep.npz").read_bytes() == Path(ready).read_bytes()
    mine = '{"rows": [], "fieldshot": "evaluation"}'
    Path("mine.json").write_text(mine)
    assert "mine.json must be a new file" in shell.fails("eval", ready, *FEW, "--json", "mine.json")
    for name, text in [
        ("result.json", mine),
        ("result.json", "{words}"),
        ("report.html", "<!doctype html>"),
        ("rows.jsonl", "[1]\n[2"),
    ]:
        folder = Path(f"with {name}")
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        assert f"{folder / name} must be a new file" in shell.fails("eval", ready, *FEW, "--out", folder)
        assert (folder / name).read_text() == text


def test_a_report_takes_the_place_of_an_earlier_one_and_of_nothing_else(shell: Shell, ready: str) -> None:
    pytest.importorskip("matplotlib")
    folder = Path("measured")
    words = ["eval", ready, "--shots", "1,2", "--queries", 4, "--episodes", 3, "--out", folder]
    shell(*words, "--ways", 3)
    mine = [folder / "accuracy-mine.png", folder / "accuracy-3-ways.jpg"]
    for path in mine:
        path.touch()
    shell(*words, "--ways", 4)
    assert not shell.err
    figures = json.loads((folder / "result.json").read_text())["figures"]
    assert "accuracy-4-ways.png" in figures
    assert {path.name for path in folder.glob("*.png")} == {*figures, mine[0].name}
    assert all(path.exists() for path in mine)


@pytest.mark.parametrize(
    "earlier",
    ["", ', "figures": {"b.png": 1}', ', "figures": 1', ', "figures": [1, "../a.png", "/a.png", "a.txt", "..", ""]'],
)
def test_an_earlier_result_that_is_something_else_takes_nothing_along(shell: Shell, ready: str, earlier: str) -> None:
    pytest.importorskip("matplotlib")
    Path("measured").mkdir()
    for name in ("a.png", "measured/a.txt", "measured/a.png"):
        Path(name).touch()
    Path("measured/result.json").write_text('{"fieldshot": "evaluation"' + earlier + "}")
    shell("eval", ready, *FEW, "--out", "measured")
    assert all(Path(name).exists() for name in ("a.png", "measured/a.txt", "measured/a.png"))


def test_a_report_is_drawn_of_the_rows_and_an_interrupted_run_goes_on(
    shell: Shell, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fieldshot.evaluation.report")
    words = ["eval", ready, *FEW, "--out", "measured"]
    fit = FewShotHead.fit
    count = 0

    def interrupted(self: object, Z: np.ndarray, y: object) -> object:
        nonlocal count
        count += 1
        if len(Z) == 6:  # the second cell
            raise KeyboardInterrupt
        return fit(self, Z, y)

    with monkeypatch.context() as patch:
        patch.setattr(FewShotHead, "fit", interrupted)
        shell(*words, code=130)
    assert shell.err == "fieldshot: interrupted\n"
    assert Path("measured/rows.jsonl").read_text().count("\n") == 1
    assert count == 6
    assert "report: measured/report.html" in shell(*words)
    document = json.loads(Path("measured/result.json").read_text())
    assert accuracies(document) == accuracies(shell.json("eval", ready, *FEW))
    assert "<html" in Path("measured/report.html").read_text()
    assert list(Path("measured").glob("*.png"))
