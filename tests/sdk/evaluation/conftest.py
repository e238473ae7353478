"""Pictures and a backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot.backbone import Backbone


@pytest.fixture(scope="session")
def backbone(tiny_bundle: Path) -> Backbone:
    return Backbone.load(tiny_bundle)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of three pictures of noise."""
    random = np.random.default_rng(0)
    for label in ("leaf", "rust"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(random.integers(0, 256, (8, 9, 3), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"
