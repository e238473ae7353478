"""timm models as sources, with a stand-in for timm, which the tests do not install."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from fieldshot.errors import ExportError, MissingDependencyError
from fieldshot_export import timm_source
from networks import residual

CONFIG = {
    "input_size": (3, 48, 48),
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.95,
    "crop_mode": "center",
}


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the names that timm has, around one network."""

    def create_model(name: str, pretrained: bool, num_classes: int) -> torch.nn.Module:
        if pretrained:
            raise OSError("no network")
        assert num_classes == 0
        module = residual()
        module.pretrained_cfg = {"classifier": "fc"}
        return module

    stand_in = ModuleType("timm")
    stand_in.is_model = lambda name: name == "resnet_tiny"
    stand_in.list_models = lambda pattern: ["resnet_tiny"] if pattern == "*resnet*" else []
    stand_in.create_model = create_model
    stand_in.data = SimpleNamespace(resolve_model_data_config=lambda module: dict(CONFIG))
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    return stand_in


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    state = {**residual().state_dict(), "fc.weight": torch.zeros(10, 24), "fc.bias": torch.zeros(10)}
    save_file(state, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_timm_states_the_preprocessing(timm: ModuleType, weights: Path) -> None:
    module, known = timm_source.create("resnet_tiny", weights=weights)  # its classifier is passed over
    assert not module.training
    assert known == {
        "size": (48, 48),
        "resize": "shortest",
        "crop": 0.95,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


def test_squashing_is_stretching_and_borders_are_refused(
    timm: ModuleType, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIG, "crop_mode", "squash")
    assert timm_source.create("resnet_tiny", weights=weights)[1]["resize"] == "stretch"
    monkeypatch.setitem(CONFIG, "crop_mode", "border")
    with pytest.raises(ExportError, match="crop mode border"):
        timm_source.create("resnet_tiny", weights=weights)


def test_pretrained_weights_that_cannot_be_had(timm: ModuleType) -> None:
    with pytest.raises(ExportError, match=r"OSError: no network.*give the file with --weights"):
        timm_source.create("resnet_tiny")


def test_unknown_names_are_refused_with_near_ones(timm: ModuleType) -> None:
    with pytest.raises(ExportError, match=r"one of timm's \(got 'resnet_huge'\).*timm has resnet_tiny"):
        timm_source.create("resnet_huge")


def test_timm_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="pip install timm"):
        timm_source.create("resnet_tiny")
