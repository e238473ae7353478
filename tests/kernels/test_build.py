"""A compiler that is missing, old or broken costs speed at most, never an install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from host_build import kernel_build

BUILD = kernel_build()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH; nothing was built before."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FIELDSHOT_PREBUILT", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(BUILD, "nvcc", lambda: "nvcc")  # not the one where the toolkit puts it
    return folder


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


WRITE = 'while [ $# -gt 1 ]; do shift; [ "$1" = -o ] && out=$2; done; echo made > "$out"'


def test_no_compiler(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(BUILD.CompileError, match=r"g\+\+ must be there"):
        BUILD.build_host(tmp_path / "out")
    with pytest.raises(BUILD.CompileError, match="nvcc must be there"):
        BUILD.build_cuda(tmp_path / "out")
    assert (tmp_path / "out/params.cuh").exists()  # for the device's own nvcc


def test_a_compiler_without_wide_vectors_builds_the_rest(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool(tools, "g++", f'case "$*" in *march*) echo bad value for -march; exit 1;; esac; {WRITE}')
    (built,) = BUILD.build_host(tmp_path / "out")
    assert built.read_text() == "made\n"
    if os.uname().machine == "x86_64":
        assert "is left out" in capsys.readouterr().err
        with pytest.raises(BUILD.CompileError, match="bad value"):
            BUILD.build_host(tmp_path / "out", strict=True)


def test_a_compiler_that_fails_says_why(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tools, "cc", 'echo "internal error of $1" >&2; exit 4')
    monkeypatch.setenv("CXX", f"{tools}/cc --fast")
    with pytest.raises(BUILD.CompileError, match=r"exit code 4(.|\n)*internal error of --fast"):
        BUILD.build_host(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.so"))


def test_an_nvcc_of_cuda_12_builds_for_the_gpus_that_it_knows(tools: Path, tmp_path: Path) -> None:
    script = f"""echo "$*" >> {tmp_path}/asked
case "$1" in
  --list-gpu-code) echo sm_87; echo sm_90;;
  --version) echo release 12.6, V12.6.68;;
  *) {WRITE};;
esac"""
    tool(tools, "nvcc", script)
    image, _ = BUILD.build_cuda(tmp_path / "out")
    asked = (tmp_path / "asked").read_text()
    assert image.exists()
    assert "sm_87" in asked
    assert "code=compute_90" in asked
    assert "sm_110" not in asked
    assert "compress" not in asked


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_what_belongs_to_other_sources_is_removed(tmp_path: Path) -> None:
    (tmp_path / "host-old.0123456789ab.so").touch()
    (tmp_path / "gone.cu").touch()
    BUILD.copy_sources(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in BUILD.sources()}
