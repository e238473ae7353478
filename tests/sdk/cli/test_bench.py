"""The command bench: a table, JSON, comparisons and their exit codes."""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fieldshot.bench import comparing
from fieldshot.cli import bench_options
from fieldshot.errors import PictureError
from fieldshot.images import find_classes
from shell import Shell


@pytest.fixture
def results(shell: Shell, tiny_bundle: Path) -> tuple[Path, Path]:
    """A result, and the same of a machine on which one stage takes twice as long."""
    shell("bench", "--backbone", tiny_bundle, "--suite", "predict,memory", "--rounds", 1, "--json", "base.json")
    base = json.loads(Path("base.json").read_text())
    for stage in base["stages"]:
        stage["rounds"] *= 8
    head = copy.deepcopy(base)
    head["stages"][0]["rounds"] = [twice(of) for of in base["stages"][0]["rounds"]]
    Path("base.json").write_text(json.dumps(base))
    Path("head.json").write_text(json.dumps(head))
    return Path("base.json"), Path("head.json")


def twice(of: dict[str, list[float]]) -> dict[str, list[float]]:
    return {**of, "cpu": [2 * value for value in of["cpu"]]}


def test_bench(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    options = ["--backbone", tiny_bundle, "--rounds", 1, "--suite", "decode,recognize"]
    document = shell.json("bench", *options, "--pictures", pictures / "leaf")
    assert [stage["name"] for stage in document["stages"]] == ["decode", "recognize"]
    assert document["facts"]["backbone"]["name"] == "tiny-0"
    out = shell("bench", *options)
    assert "recognize" in out
    assert "median" in out
    assert "tiny-0 on onnxruntime" in out


def test_compare(shell: Shell, results: tuple[Path, Path]) -> None:
    base, head = results
    out = shell("bench", "compare", base, base)
    assert "Nothing is slower; 2 of 2 level or faster." in out
    out = shell("bench", "compare", base, head, "--markdown", "a.md", "--junit", "a.xml", "--json", "a.json", code=3)
    assert out.splitlines()[-1].startswith("predict slower; ")
    assert "**slower**" in Path("a.md").read_text()
    assert "<failure" in Path("a.xml").read_text()
    assert json.loads(Path("a.json").read_text())["verdicts"][0]["verdict"] == "slower"
    assert shell.json("bench", "compare", base, base)["headline"].startswith("Nothing is slower")


def test_where_nothing_came_of_it_the_files_say_so(shell: Shell, results: tuple[Path, Path]) -> None:
    base, _ = results
    files = ["--junit", "a.xml", "--markdown", "a.md", "--json", "a.json"]
    shell("bench", "compare", base, base, *files)
    error = shell.fails("bench", "gate", "--base", "none.whl", *files)
    assert "wheel that can be read" in error
    (case,) = ElementTree.parse("a.xml").iter("error")
    assert "wheel that can be read" in case.get("message")
    assert "not compared" in Path("a.md").read_text()
    assert "wheel that can be read" in json.loads(Path("a.json").read_text())["failed"]
    shell("bench", "compare", base, base, *files)
    assert not list(ElementTree.parse("a.xml").iter("error"))
    assert "--markdown must name a file" in shell.fails("bench", "compare", base, base, "--markdown", "")


def test_of_too_few_rounds_nothing_can_be_told(shell: Shell, results: tuple[Path, Path]) -> None:
    few = json.loads(results[0].read_text())
    for stage in few["stages"]:
        stage["rounds"] = stage["rounds"][:1]
    Path("few.json").write_text(json.dumps(few))
    headline = shell.json("bench", "compare", "few.json", "few.json")["headline"]
    assert headline == "Nothing can be told; predict, memory inconclusive; 0 of 2 level or faster."


def test_pictures_may_lie_in_folders_of_classes(pictures: Path) -> None:
    found = bench_options.pictures(pictures)
    assert found == [path for of in find_classes(pictures).values() for path in of]
    assert bench_options.pictures(pictures / "leaf") == find_classes(pictures)["leaf"]
    (pictures / "leaf" / "deeper").mkdir()
    with pytest.raises(PictureError, match="deeper must hold pictures"):
        bench_options.pictures(pictures / "leaf" / "deeper")


def test_inconclusive_is_an_exit_code_of_its_own_where_asked(shell: Shell, results: tuple[Path, Path]) -> None:
    base, _ = results
    one = json.loads(base.read_text())
    one["stages"][0]["rounds"] = one["stages"][0]["rounds"][:1]
    Path("one.json").write_text(json.dumps(one))
    out = shell("bench", "compare", base, "one.json")
    assert "predict: at least 6 rounds" in out
    shell("bench", "compare", base, "one.json", "--strict", code=4)


def test_gate(shell: Shell, results: tuple[Path, Path], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "CONTROL_THRESHOLD", 100.0)  # however the machine drifted since base
    base, _ = results
    shell.fails("bench", "gate", "--base", "no-such-commit")
    stored = json.loads(base.read_text())
    stored["stages"][0]["rounds"] = [{**of, "cpu": [1e-9]} for of in stored["stages"][0]["rounds"]]
    base.write_text(json.dumps(stored))
    out = shell("bench", "gate", "--base", base, "--backbone", tiny_bundle, code=3)
    assert "predict slower" in out
    shell("bench", "gate", code=2)
    shell.fails("bench", "compare", base, "none.json")


def test_history_and_report(shell: Shell, tiny_bundle: Path) -> None:
    options = ["--backbone", tiny_bundle, "--suite", "predict", "--rounds", 1, "--history", "board.jsonl"]
    shell("bench", *options)
    shell("bench", *options)
    assert len(Path("board.jsonl").read_text().splitlines()) == 2
    assert shell("bench", "report", "board.jsonl", "--out", "page.html") == "report: page.html\n"
    assert "predict" in Path("page.html").read_text("utf-8")


def test_budget(shell: Shell, results: tuple[Path, Path], tiny_bundle: Path) -> None:
    base, _ = results
    Path("budget.json").write_text('{"*": {"predict": 1000, "memory": 100000}}')
    assert shell("bench", "budget", "budget.json", "--result", base).count("yes") == 2
    Path("budget.json").write_text('{"*": {"predict": 1e-6, "memory": 100000}}')
    out = shell("bench", "budget", "budget.json", "--result", base, code=3)
    assert "predict breaks the budget by" in out
    Path("budget.json").write_text('{"*": {"recognize": 1e-6}}')
    out = shell("bench", "budget", "budget.json", "--backbone", tiny_bundle, "--rounds", 1, "--cores", 1, code=3)
    assert ", mostly in " in out
    assert "--cores must be left out" in shell.fails("bench", "budget", "budget.json", "--result", base, "--cores", 1)


def test_no_file_that_holds_something_else_is_replaced(shell: Shell, tiny_bundle: Path) -> None:
    mine = b"PK something of mine\xff"
    Path("mine").write_bytes(mine)
    quick = ("--suite", "decode", "--rounds", 1, "--backbone", tiny_bundle)
    for words in (
        ("bench", *quick, "--json", "mine"),
        ("bench", *quick, "--history", "mine"),
        ("bench", "gate", "--base", "HEAD", "--suite", "decode", "--markdown", "mine"),
        ("bench", "gate", "--base", "HEAD", "--suite", "decode", "--junit", "mine"),
        ("bench", "gate", "--base", "HEAD", "--suite", "decode", "--json", "mine"),
        ("bench", "report", "none.jsonl", "--out", "mine"),
        ("bench", "budget", "none.json", "--json", "mine"),
    ):
        assert "mine" in shell.fails(*words), words
    assert Path("mine").read_bytes() == mine
    assert "to be appended to" in shell.fails("bench", *quick, "--history", "mine")


def test_nothing_that_is_read_or_written_already_is_written(shell: Shell, results: tuple[Path, Path]) -> None:
    base, head = results
    Path("budget.json").write_text('{"*": {"predict": 1000}}')
    Path("limits.json").write_text('{"predict": 0.1}')
    compare = ("bench", "compare", base, head)
    for words in (
        (*compare, "--json", f"../{Path.cwd().name}/base.json"),
        (*compare, "--thresholds", "limits.json", "--json", "limits.json"),
        (*compare, "--thresholds", "limits.json", "--markdown", "limits.json"),
        ("bench", "gate", "--base", base, "--json", base),
        ("bench", "budget", "budget.json", "--result", base, "--json", "budget.json"),
        ("bench", "budget", "budget.json", "--result", base, "--json", base),
        ("bench", "report", "limits.json", "--out", "limits.json"),
        (*compare, "--json", "new", "--junit", "./new"),
        ("bench", "--json", "new", "--history", "new"),
    ):
        before = {path: path.read_bytes() for path in Path().glob("*.json")}
        assert "must be a file that the command neither reads nor" in shell.fails(*words), words
        assert {path: path.read_bytes() for path in Path().glob("*.json")} == before


def test_only_a_document_of_the_same_kind_is_replaced(shell: Shell, results: tuple[Path, Path]) -> None:
    base, _ = results
    Path("budget.json").write_text('{"*": {"predict": 1000}}')
    Path("other.json").write_bytes(base.read_bytes())
    compare = ("bench", "compare", base, base)
    for words in (compare, ("bench", "budget", "budget.json", "--result", base)):
        assert "must be a new file" in shell.fails(*words, "--json", "other.json")
        shell(*words, "--json", f"{words[1]}.out")
        shell(*words, "--json", f"{words[1]}.out")
    assert json.loads(Path("budget.out").read_text())["checks"][0]["kept"]
    assert "must be a new file" in shell.fails(*compare, "--json", "budget.out")
    assert Path("other.json").read_bytes() == base.read_bytes()


def test_options_that_nothing_would_read(shell: Shell, results: tuple[Path, Path]) -> None:
    base, _ = results
    for words in (("--suite", "predict"), ("--history", "h"), ("--json", "c"), ("--rounds", 9)):
        shell("bench", *words, "compare", base, base, code=2)
        assert f"{words[0]} must stand after compare" in shell.err
    assert not Path("c").exists()
    shell("bench", "--debug", "compare", base, base)
    shell("bench", "compare", base, base, "--debug")
    for words in (("--suite", "predict"), ("--base-backbone", "b"), ("--head", "HEAD")):
        assert f"{words[0]} must be left out" in shell.fails("bench", "gate", "--base", base, *words)
    Path("budget.json").write_text('{"*": {"predict": 1000}}')
    error = shell.fails("bench", "budget", "budget.json", "--result", base, "--precision", "int8")
    assert "--precision must be left out beside --result" in error


def test_a_budget_of_a_precision_that_the_bundle_lacks(shell: Shell, tiny_bundle: Path) -> None:
    Path("budget.json").write_text('{"*": {"predict": 1000}}')
    words = ("budget.json", "--backbone", tiny_bundle, "--rounds", 1)
    assert "int8" in shell.fails("bench", "budget", *words, "--precision", "int8")
    shell("bench", "budget", *words, "--engine", "onnxruntime")


def test_a_comparison_of_nothing_fails(shell: Shell, results: tuple[Path, Path]) -> None:
    base, _ = results
    other = json.loads(base.read_text())
    other["stages"] = [{**other["stages"][0], "name": "decode"}]
    Path("other.json").write_text(json.dumps(other))
    assert "nothing could be compared" in shell.fails("bench", "compare", base, "other.json", "--strict")
