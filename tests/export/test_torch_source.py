"""Torch modules as sources."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from safetensors.torch import save_file

import networks
from fieldshot.backbone import Backbone, Bundle
from fieldshot.errors import ExportError, MissingDependencyError, MissingFileError
from fieldshot_export import Report, batch, torch_source


def torch_embeddings(module: torch.nn.Module, bundle: Bundle) -> np.ndarray:
    """What a module gives for the verification pictures of a bundle, fed by hand."""
    pictures, _ = bundle.verification()
    with torch.inference_mode():
        rows = [module(torch.from_numpy(bundle.preprocessing.apply(p))[None]) for p in pictures]
    return torch.cat(rows).numpy()


def assert_served_like_torch(report: Report, module: torch.nn.Module) -> None:
    bundle = Bundle.open(report.path)
    expected = torch_embeddings(module, bundle)
    pictures, stored = bundle.verification()
    np.testing.assert_array_equal(stored, expected)
    scale = np.abs(expected).max()
    served = Backbone.load(report.path, "onnxruntime").embed(pictures)
    np.testing.assert_allclose(served, expected, atol=1e-4 * scale)
    fed = np.stack([bundle.preprocessing.apply(p) for p in pictures])
    half = networks.run(bundle.read("backbone.fp16.onnx"), {"input": fed}, "embedding")
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, expected, atol=0.02 * scale)
    assert set(report.parity) == {"float32", "float16"}
    assert report.left_out == {}


def test_a_residual_network_is_served_like_torch(residual: Report) -> None:
    assert_served_like_torch(residual, networks.residual())
    assert (residual.name, residual.dim) == ("residual", 24)
    assert residual.source == "networks:residual; verified on procedural pictures (dead leaves)"


def test_a_transformer_with_a_checkpoint_is_served_like_torch(transformer: Report) -> None:
    module = networks.transformer()
    torch_source.fill(module, transformer.path.parent / "trained.safetensors")
    assert_served_like_torch(transformer, module)
    assert transformer.source.startswith("networks:transformer, weights trained.safetensors")
    assert Bundle.open(transformer.path).preprocessing.channels == "BGR"


def test_the_norms_of_a_transformer_are_in_float32(transformer: Report) -> None:
    kinds = networks.node_types(onnx.load_from_string(Bundle.open(transformer.path).read("backbone.fp16.onnx")))
    assert kinds["LayerNormalization"] == kinds["Softmax"] == {TensorProto.FLOAT}
    assert kinds["MatMul"] == kinds["Conv"] == {TensorProto.FLOAT16}


def test_no_path_of_this_machine_is_in_the_network(residual: Report) -> None:
    assert b".py" not in Bundle.open(residual.path).read("backbone.onnx")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    ],
    ids=["bare", "training loop", "data parallel"],
)
def test_checkpoints_of_torch_save(tmp_path: Path, wrap) -> None:
    module = networks.residual()
    torch.save(wrap(module.state_dict()), tmp_path / "weights.pth")
    empty = networks.Residual().eval()
    torch_source.fill(empty, tmp_path / "weights.pth")
    x = torch.from_numpy(batch.noise(1, (48, 48)))
    torch.testing.assert_close(empty(x), module(x))


def test_wrong_names_and_shapes_are_refused_and_named(tmp_path: Path) -> None:
    state = networks.residual().state_dict()
    state["head.weight"] = state.pop("blocks.0.conv1.weight")
    state["blocks.0.conv2.weight"] = torch.zeros(1, 2)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ExportError) as caught:
        torch_source.fill(networks.residual(), tmp_path / "weights.safetensors")
    message = str(caught.value)
    assert "1 missing: blocks.0.conv1.weight" in message
    assert "1 unexpected: head.weight" in message
    assert "1 of another shape: blocks.0.conv2.weight (1, 2) instead of (12, 12, 3, 3)" in message
    with pytest.raises(ExportError, match="missing"):
        torch_source.load("networks:residual", (48, 48), weights=tmp_path / "weights.safetensors")


def test_many_wrong_names_are_cut_short(tmp_path: Path) -> None:
    save_file({f"other.{i}": torch.zeros(1) for i in range(50)}, tmp_path / "weights.safetensors")
    with pytest.raises(ExportError, match=r"50 unexpected: other\.0, .*, \.\.\.") as caught:
        torch_source.fill(networks.residual(), tmp_path / "weights.safetensors")
    assert len(str(caught.value)) < 600


class Malicious:
    """What a pickle may do when it is read: here, make a file."""

    def __reduce__(self):
        return Path.touch, (Path("it-was-run"),)


def test_a_pickle_that_runs_a_program_is_refused(factories: Path) -> None:
    torch.save({"weight": torch.zeros(1), "extra": Malicious()}, "weights.pth")
    Path("raw.pth").write_bytes(pickle.dumps(Malicious()))
    for name in ("weights.pth", "raw.pth"):
        with pytest.raises(ExportError, match="nothing but weights") as caught:
            torch_source.fill(networks.residual(), name)
        assert "weights_only=False" not in str(caught.value)  # no advice to run it
    assert not Path("it-was-run").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint" * 20])
def test_damaged_checkpoints_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=name):
        torch_source.fill(networks.residual(), tmp_path / name)


def test_a_whole_module_or_a_list_is_no_checkpoint(tmp_path: Path) -> None:
    for content in ([torch.zeros(1)], {"weight": torch.zeros(1), "epoch": 3}):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(ExportError, match="must hold names and tensors"):
            torch_source.fill(networks.residual(), tmp_path / "weights.pth")


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="must exist"):
        torch_source.fill(networks.residual(), tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("networks", "package.module:function"),
        (":residual", "package.module:function"),
        ("no_such_module:make", r"must be importable \(got no no_such_module\)"),
        ("networks.nothing:make", "must be importable|must make a module"),
        ("networks:absent", "has no attribute 'absent'"),
        ("networks:number", r"must return a torch.nn.Module \(got int\)"),
        ("networks:failing", "RuntimeError: no such luck"),
        ("networks:Block", "missing 3 required positional arguments"),
    ],
)
def test_wrong_factories_are_refused(factory: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        torch_source.load(factory, (48, 48))


def test_a_factory_is_found_in_the_current_directory(factories: Path) -> None:
    (factories / "mine.py").write_text("import torch\n\ndef make():\n    return torch.nn.Conv2d(3, 4, 3)\n")
    with pytest.raises(ExportError, match=r"one float32 tensor of shape \(N, D\) \(got torch.float32 of shape"):
        torch_source.load("mine:make", (8, 8))  # found, made, and refused for its shape


def test_a_factory_that_lacks_a_package_says_which(factories: Path) -> None:
    (factories / "needy.py").write_text("import no_such_package\n")
    with pytest.raises(MissingDependencyError, match="got no no_such_package"):
        torch_source.load("needy:make", (8, 8))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (torch.nn.Linear(5, 5), r"must take float32 of shape \(N, 3, 8, 8\)"),
        (torch.nn.Sequential(torch.nn.Flatten(0), torch.nn.Softmax(0)), r"shape \(N, D\)"),
        (torch.nn.LSTM(8, 4), "must take float32|must return one"),
    ],
)
def test_modules_of_another_shape_are_refused(module: torch.nn.Module, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        torch_source.from_module(module, (8, 8), "name", "description")


class DependsOnValues(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) if x.sum() > 0 else x.amax(dim=(2, 3))


def test_a_module_that_cannot_be_traced_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match="must be traceable"):
        torch_source.from_module(DependsOnValues(), (8, 8), "name", "description")
    assert io.StringIO(capfd.readouterr().out).read() == ""
