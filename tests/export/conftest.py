"""Bundles that several tests of the exporter look at: each export from torch costs seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fieldshot_export import Report, export

STATED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="session")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The residual network of tests/networks.py, exported from torch."""
    out = tmp_path_factory.mktemp("residual") / "residual.fieldshot"
    return export(out, torch="networks:residual", size=48, crop=0.875, licence="Apache-2.0", **STATED)


@pytest.fixture(scope="session")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The vision transformer of tests/networks.py, exported from torch with weights from a file."""
    from safetensors.torch import save_file

    from networks import transformer as factory

    folder = tmp_path_factory.mktemp("transformer")
    module = factory()
    weights = {name: value + 0.01 for name, value in module.state_dict().items()}
    save_file(weights, folder / "trained.safetensors")
    return export(
        folder / "transformer.fieldshot",
        torch="networks:transformer",
        weights=folder / "trained.safetensors",
        size=(48, 32),
        resize="stretch",
        interpolation="bicubic",
        channels="BGR",
        **STATED,
    )


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, for modules that a test writes; nothing of them stays imported."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
