"""A wheel is built by way of the source archive, installed where nothing but its own needs is, and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from host_build import kernel_build

ROOT = Path(__file__).resolve().parents[1]
COLOURS = {"leaf": (40, 160, 60), "rust": (170, 80, 30), "sky": (90, 150, 230)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel of a copy of the tree: building leaves its traces beside the sources."""
    kernels = kernel_build()
    if shutil.which("nvcc"):
        kernels.build_cuda(kernels.PACKAGE)  # in place and once: wheels take it from there
    tree = tmp_path_factory.mktemp("build") / "tree"
    traces = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in ("sdk", "export", "kernels", "tests", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=traces)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)]
    run(*command, FIELDSHOT_PREBUILT=str(kernels.PACKAGE))
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a venv with the wheel and, linked from here, what it requires, and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=True, symlinks=True)
    pip = [str(home / "bin/pip"), "install", "--disable-pip-version-check", "--no-deps"]
    run(*pip, str(wheel))
    (site,) = home.glob("lib/python*/site-packages")
    (metadata,) = site.glob("fieldshot-*.dist-info/METADATA")
    link_all(re.findall(r"^Requires-Dist: (.*)$", metadata.read_text("utf-8"), re.MULTILINE), site)
    return home / "bin"


def run(*command: str, ok: bool = True, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, **more}, cwd=cwd)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


def link_all(requirements: list[str], site: Path) -> None:
    """Link the installed distributions that are required, and those that they require, into `site`."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True)
        tops = {file.parts[0] for file in found.files or [] if file.parts[0] not in {"..", "__pycache__"}}
        missing = [top for top in tops if not (site / top).exists()]
        for top in missing:
            (site / top).symlink_to(Path(str(found.locate_file(top))))
        if missing:
            link_all(found.requires or [], site)


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {f"fieldshot/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.cu*")}
    built = {name for name in names if re.fullmatch(r"fieldshot/kernels/(host|cuda)[\w.-]+\.(so|fatbin)", name)}
    assert any("host-" in name for name in built) == (shutil.which("g++") is not None)
    assert any("cuda." in name for name in built) == (shutil.which("nvcc") is not None)
    expected = {
        str(path.relative_to(root))
        for root in (ROOT / "sdk", ROOT / "export")
        for path in root.glob("fieldshot*/**/*")
        if path.suffix in {".py", ".typed", ".fieldshot", ".json"}
    }
    assert {name for name in names if ".dist-info/" not in name} == expected | sources | built
    assert wheel.name.split("-", 2)[2].startswith("py3-none-linux_")
    assert wheel.stat().st_size < 9_000_000
    assert "fieldshot/py.typed" in expected
    assert "fieldshot/backbone/default.fieldshot" in expected
    assert any(name.endswith("LICENSE") for name in names)


def test_version(bare: Path) -> None:
    import fieldshot

    assert run(str(bare / "fieldshot"), "--version").stdout == f"fieldshot {fieldshot.__version__}\n"


def test_nothing_of_the_workstation_is_there(bare: Path) -> None:
    for name in ("torch", "onnx", "sklearn", "pytest", "tests", "kernels", "benchmarks"):
        assert "ModuleNotFoundError" in run(str(bare / "python"), "-I", "-c", f"import {name}", ok=False).stderr


def test_main_job(bare: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(4):
            pixels = np.clip(random.normal(colour, 12, (96, 128, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{number}.png")
    queries = [(tmp_path / "pictures" / label / "3.png").rename(tmp_path / f"{label}.png") for label in COLOURS]

    fieldshot = str(bare / "fieldshot")
    info = json.loads(run(fieldshot, "info", "--json").stdout)
    assert info["backbone"]["dim"] > 0
    assert info["head"]["device"] == ("host" if shutil.which("g++") else "reference")
    assert "created" in run(fieldshot, "enroll", "my.gallery", "--from", "pictures", cwd=tmp_path).stdout
    answers = json.loads(run(fieldshot, "recognize", "my.gallery", *map(str, queries), "--json", cwd=tmp_path).stdout)
    assert [answer["label"] for answer in answers] == list(COLOURS)


def test_export_names_what_to_install(bare: Path) -> None:
    assert "export" in run(str(bare / "fieldshot"), "--help").stdout
    arguments = [
        "export",
        "--onnx",
        "a.onnx",
        "--size",
        "32",
        "--mean",
        "0,0,0",
        "--std",
        "1,1,1",
        "-o",
        "a.fieldshot",
    ]
    assert "pip install onnx" in run(str(bare / "fieldshot"), *arguments, ok=False).stderr
