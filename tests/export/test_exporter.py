"""From a network to a checked bundle, and what is refused on the way."""

from __future__ import annotations

import errno
import hashlib
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from fieldshot.backbone import Backbone, Bundle
from fieldshot.errors import BundleError, ExportError, MissingDependencyError, MissingFileError
from fieldshot.images import Preprocessing
from fieldshot_export import Report, bundling, export, exporter, onnx_source, pictures
from fieldshot_export.report import Stages
from networks import CONVOLUTIONS, network, weights

EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
STATED = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(network(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "net.fieldshot"


def test_a_bundle_opens_and_holds_what_it_states(net: Path, out: Path) -> None:
    report = export(out, onnx=net, crop=0.875, licence="MIT", **STATED)
    bundle = Bundle.open(out)
    assert bundle.preprocessing == Preprocessing(size=(32, 32), crop=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    manifest = bundle.manifest
    assert (bundle.name, bundle.dim, manifest["licence"]) == ("net", 16, "MIT")
    assert manifest["source"] == "net.onnx, cut at embedding; verified on procedural pictures (dead leaves)"
    assert manifest["verify"] == {
        "float32": {"cosine": 0.99999, "max_abs": 1e-3},
        "float16": {"cosine": 0.999, "max_abs": 0.05},
    }
    assert set(manifest["files"]) == {"backbone.onnx", "backbone.fp16.onnx", "verify.safetensors"}
    with zipfile.ZipFile(out) as archive:
        for name, entry in manifest["files"].items():
            data = archive.read(name)
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
            assert len(data) == entry["size_bytes"] == report.files[name]
    assert report.size_bytes == out.stat().st_size
    assert list(out.parent.iterdir()) == [out]


def test_statistics_are_those_of_the_embeddings(net: Path, out: Path) -> None:
    export(out, onnx=net, **STATED)
    statistics = Bundle.open(out).manifest["statistics"]
    z = Backbone.load(out, "onnxruntime").embed(list(pictures.collect((32, 32)).statistics()))
    assert statistics["count"] == len(z) == 64
    np.testing.assert_allclose(statistics["mean"], z.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(statistics["std"], z.std(axis=0), rtol=1e-3, atol=1e-5)
    assert statistics["minimum"] == pytest.approx(z.min(), abs=1e-5)
    assert statistics["minimum"] >= 0  # behind a ReLU


def test_equal_exports_give_equal_bytes(net: Path, out: Path) -> None:
    export(out, onnx=net, **STATED)
    first = out.read_bytes()
    export(out, onnx=net, force=True, **STATED)
    assert out.read_bytes() == first


def test_own_pictures_are_used(net: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(pictures.dead_leaves((40, 50), seed=i)).save(tmp_path / "photos" / f"{i}.png")
    report = export(out, onnx=net, pictures=tmp_path / "photos", **STATED)
    assert "verified on 3 of the exporter's own pictures" in report.source
    assert len(Bundle.open(out).verification()[0]) == 3


def test_stages_are_reported(net: Path, out: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    export(out, onnx=net, progress=lambda what, seconds: seen.append((what, seconds)), **STATED)
    begun = [what for what, seconds in seen if seconds is None]
    ended = [what for what, seconds in seen if seconds is not None]
    assert len(begun) == len(ended) == 7
    assert all(end.startswith(begin) for begin, end in zip(begun, ended, strict=True))
    assert any(re.search(r"check float32: lowest cosine 1\.0000", what) for what in ended)


def test_float16_can_be_left_out(net: Path, out: Path) -> None:
    report = export(out, onnx=net, float16=False, **STATED)
    assert set(report.files) == {"backbone.onnx", "verify.safetensors"}
    assert set(Bundle.open(out).manifest["verify"]) == {"float32"}


def test_float16_that_fails_is_left_out_and_said(net: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundling.float16, "convert", lambda model, fed: network(constants=weights(seed=1)))
    said: list[str] = []
    report = export(out, onnx=net, progress=lambda what, _: said.append(what), **STATED)
    assert "must agree with the source" in report.left_out["float16"]
    assert not report.parity["float16"].within("float16")
    assert any("LEFT OUT" in what for what in said)
    assert set(Bundle.open(out).manifest["files"]) == {"backbone.onnx", "verify.safetensors"}


def test_float16_of_control_flow_is_left_out_and_said(out: Path, tmp_path: Path) -> None:
    branches = "then_branch = yes () => (float[N, 8, 16, 16] y) { y = Relu (conv) }," \
               "else_branch = no () => (float[N, 8, 16, 16] z) { z = Identity (conv) }"  # fmt: skip
    body = CONVOLUTIONS.replace("relu = Relu (normed)", f"relu = If (flag) <{branches}>")
    onnx.save(network(body, constants={**weights(), "flag": np.array(True)}), tmp_path / "if.onnx")
    report = export(out, onnx=tmp_path / "if.onnx", **STATED)
    assert "If, Loop or Scan" in report.left_out["float16"]
    assert "float16" not in report.parity


def write(source: onnx_source.Source, out: Path) -> Report:
    preprocessing = Preprocessing(**{**STATED, "size": (32, 32)})
    chosen = pictures.collect((32, 32))
    return bundling.write(out, source, preprocessing, chosen, Stages(None), name="net", licence="", with_float16=True)


def test_a_network_that_disagrees_with_its_source_is_refused(net: Path, out: Path) -> None:
    source = onnx_source.load(net, (32, 32))
    write(source, out)
    out.unlink()
    for tensor in source.model.graph.initializer:
        if tensor.name == "w2":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[3, 2, 1, 1] += 0.3
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "w2"))
    with pytest.raises(ExportError, match="float32 network must agree with its source"):
        write(source, out)
    assert list(out.parent.iterdir()) == []


def test_a_failure_at_the_last_moment_leaves_what_was_there(
    net: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.write_bytes(b"the bundle of yesterday")
    source = onnx_source.load(net, (32, 32))

    def fail(*_: object) -> None:
        raise ExportError("the bundle that was read back must be right")

    monkeypatch.setattr(bundling, "_check_written", fail)
    with pytest.raises(ExportError, match="read back"):
        write(source, out)
    assert out.read_bytes() == b"the bundle of yesterday"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("scale", "message"),
    [(0.0, "must tell pictures apart"), (np.nan, "must be finite"), (np.inf, "must be finite")],
)
def test_networks_that_cannot_be_right_are_refused(out: Path, tmp_path: Path, scale: float, message: str) -> None:
    constants = {**weights(), "w2": weights()["w2"] * 0 + scale}
    onnx.save(network(constants=constants), tmp_path / "net.onnx")
    with pytest.raises(ExportError, match=message):
        export(out, onnx=tmp_path / "net.onnx", **STATED)
    assert list(out.parent.iterdir()) == []


def test_a_source_whose_embeddings_change_is_not_trusted(net: Path, out: Path) -> None:
    source = onnx_source.load(net, (32, 32))
    rng = np.random.default_rng(0)
    shaky = replace(source, embed=lambda fed: source.embed(fed) + rng.normal(0, 0.1, (len(fed), 16)))
    with pytest.raises(ExportError, match="must agree with its source"):
        write(shaky, out)


def test_an_existing_bundle_is_replaced_only_when_told(net: Path, out: Path) -> None:
    out.write_bytes(b"precious")
    with pytest.raises(ExportError, match="--force"):
        export(out, onnx=net, **STATED)
    assert out.read_bytes() == b"precious"
    export(out, onnx=net, force=True, **STATED)
    assert Bundle.open(out).dim == 16


def test_targets_that_cannot_be_written(net: Path, out: Path) -> None:
    with pytest.raises(ExportError, match="written to a file"):
        export(out.parent, onnx=net, **STATED)
    with pytest.raises(ExportError, match="folder of the bundle must exist"):
        export(out.parent / "absent" / "net.fieldshot", onnx=net, **STATED)


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(
    net: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:  # as a read-only disk does, for root too
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(exporter.tempfile, "TemporaryFile", refuse)
    stages: list[str] = []
    with pytest.raises(ExportError, match=r"must be writable \(got: Read-only file system\)\. Hint: name a file"):
        export(out, onnx=net, progress=lambda what, _: stages.append(what), **STATED)
    assert stages == []


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_preprocessing_must_be_stated(kind: str, out: Path, net: Path) -> None:
    sources = {"onnx": net, "torch": "networks:residual"}
    with pytest.raises(
        ExportError, match=rf"preprocessing of {kind} networks must be stated \(got no size, no mean, no std\)"
    ):
        export(out, **{kind: sources[kind]})
    with pytest.raises(ExportError, match=r"got no std"):
        export(out, **{kind: sources[kind]}, size=48, mean=(0.5, 0.5, 0.5))


def test_preprocessing_must_make_sense(net: Path, out: Path) -> None:
    with pytest.raises(BundleError, match="std must be three numbers above 0"):
        export(out, onnx=net, size=32, mean=(0.5, 0.5, 0.5), std=(0, 0, 0))
    with pytest.raises(BundleError, match="interpolation must be one of"):
        export(out, onnx=net, interpolation="cubic", **STATED)


@pytest.mark.parametrize(
    ("mean", "std", "hint"),
    [
        ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5), "--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5"),
        ((-1.01, 0, 0), (1, 1, 1), "--std 0.003922,0.003922,0.003922"),
        ((0, 0, 0), (255, 255, 255), "--mean 0,0,0 --std 1,1,1"),
    ],
)
def test_mean_and_std_of_other_units_are_refused(
    net: Path, out: Path, mean: tuple[float, ...], std: tuple[float, ...], hint: str
) -> None:
    with pytest.raises(ExportError, match=r"unit is pixels scaled to \[0, 1\]") as caught:
        export(out, onnx=net, size=32, mean=mean, std=std)
    assert hint in str(caught.value)
    assert list(out.parent.iterdir()) == []


def test_one_source_and_what_goes_with_it(net: Path, out: Path) -> None:
    with pytest.raises(ExportError, match=r"exactly one of .* \(got none\)"):
        export(out, **STATED)
    with pytest.raises(ExportError, match=r"exactly one of .* \(got onnx, torch\)"):
        export(out, onnx=net, torch="networks:residual", **STATED)
    with pytest.raises(ExportError, match="cut must go with an ONNX file"):
        export(out, torch="networks:residual", cut="relu", **STATED)
    with pytest.raises(ExportError, match="weights must go with torch or timm"):
        export(out, onnx=net, weights="weights.pth", **STATED)
    with pytest.raises(MissingFileError):
        export(out, onnx=net.parent / "absent.onnx", **STATED)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "absent", "hint"),
    [
        ("onnx", {"onnx"}, "pip install onnx$"),
        ("torch", {"torch"}, r"pip install 'fieldshot\[export\]'"),
        ("timm", {"timm"}, "pip install timm"),
    ],
)
def test_a_missing_package_is_named(
    out: Path, monkeypatch: pytest.MonkeyPatch, kind: str, absent: set[str], hint: str
) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None if name in absent else object())
    with pytest.raises(MissingDependencyError, match=hint):
        export(out, **{kind: "anything"}, **STATED)


@pytest.mark.parametrize(
    ("file", "cut", "size", "dim", "size_bytes"),
    [
        ("mobilenet_v2_1.0_224.onnx", None, 224, 1280, 15_000_000),
        ("mobilenet_v1_0.5_160.onnx", None, 160, 512, 6_000_000),
        ("mobilenet_v1_0.5_160.onnx", "embedding", 160, 512, 6_000_000),
        ("mobilenet_v1_0.5_160.onnx", "t26", 160, 512, 6_000_000),
    ],
)
def test_the_shared_models(
    shared: Path, out: Path, file: str, cut: str | None, size: int, dim: int, size_bytes: int
) -> None:
    report = export(
        out, onnx=shared / "models" / file, cut=cut, size=size, mean=[0.5] * 3, std=[0.5] * 3, licence="Apache-2.0"
    )
    assert report.dim == dim
    assert report.size_bytes < size_bytes
    assert report.parity["float32"].cosine > 0.999999
    assert report.parity["float16"].cosine > 0.9995
    assert report.left_out == {}
    model = onnx.load_from_string(Bundle.open(out).read("backbone.onnx"))
    assert [value.name for value in model.graph.output] == ["embedding"]
    assert not any("logits" in node.output for node in model.graph.node)


def test_the_projects_own_network_fits_its_place(out: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from fieldshot_export.compact import DIM, MEAN, STD, compact

    save_file(compact().state_dict(), tmp_path / "compact.safetensors")
    report = export(
        out,
        torch="fieldshot_export.compact:compact",
        weights=tmp_path / "compact.safetensors",
        size=128,
        mean=MEAN,
        std=STD,
    )
    assert report.dim == DIM
    assert set(report.files) == {"backbone.onnx", "backbone.fp16.onnx", "verify.safetensors"}
    assert out.stat().st_size < 6_000_000


def test_force_replaces_bundles_only(tmp_path: Path) -> None:
    net = tmp_path / "net.onnx"
    net.write_bytes(network().SerializeToString())
    for name, data in (("net.onnx", net.read_bytes()), ("keep.jpg", b"\xff\xd8 a photograph"), ("a.zip", EMPTY_ZIP)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ExportError, match="must be a bundle to be replaced"):
            export(tmp_path / name, onnx=net, force=True, **STATED)
        assert (tmp_path / name).read_bytes() == data
