"""Which operations run: as asked, never silently others, and with the reason at hand."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fieldshot import FewShotHead, Recognizer
from fieldshot.cli import main
from fieldshot.errors import DeviceError, FieldshotError, OptionError
from fieldshot.ops import choice, choose, find_ops, host, sources


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    """Nothing chosen yet, and nothing asked for; no CUDA whatever this machine has."""
    monkeypatch.setattr(choice, "_chosen", {})
    monkeypatch.setattr(choice, "_made", {})
    monkeypatch.delenv("FIELDSHOT_DEVICE", raising=False)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    host.library.cache_clear()
    sources.digest.cache_clear()
    yield
    host.library.cache_clear()
    sources.digest.cache_clear()


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "FOLDER", tmp_path)


needs_build = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the CPU kernels")


@needs_build
def test_the_cpu_kernels_are_the_default_without_cuda(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fieldshot"):
        chosen = choose()
    assert chosen.ops.name == "host"
    assert "host-" in chosen.ops.about
    assert "pip install pycuda" in chosen.passed_over[0]
    assert "head computes on host; not on cuda: PyCUDA must be installed" in caplog.text
    assert find_ops() is chosen.ops
    assert find_ops("host") is chosen.ops
    assert choose("host").asked == "host (argument)"


def test_without_any_build_numpy_serves_and_a_warning_says_so(unbuilt, caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose()
    assert chosen.ops.name == "reference"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "install g++" in caplog.text
    assert FewShotHead().fit([[1.0, 2.0], [2.0, 1.0]], [0, 1]).predict([[1.0, 3.0]]).tolist() == [0]


@pytest.mark.parametrize("asked", ["cuda", "cuda:1"])
def test_cuda_that_was_asked_for_is_never_replaced(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FieldshotError, match="PyCUDA must be installed"):
        find_ops(asked)
    monkeypatch.setenv("FIELDSHOT_DEVICE", asked)
    with pytest.raises(FieldshotError, match="PyCUDA must be installed"):
        FewShotHead().fit([[1.0, 2.0]], [0])


def test_cpu_kernels_that_were_asked_for_are_never_replaced(unbuilt) -> None:
    with pytest.raises(DeviceError, match="must be built"):
        FewShotHead(device="host").fit([[1.0, 2.0]], [0])


def test_an_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSHOT_DEVICE", "cuda")
    assert choose("reference").asked == "reference (argument)"


@pytest.mark.parametrize("word", ["gpu", "", "cuda:", "cuda:x", "HOST", 0])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(OptionError, match="device must be auto, cuda"):
        find_ops(word)


def test_a_wrong_word_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSHOT_DEVICE", "gpu")
    with pytest.raises(OptionError, match=r"FIELDSHOT_DEVICE must be .*unset it"):
        find_ops()


def test_a_gallery_is_not_made_for_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FieldshotError, match="PyCUDA must be installed"):
        Recognizer.create(tmp_path / "new.gallery", device="cuda")
    assert not (tmp_path / "new.gallery").exists()


def test_a_pickled_head_opens_where_its_device_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    head = FewShotHead().fit([[1.0, 2.0], [2.0, 1.0]], [0, 1]).set_params(device="cuda")
    opened = pickle.loads(pickle.dumps(head))
    with pytest.raises(FieldshotError, match="PyCUDA must be installed"):
        opened.predict([[1.0, 3.0]])
    assert opened.set_params(device="host").predict([[1.0, 3.0]]).tolist() == [0]


def test_info_says_what_runs_and_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FIELDSHOT_DEVICE", "reference")
    assert main(["info", "--json"]) == 0
    head = json.loads(capsys.readouterr().out)["head"]
    assert head == {
        "device": "reference",
        "runs": "NumPy",
        "asked": "reference (FIELDSHOT_DEVICE)",
        "passed over": "nothing",
    }
    monkeypatch.setenv("FIELDSHOT_DEVICE", "cuda")
    assert main(["info", "--json"]) == 1
    head = json.loads(capsys.readouterr().out)["head"]
    assert "PyCUDA must be installed" in head["error"]


@needs_build
def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    sources.built(f"host-{os.uname().machine}", "so").write_bytes(b"no library")
    with pytest.raises(DeviceError, match="must load"):
        find_ops("host")


@needs_build
def test_the_narrow_build_agrees_with_the_wide_one() -> None:
    """Any CPU of this kind runs the first; the second is for AVX2."""
    program = """
import ctypes, sys
sys.path[:0] = ["tests", "tests/kernels"]
from fieldshot.ops import sources
from fieldshot.ops.host import HostRunner
from fieldshot.ops.kernels import KernelOps
from problems import errors_of, problem
import platform
path = sources.built(f"host-{platform.machine()}", "so")
ops = KernelOps(HostRunner(ctypes.CDLL(str(path)), "narrow"))
for counts, D, moment in (([5, 3, 1], 37, False), ([60] * 3, 130, False), ([90, 80], 67, True)):
    errors = errors_of(ops, problem(counts, D, moment=moment))
    assert max(errors.values()) < 2e-5, errors
"""
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
