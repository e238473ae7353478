"""What the documents show is true: Python of the README runs, commands parse, links and make targets exist."""

from __future__ import annotations

import ast
import re
import shlex
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot import Recognizer, cli, images

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


README = ROOT / "README.md"


def blocks(document: Path, *languages: str) -> list[str]:
    """Contents of the fenced blocks in any of the languages."""
    fences = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [content for language, content in fences if language in languages]


def commands(document: Path) -> list[str]:
    """Command lines of the shell blocks, without their output, and those of recipes for CI."""
    recipes = "".join(blocks(document, "yaml"))
    lines = [line.strip(" -") for line in recipes.splitlines() if "fieldshot bench" in line]
    for content in blocks(document, "sh", "bash", "console"):
        content = content.replace("\\\n", " ")
        shown = re.findall(r"^\$ (.*)$", content, re.MULTILINE)  # a block with prompts also shows output
        lines += [line.strip() for line in shown or content.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def words_after(program: str, document: Path) -> list[list[str]]:
    """Arguments of each call of a program in a document."""
    calls = []
    for line in commands(document):
        for part in re.split(r"&&|\|\||[;|]", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # VARIABLE=value before the program
                words.pop(0)
            if words and Path(words[0]).name == program:
                calls.append(words[1:])
    return calls


def make_what_is_named(source: str, folder: Path, bundle: Path) -> None:
    """Make the pictures and bundles that a block of Python names by a string."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        path = folder / node.value
        if path.exists() or Path(node.value).is_absolute():
            continue
        if path.suffix == ".fieldshot":
            path.symlink_to(bundle)
        elif path.suffix == ".npy":
            np.save(path, np.arange(40) % 4 if path.stem == "labels" else np.random.default_rng(0).random((40, 8)))
        elif path.suffix.lower() in images.SUFFIXES:
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(zlib.crc32(node.value.encode())).integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(pixels).save(path)


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = ROOT / "sdk/fieldshot/backbone/default.fieldshot"
    monkeypatch.chdir(tmp_path)
    sources = blocks(README, "python")
    assert sources
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(sources, 1):
        make_what_is_named(source, tmp_path, bundle)
        exec(compile(source, f"README.md, python block {number}", "exec"), namespace)
    for value in namespace.values():  # what the end of a program would close
        if isinstance(value, Recognizer):
            value.close()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_parse(document: Path) -> None:
    parser = cli.build_parser()
    for words in words_after("fieldshot", document):
        try:
            parser.parse_args(words)
        except SystemExit as stop:
            assert stop.code == 0, f"fieldshot {shlex.join(words)}"


def test_make_targets_exist() -> None:
    targets = {
        name for rule in re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M) for name in rule.split()
    }
    assert [document.name for document in DOCUMENTS if not named_targets(document) <= targets] == []
    assert named_targets(README) >= {"demo", "test", "bench"}


def named_targets(document: Path) -> set[str]:
    in_blocks = {word for words in words_after("make", document) for word in words if "=" not in word}
    return in_blocks | set(re.findall(r"`make\s([\w-]+)[`\s]", document.read_text("utf-8")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_exist(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        if not re.match(r"[a-z]+:|#", link):
            assert (document.parent / link.partition("#")[0]).exists(), link
