"""The command line, in process: what it prints, what it leaves behind, how it fails."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundles import write_tiny_bundle
from fieldshot import cli

COLOURS = {"leaf": (30, 170, 60), "rust": (190, 70, 20), "sky": (60, 120, 240)}
COMMANDS = ["bench", "demo", "enroll", "eval", "forget", "history"]
COMMANDS += ["info", "recognize", "reject", "rollback", "undo"]


class Shell:
    """Runs commands in a folder of pictures and keeps what they printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object, code: int = 0) -> str:
        try:
            got = cli.main([os.fspath(word) if isinstance(word, Path) else str(word) for word in words])
        except SystemExit as stop:
            got = stop.code
        self.out, self.err = self.capsys.readouterr()
        assert got == code, self.out + self.err
        return self.out

    def json(self, *words: object) -> object:
        return json.loads(self(*words, "--json"))

    def fails(self, *words: object) -> str:
        """One line on stderr, nothing on stdout, no traceback."""
        self(*words, code=1)
        assert self.out == ""
        assert self.err.startswith("fieldshot: error: ")
        assert self.err.count("\n") == 1
        return self.err


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three classes of eight pictures of noise around a colour."""
    random = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(random.normal(colour, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def gallery(shell: Shell, pictures: Path, tiny_bundle: Path) -> str:
    shell("enroll", "site.gallery", "--from", pictures, "--backbone", tiny_bundle)
    return "site.gallery"


def test_no_command_prints_help(shell: Shell) -> None:
    out = shell()
    for name in COMMANDS:
        assert f"\n    {name}" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_examples(shell: Shell, name: str) -> None:
    out = shell(name, "--help")
    assert f"examples:\n  fieldshot {name}" in out


def test_wrong_usage_exits_with_2(shell: Shell, pictures: Path) -> None:
    shell("recognise", code=2)
    shell("enroll", "site.gallery", code=2)
    shell("enroll", "site.gallery", "bolt", code=2)
    shell("enroll", "site.gallery", "bolt", "a.png", "--from", pictures, code=2)
    shell("recognize", "site.gallery", "a.png", "--jsn", code=2)
    shell("eval", pictures, "--shots", "1,many", code=2)
    assert "comma-separated numbers" in shell.err


def test_enroll_a_folder_of_classes(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    out = shell("enroll", "site.gallery", "--from", pictures, "--backbone", tiny_bundle)
    assert out.startswith("created site.gallery with backbone tiny-0\nenrolled leaf: 8 new\n")
    assert "24 pictures in 3 classes" in out
    again = shell.json("enroll", "site.gallery", "--from", pictures)
    assert again["created"] is False
    assert [(row["label"], row["added"], row["duplicates"]) for row in again["labels"]] == [(n, 0, 8) for n in COLOURS]


def test_enroll_one_label_with_files_and_folders(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    some = [pictures / "leaf/0.png", pictures / "leaf/1.png"]
    shell("enroll", "a.gallery", "leaf", "--backbone", tiny_bundle, *some)  # an option between label and files
    assert shell("enroll", "a.gallery", "leaf", pictures / "leaf") == "enrolled leaf: 6 new, 2 already there\n"


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
    assert shell("reject", gallery, "leaf", pictures / "rust/0.png") == "rejected for leaf: 1 new\n"
    assert shell.json("forget", gallery, "sky")["removed"] == 8
    assert "sky" not in shell.json("info", gallery)["classes"]
    assert shell.json("undo", gallery)["target"] == 5
    assert shell.json("info", gallery)["classes"]["sky"] == {"pictures": 8, "negatives": 0}
    assert "rollback 1" in shell("rollback", gallery, 1)
    assert list(shell.json("info", gallery)["classes"]) == ["leaf"]
    kinds = [row["kind"] for row in shell.json("history", gallery)]
    assert kinds == ["enroll", "enroll", "enroll", "reject", "forget", "undo", "rollback"]
    assert "forget (undone)" in shell("history", gallery)


def test_info(shell: Shell, gallery: str, tiny_bundle: Path) -> None:
    assert shell.json("info", "--backbone", tiny_bundle)["backbone"]["dim"] == 16
    assert "tiny-0" in shell("info", "--backbone", tiny_bundle)
    out = shell("info", gallery)
    assert "tiny-0" in out
    assert "leaf" in out


def test_eval(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    words = ["eval", pictures, "--backbone", tiny_bundle, "--ways", 3, "--shots", "1,2"]
    words += ["--queries", 4, "--episodes", 5, "--seed", 7]
    out = shell(*words, "--json", "result.json")
    assert "24 pictures in 3 classes" in out
    written = json.loads(Path("result.json").read_text())
    assert [row["shots"] for row in written["rows"]] == [1, 2]
    assert written["rows"][1]["accuracy"] > 0.5
    printed = shell.json(*words)
    assert [row["accuracy"] for row in printed["rows"]] == [row["accuracy"] for row in written["rows"]]


def test_bench(shell: Shell, pictures: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = shell.json("bench", "--backbone", tiny_bundle, "--pictures", pictures / "leaf")["stages"]
    assert [stage["name"].split(" (")[0] for stage in stages] == [
        "decode",
        "preprocess",
        "network",
        "head fit",
        "predict",
        "recognition",
    ]
    assert all(0 < stage["median_ms"] <= stage["p95_ms"] for stage in stages)
    out = shell("bench", "--backbone", tiny_bundle)
    assert "median ms" in out


def test_demo_on_a_folder_of_classes(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    out = shell("demo", "--data", pictures, "--backbone", tiny_bundle, "--out", "shown")
    assert "accuracy" in out
    assert f"contact sheet: {Path('shown', 'sheet.png')}" in out
    with Image.open("shown/sheet.png") as sheet:
        assert min(sheet.size) > 100
    rows = shell.json("demo", "--data", pictures, "--backbone", tiny_bundle, "--out", "shown")["rows"]
    assert [row["shots"] for row in rows] == [1]
    assert rows[0]["accuracy"] > 0.5


# What people get wrong. Each names the mend, and leaves what was enrolled as it was.


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


def test_unreadable_pictures_can_be_skipped(shell: Shell, gallery: str, pictures: Path) -> None:
    Path("broken.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 40), "white").save("fine.png")
    out = shell("enroll", gallery, "paper", "fine.png", "broken.png", "--skip-unreadable")
    assert out == "enrolled paper: 1 new, 1 unreadable: broken.png\n"


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


def test_keeping_pictures_is_chosen_at_the_start(shell: Shell, gallery: str, pictures: Path) -> None:
    assert "new gallery" in shell.fails("enroll", gallery, "leaf", pictures / "leaf", "--keep-pictures")


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


def test_labels_stored_before_an_error_are_named(shell: Shell, pictures: Path, tiny_bundle: Path) -> None:
    (pictures / "sky/0.png").write_bytes(b"no picture")
    shell("enroll", "a.gallery", "--from", pictures, "--backbone", tiny_bundle, code=1)
    assert "note: 2 of 3 labels were enrolled" in shell.err
    assert list(shell.json("info", "a.gallery")["classes"]) == ["leaf", "rust"]


def test_debug_shows_where_an_error_arose(shell: Shell) -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["history", "absent.gallery", "--debug"])


def test_interrupt(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(parser: object, argv: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_parse", interrupted)
    shell("info", code=130)
    assert shell.err == "fieldshot: interrupted\n"


def test_a_reader_that_goes_away_is_no_error(gallery: str) -> None:
    command = f"{sys.executable} -c 'from fieldshot.cli import main; raise SystemExit(main())' history {gallery}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | sleep 0; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # 0: all was written before the reader went


def test_a_locale_without_emoji_is_no_error(shell: Shell, gallery: str) -> None:
    Image.new("RGB", (40, 40), "white").save("white.png")
    shell("enroll", gallery, "\N{NUT AND BOLT}", "white.png")
    program = "from fieldshot.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "history", gallery],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert "\\U0001f529" in done.stdout


@pytest.mark.parametrize(("terminal", "seconds", "shows"), [(True, 1.1, True), (True, 0.2, False), (False, 1.1, False)])
def test_progress_shows_on_a_terminal_after_a_second(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, seconds: float, shows: bool
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with cli.console.progress("step") as show:
        show(1, None)
        time.sleep(seconds)
        show(2, 3)
    assert ("step:  67%" in stream.getvalue()) is shows


def test_a_broken_plugin_does_not_stop_the_others(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Plugin:
        name = "broken"

        def load(self) -> None:
            raise ImportError("no module named nothing")

    monkeypatch.setattr(cli, "entry_points", lambda group: [Plugin()])
    shell("--version")
    assert "broken cannot be loaded: no module named nothing" in caplog.text
