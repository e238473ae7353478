"""A shell in an empty folder, pictures, and a gallery of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shell import Shell

COLOURS = {"leaf": (30, 170, 60), "rust": (190, 70, 20), "sky": (60, 120, 240)}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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
