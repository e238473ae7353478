"""Bundles: every rule of docs/bundle.md, each broken once."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from bundles import TINY_PREPROCESSING, coarse, tiny_onnx, verification, write_tiny_bundle
from fieldshot.backbone import Bundle
from fieldshot.errors import BundleError, FieldshotError, MissingFileError, OptionError

Members = dict[str, bytes]


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, members: Members, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def unpacked(path: Path, members: Members) -> Path:
    path.mkdir()
    for name, data in members.items():
        (path / name).write_bytes(data)
    return path


def fields(**changes: Any) -> dict[str, Any]:
    network = tiny_onnx()
    return {
        "name": "tiny",
        "licence": "MIT",
        "source": "tests",
        "dim": 16,
        "preprocessing": TINY_PREPROCESSING,
        "verify": {"float32": {"cosine": 0.9999, "max_abs": 0.001}},
        "files": {"backbone.onnx": network, "verify.safetensors": verification(network, TINY_PREPROCESSING)},
        **changes,
    }


@pytest.mark.parametrize("lay", [zipped, unpacked])
def test_a_zip_and_a_folder_hold_the_same(tiny_bundle: Path, tmp_path: Path, lay: Callable[..., Path]) -> None:
    members = members_of(tiny_bundle)
    bundle = Bundle.open(lay(tmp_path / "copy.fieldshot", members))
    assert (bundle.name, bundle.dim, bundle.preprocessing) == ("tiny-0", 16, TINY_PREPROCESSING)
    assert bundle.path == tmp_path / "copy.fieldshot"
    assert bundle.read("backbone.onnx") == members["backbone.onnx"]
    assert bundle.contract() == Bundle.open(tiny_bundle).contract()
    np.testing.assert_array_equal(bundle.feature_mean, np.full(16, 0.25, np.float32))
    pictures, expected = bundle.verification()
    assert [picture.shape for picture in pictures] == [(40, 50, 3), (47, 47, 3), (54, 44, 3)]
    assert expected.shape == (3, 16)


def test_a_deflated_zip_opens(tiny_bundle: Path, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.fieldshot", members_of(tiny_bundle), zipfile.ZIP_DEFLATED)
    assert Bundle.open(path).contract() == Bundle.open(tiny_bundle).contract()


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    one, other = write_tiny_bundle(tmp_path / "a.fieldshot"), write_tiny_bundle(tmp_path / "b.fieldshot")
    assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fieldshot", "b.fieldshot"]


def test_the_contract_is_the_stated_digest(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    terms = {
        "weights": hashlib.sha256(members_of(tiny_bundle)["backbone.onnx"]).hexdigest(),
        "preprocessing": bundle.manifest["preprocessing"],
        "precision": "float32",
    }
    canonical = json.dumps(terms, sort_keys=True, separators=(",", ":")).encode()
    assert bundle.contract() == hashlib.sha256(canonical).hexdigest()[:16]
    assert bundle.contract("float16") != bundle.contract()
    with pytest.raises(OptionError, match="precision must be one of float32, float16, int8"):
        bundle.contract("float64")


def test_the_contract_of_int8_follows_its_own_network(tiny_bundle: Path, tmp_path: Path) -> None:
    def written(name: str, network: bytes) -> Bundle:
        return Bundle.open(write_tiny_bundle(tmp_path / name, others={"backbone.int8.onnx": network}))

    one, other = written("a.fieldshot", coarse(tiny_onnx())), written("b.fieldshot", tiny_onnx())
    assert one.precisions == ("float32", "int8")
    assert one.network("int8") == "backbone.int8.onnx"
    assert one.contract() == other.contract() == Bundle.open(tiny_bundle).contract()
    assert len({one.contract(), one.contract("int8"), other.contract("int8")}) == 3
    with pytest.raises(
        BundleError, match=r"tiny\.fieldshot must hold its network in int8 \(got float32\)\. Hint: .*export"
    ):
        Bundle.open(tiny_bundle).contract("int8")


def test_the_contract_follows_weights_and_preprocessing(tiny_bundle: Path, tmp_path: Path) -> None:
    contract = Bundle.open(tiny_bundle).contract()
    assert Bundle.open(write_tiny_bundle(tmp_path / "a.fieldshot", seed=1)).contract() != contract
    manifest = json.loads(members_of(tiny_bundle)["manifest.json"])
    for changes, same in (({"licence": "MIT"}, True), ({"crop": 1}, True), ({"crop": 0.9}, False)):
        changed = {**manifest, "preprocessing": {**manifest["preprocessing"]}}
        (changed["preprocessing"] if "crop" in changes else changed).update(changes)
        path = zipped(
            tmp_path / "b.fieldshot", {**members_of(tiny_bundle), "manifest.json": json.dumps(changed).encode()}
        )
        assert (Bundle.open(path).contract() == contract) is same, changes


def test_every_network_has_its_bounds(tmp_path: Path) -> None:
    files = {**fields()["files"], "backbone.int8.onnx": tiny_onnx()}
    with pytest.raises(BundleError, match=r"verify\.int8 in its manifest must be the bounds of backbone\.int8\.onnx"):
        Bundle.write(tmp_path / "a.fieldshot", **fields(files=files))


def test_statistics_may_be_left_out(tmp_path: Path) -> None:
    assert Bundle.write(tmp_path / "a.fieldshot", **fields()).feature_mean is None


@pytest.mark.parametrize("lay", [zipped, unpacked])
@pytest.mark.parametrize("name", ["backbone.onnx", "verify.safetensors"])
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_a_changed_byte_is_refused(
    tiny_bundle: Path, tmp_path: Path, lay: Callable[..., Path], name: str, where: float
) -> None:
    members = members_of(tiny_bundle)
    data = bytearray(members[name])
    data[where if where == -1 else int(where * len(data))] ^= 1
    path = lay(tmp_path / "bad.fieldshot", {**members, name: bytes(data)})
    with pytest.raises(BundleError, match=rf"bad\.fieldshot: {name} must have the SHA-256 .*Hint: .*export"):
        Bundle.open(path)


def test_any_byte_of_the_file_may_be_damaged(tiny_bundle: Path, tmp_path: Path) -> None:
    whole, members = tiny_bundle.read_bytes(), members_of(tiny_bundle)
    rng, path, refused = np.random.default_rng(0), tmp_path / "bad.fieldshot", 0
    # the end of a zip file holds its directory, where a change does the oddest things
    for at in (*rng.integers(0, len(whole), 100), *range(len(whole) - 300, len(whole))):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            bundle = Bundle.open(path)
        except BundleError as error:
            refused += 1
            assert "bad.fieldshot" in str(error)
        else:  # a time or a mode of the zip file itself
            for name in ("backbone.onnx", "verify.safetensors"):
                assert bundle.read(name) == members[name]
    assert refused > 200


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_a_truncated_file_is_refused(tiny_bundle: Path, tmp_path: Path, keep: float) -> None:
    whole = tiny_bundle.read_bytes()
    (tmp_path / "cut.fieldshot").write_bytes(whole[: int(keep * len(whole)) if keep == 0.5 else int(keep)])
    with pytest.raises(BundleError, match=r"cut\.fieldshot must be .*Hint"):
        Bundle.open(tmp_path / "cut.fieldshot")


def test_a_change_after_opening_is_seen(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(unpacked(tmp_path / "a.fieldshot", members_of(tiny_bundle)))
    (tmp_path / "a.fieldshot" / "backbone.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"backbone\.onnx must have the SHA-256"):
        bundle.read("backbone.onnx")
    (tmp_path / "a.fieldshot" / "backbone.onnx").unlink()
    with pytest.raises(BundleError, match=r"backbone\.onnx must be readable"):
        bundle.read("backbone.onnx")


def test_only_listed_members_are_read(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"must hold backbone\.int8\.onnx \(got backbone\.onnx, verify"):
        Bundle.open(tiny_bundle).read("backbone.int8.onnx")


@pytest.mark.parametrize("lay", [zipped, unpacked])
def test_unlisted_and_absent_members(tiny_bundle: Path, tmp_path: Path, lay: Callable[..., Path]) -> None:
    members = members_of(tiny_bundle)
    with pytest.raises(BundleError, match=r"only what its manifest lists \(got notes\.txt too\).*remove notes\.txt"):
        Bundle.open(lay(tmp_path / "more.fieldshot", {**members, "notes.txt": b""}))
    for name in ("backbone.onnx", "verify.safetensors", "manifest.json"):
        fewer = {key: data for key, data in members.items() if key != name}
        with pytest.raises(BundleError, match=f"must hold {name}"):
            Bundle.open(lay(tmp_path / f"no-{name}.fieldshot", fewer))


ESCAPES = ["../evil", "/etc/evil", "a/b", "..", ".", "", "a\\b", "C:evil", "x\0y"]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_with_a_path_in_the_manifest_are_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    members = members_of(tiny_bundle)
    manifest = json.loads(members["manifest.json"])
    manifest["files"][name] = manifest["files"]["backbone.onnx"]
    path = zipped(tmp_path / "bad.fieldshot", {**members, "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(BundleError, match=r"top level only .*Hint: do not use this file"):
        Bundle.open(path)


@pytest.mark.parametrize("name", [*ESCAPES, "folder/"])
def test_names_with_a_path_in_the_zip_are_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.fieldshot"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members_of(tiny_bundle).items():
            archive.writestr(member, data)
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # past what ZipInfo itself would mend
        archive.writestr(info, b"evil")
    with pytest.raises(BundleError, match=r"top level only .*Hint: do not use this file"):
        Bundle.open(path)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    path = zipped(tmp_path / "bad.fieldshot", members_of(tiny_bundle))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("backbone.onnx", b"other")
    with pytest.raises(BundleError, match="each name once"):
        Bundle.open(path)


def test_links_and_folders_in_a_folder_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    members = members_of(tiny_bundle)
    path = unpacked(tmp_path / "link.fieldshot", members)
    (tmp_path / "elsewhere").write_bytes(members["backbone.onnx"])
    (path / "backbone.onnx").unlink()
    (path / "backbone.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"plain files only \(got backbone\.onnx"):
        Bundle.open(path)
    path = unpacked(tmp_path / "folder.fieldshot", members)
    (path / "more").mkdir()
    with pytest.raises(BundleError, match=r"plain files only \(got more"):
        Bundle.open(path)


def test_other_compressions_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="stored or deflated"):
        Bundle.open(zipped(tmp_path / "a.fieldshot", members_of(tiny_bundle), zipfile.ZIP_LZMA))


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.fieldshot must exist"):
        Bundle.open(tmp_path / "none.fieldshot")
    (tmp_path / "text.fieldshot").write_text("hello")
    with pytest.raises(BundleError, match="a zip file or a folder"):
        Bundle.open(tmp_path / "text.fieldshot")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"must hold manifest\.json"):
        Bundle.open(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="a zip file or a folder"):
        Bundle.open(tmp_path / "pipe")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"format": "other"}', b"1" * 5000]
)
def test_a_manifest_that_is_no_manifest(tiny_bundle: Path, tmp_path: Path, text: bytes) -> None:
    path = zipped(tmp_path / "bad.fieldshot", {**members_of(tiny_bundle), "manifest.json": text})
    with pytest.raises(BundleError, match=r"bad\.fieldshot: .*manifest.*must be"):
        Bundle.open(path)


def test_a_newer_format_says_to_upgrade(tiny_bundle: Path, tmp_path: Path) -> None:
    members = members_of(tiny_bundle)
    manifest = {**json.loads(members["manifest.json"]), "format_version": 2, "dim": "a field that changed its type"}
    path = zipped(tmp_path / "new.fieldshot", {**members, "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(BundleError, match=r"format 1 at most \(got 2\)\. Hint: upgrade fieldshot"):
        Bundle.open(path)


WRONG = [
    ("format", None),
    ("format_version", "1"),
    ("format_version", True),
    ("format_version", 0),
    ("name", ""),
    ("name", 5),
    ("licence", None),
    ("source", ["x"]),
    ("dim", 0),
    ("dim", 16.0),
    ("dim", 2**40),
    ("preprocessing", None),
    ("preprocessing.size", [0, 0]),
    ("statistics", []),
    ("statistics.count", -1),
    ("statistics.mean", [0.0] * 15),
    ("statistics.std", ["0"] * 16),
    ("statistics.mean", [float("nan")] * 16),
    ("statistics.minimum", None),
    ("verify", {}),
    ("verify.float32", 1),
    ("verify.float32.cosine", 2),
    ("verify.float32.max_abs", -1),
    ("verify.float32.max_abs", "small"),
    ("files", []),
    ("files", {}),
    ("files/backbone.onnx", None),
    ("files/backbone.onnx/sha256", "00"),
    ("files/backbone.onnx/sha256", 7),
    ("files/backbone.onnx/size_bytes", -1),
    ("files/backbone.onnx/size_bytes", 7),
    ("files/backbone.onnx/precision", "float16"),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_field_is_named(tiny_bundle: Path, tmp_path: Path, field: str, value: object) -> None:
    members = members_of(tiny_bundle)
    manifest = json.loads(members["manifest.json"])
    *parents, last = field.split("/") if "/" in field else field.split(".")
    target = manifest
    for parent in parents:
        target = target[parent]
    target[last] = value
    path = zipped(tmp_path / "bad.fieldshot", {**members, "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(BundleError, match=r"bad\.fieldshot: .*must .*Hint: ") as caught:
        Bundle.open(path)
    named = {"size_bytes": "bytes", "files": "backbone.onnx" if value == {} else "files"}
    assert named.get(last, last) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (b"no safetensors", "must be safetensors"),
        ({"embeddings": np.zeros((1, 16), np.float32)}, "must hold picture_0"),
        ({"picture_0": np.zeros((4, 4, 3), np.uint8)}, r"embeddings in .* must be float32 of shape \(1, 16\)"),
        ({"embeddings": np.zeros((1, 16), np.float32), "picture_1": np.zeros((4, 4, 3), np.uint8)}, "picture_0"),
        ({"embeddings": np.zeros((1, 16), np.float32), "picture_0": np.zeros((4, 4), np.uint8)}, "picture_0"),
        ({"embeddings": np.zeros((1, 15), np.float32), "picture_0": np.zeros((4, 4, 3), np.uint8)}, r"got .*\(1, 15\)"),
        ({"embeddings": np.zeros((1, 16)), "picture_0": np.zeros((4, 4, 3), np.uint8)}, "float64"),
    ],
)
def test_verification_pictures_of_the_wrong_form(tmp_path: Path, tensors: Any, said: str) -> None:
    data = tensors if isinstance(tensors, bytes) else save(tensors)
    bundle = Bundle.write(
        tmp_path / "a.fieldshot", **fields(files={"backbone.onnx": tiny_onnx(), "verify.safetensors": data})
    )
    with pytest.raises(BundleError, match=said):
        bundle.verification()


def test_write_refuses_what_open_would(tmp_path: Path) -> None:
    path = tmp_path / "a.fieldshot"
    with pytest.raises(BundleError, match=r"must list verify\.safetensors"):
        Bundle.write(path, **fields(files={"backbone.onnx": b""}))
    with pytest.raises(BundleError, match="dim"):
        Bundle.write(path, **fields(dim=0))
    with pytest.raises(BundleError, match="top level"):
        Bundle.write(path, **fields(files={**fields()["files"], "../evil": b""}))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiny_bundle(tmp_path / "a.fieldshot")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match=r"a\.fieldshot must be writable \(got: No space left on device\)"):
        write_tiny_bundle(path, seed=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_to_write_into(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"must be writable .*Hint: check that the folder exists"):
        write_tiny_bundle(tmp_path / "none" / "a.fieldshot")


def test_errors_are_value_errors(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(ValueError, match="zip file"):
        Bundle.open(tmp_path / "a")
    with pytest.raises(FieldshotError):
        Bundle.open(tmp_path / "a")


@pytest.mark.parametrize("path", [None, 3, b"tiny.fieldshot"])
def test_what_is_no_path(path: object) -> None:
    with pytest.raises(OptionError, match="a bundle must be named by its path"):
        Bundle.open(path)  # type: ignore[arg-type]
