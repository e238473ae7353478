"""The command `fieldshot export`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from fieldshot.backbone import Bundle
from fieldshot.errors import ExportError
from fieldshot_export import command
from networks import network

STATED = ["--size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    parsed = parser.parse_args(["export", *map(str, arguments)])
    return parsed.run(parsed)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(network(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_people_read_what_was_done(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.fieldshot"
    assert run("--onnx", net, "--cut", "embedding", *STATED, "--crop", 0.875, "-o", out) == 0
    printed = capsys.readouterr()
    assert f"{out}: net, 16 dimensions, {out.stat().st_size:,} bytes" in printed.out
    assert "float32: lowest cosine 1.0000" in printed.out
    assert "float16: lowest cosine 0.99" in printed.out
    assert "not checkable: shortest to 32x32, crop 0.875, bilinear, RGB, mean [0.5" in printed.out
    assert "licence not stated" in printed.out
    assert len(printed.err.splitlines()) == 7
    assert all(line.startswith("[") and " s] " in line for line in printed.err.splitlines())


def test_programs_read_json(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.fieldshot"
    options = ["--size", "32x32", "--mean", "0,0,0", "--std", "1,1,1", "--resize", "stretch", "--channels", "BGR"]
    texts = ["--name", "mine", "--licence", "MIT", "--interpolation", "bicubic", "--no-float16"]
    assert run("--onnx", net, *options, *texts, "--json", "-o", out) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["path"] == str(out)
    assert (summary["name"], summary["licence"], summary["dim"]) == ("mine", "MIT", 16)
    assert summary["preprocessing"] == Bundle.open(out).preprocessing.to_json()
    assert summary["preprocessing"]["channels"] == "BGR"
    assert summary["parity"]["float32"]["cosine"] > 0.99999
    assert set(summary["files"]) == {"backbone.onnx", "verify.safetensors"}


def test_errors_reach_the_caller(net: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="must be stated"):
        run("--onnx", net, "-o", tmp_path / "net.fieldshot")
    with pytest.raises(ExportError, match="use --cut with"):
        run("--onnx", net, "--cut", "nothing", *STATED, "-o", tmp_path / "net.fieldshot")
    assert not (tmp_path / "net.fieldshot").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--size", "big"],
        ["--size", "0"],
        ["--size", "1x2x3"],
        ["--mean", "0.5"],
        ["--std", "a,b,c"],
        ["--crop", "x"],
        ["--resize", "cover"],
        ["--onnx", "a", "--torch", "b:c"],
    ],
)
def test_wrong_usage(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*wrong, "-o", "out")
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err or "--torch" in wrong


def test_importing_the_command_loads_no_framework() -> None:
    program = "import sys, fieldshot_export.command, fieldshot_export\n"
    program += "print([name for name in ('onnx', 'torch', 'onnxruntime', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_face_of_the_package() -> None:
    import fieldshot_export

    assert fieldshot_export.__all__ == ["Report", "export"]
    assert {"Report", "export"} <= set(dir(fieldshot_export))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = fieldshot_export.absent
