"""Backbones on ONNX Runtime: equal to a bare session, safe in threads, bounded in memory, clear in errors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import load, save

import fieldshot.backbone
from bundles import TINY_PREPROCESSING, coarse, tiny_onnx, verification, write_bundle, write_tiny_bundle
from fieldshot import Backbone
from fieldshot.backbone import Bundle
from fieldshot.errors import (
    BundleError,
    EngineError,
    MissingDependencyError,
    MissingFileError,
    OptionError,
    PictureError,
)
from fieldshot.images import Preprocessing, find, read

NETWORKS = {"mobilenet_v2_1.0_224": (224, 1280), "mobilenet_v1_0.5_160": (160, 512)}


@pytest.fixture(scope="module")
def bb(tiny_bundle: Path) -> Backbone:
    return Backbone.load(tiny_bundle)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(21):
        Image.fromarray(rng.integers(0, 256, (30 + i, 60 - i, 3), np.uint8)).save(folder / f"{i:02}.png")
    return find(folder)


def bare(network: bytes, pictures: list[Path], spec: Preprocessing) -> np.ndarray:
    """ONNX Runtime and Pillow alone, in one batch."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    inputs = np.stack([spec.apply(np.asarray(Image.open(path).convert("RGB"))) for path in pictures])
    (embeddings,) = session.run(["embedding"], {"input": inputs})
    return embeddings


def test_embeddings_equal_those_of_a_bare_session(bb: Backbone, pictures: list[Path]) -> None:
    got = bb.embed(pictures, batch_size=len(pictures))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, bare(tiny_onnx(), pictures, TINY_PREPROCESSING))


def test_attributes(bb: Backbone, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert (bb.name, bb.dim, bb.engine, bb.path) == ("tiny-0", 16, "onnxruntime", tiny_bundle)
    assert bb.contract == bundle.contract("float32")
    assert bb.preprocessing == TINY_PREPROCESSING
    np.testing.assert_array_equal(bb.feature_mean, np.full(16, 0.25))
    info = bb.info()
    assert info["engine"]["version"] == onnxruntime.__version__
    assert info["engine"]["provider"] == "CPUExecutionProvider"
    assert info["contract"] == bb.contract
    assert "tiny-0" in repr(bb)


def test_a_folder_gives_the_same(bb: Backbone, tiny_bundle: Path, tmp_path: Path, pictures: list[Path]) -> None:
    import zipfile

    with zipfile.ZipFile(tiny_bundle) as archive:
        archive.extractall(tmp_path / "folder")
    folder = Backbone.load(tmp_path / "folder")
    assert folder.contract == bb.contract
    np.testing.assert_array_equal(folder.embed(pictures), bb.embed(pictures))


def test_every_kind_of_picture(bb: Backbone, pictures: list[Path]) -> None:
    expected = bb.embed(pictures[:3])
    pixels = [read(path) for path in pictures[:3]]
    images = [Image.fromarray(p) for p in pixels]
    for same in (pixels, images, tuple(images), iter(pixels), (p for p in images), [pictures[0], pixels[1], images[2]]):
        np.testing.assert_array_equal(bb.embed(same), expected)
    for single in (pictures[0], str(pictures[0]), images[0], pixels[0]):
        assert bb.embed(single).shape == (1, 16)
        np.testing.assert_allclose(bb.embed(single)[0], expected[0], rtol=1e-5)


def test_an_array_of_four_dimensions_is_many_pictures(bb: Backbone) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)
    np.testing.assert_array_equal(bb.embed(stack), bb.embed(list(stack)))


@pytest.mark.parametrize("nothing", [[], (), iter([]), np.empty((0, 8, 8, 3), np.uint8)])
def test_no_pictures_give_no_embeddings(bb: Backbone, nothing: Any) -> None:
    got = bb.embed(nothing)
    assert got.shape == (0, 16)
    assert got.dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 2, 7, 20, 21, 22, 1000])
def test_the_batch_size_changes_no_order_and_no_result(bb: Backbone, pictures: list[Path], batch_size: int) -> None:
    got, expected = bb.embed(pictures, batch_size=batch_size), bb.embed(pictures)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got, bb.embed(pictures, batch_size=batch_size))


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "8"])
def test_batch_sizes_that_make_no_sense(bb: Backbone, batch_size: Any) -> None:
    with pytest.raises(OptionError, match="batch_size must be a whole number above 0"):
        bb.embed([], batch_size=batch_size)


def test_progress_counts_up_to_the_total(bb: Backbone, pictures: list[Path]) -> None:
    seen: list[tuple[int, int | None]] = []
    bb.embed(pictures, batch_size=8, progress=lambda done, total: seen.append((done, total)))
    assert seen == [*((done, 21) for done in range(2, 21, 2)), (21, 21)]
    seen.clear()
    bb.embed(iter(pictures[:3]), batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, None), (3, None)]


def test_a_bad_picture_is_named_and_the_threads_end(bb: Backbone, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    for at, batch_size in ((0, 8), (10, 4), (20, 1), (20, 32)):
        listed = [*pictures[:at], tmp_path / "bad.png", tmp_path / "missing.png", *pictures[at:]]
        with pytest.raises(PictureError, match=r"bad\.png must be a picture"):
            bb.embed(listed, batch_size=batch_size)
    with pytest.raises(MissingFileError, match=r"missing\.png must exist"):
        bb.embed([*pictures, tmp_path / "missing.png"])
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fieldshot")]


def test_a_bad_array_is_named_by_its_number(bb: Backbone) -> None:
    good, bad = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32)
    with pytest.raises(PictureError, match=r"^picture 2: array must be uint8 .*Hint: convert values"):
        bb.embed([good, good, bad, good, bad])
    with pytest.raises(PictureError, match=r"^array must be uint8"):
        bb.embed(bad)
    with pytest.raises(PictureError, match=r"images must be a picture or an iterable"):
        bb.embed(5)


def test_an_error_in_progress_ends_the_threads(bb: Backbone, pictures: list[Path]) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bb.embed(pictures, batch_size=2, progress=stop)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fieldshot")]


def test_memory_is_bounded(bb: Backbone) -> None:
    """Of 200 items never more than two groups of at most 16 are taken ahead of the embeddings that came out."""
    taken, done = 0, 0

    def items() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            assert taken - done <= 3 * 16
            yield np.full((8, 8, 3), taken % 256, np.uint8)

    def progress(now: int, total: int | None) -> None:
        nonlocal done
        done = now

    assert len(bb.embed(items(), batch_size=4, progress=progress)) == 200


def test_embed_with_reads_in_threads_and_keeps_the_order(bb: Backbone, pictures: list[Path]) -> None:
    threads = set()

    def look(item: tuple[int, Path]) -> np.ndarray:
        threads.add(threading.current_thread())
        return read(item[1])

    got = bb.embed_with(list(enumerate(pictures)), look, batch_size=4)
    np.testing.assert_allclose(got, bb.embed(pictures), rtol=1e-4, atol=1e-5)
    assert threading.main_thread() not in threads
    threads.clear()
    bb.embed_with([(0, pictures[0])], look)
    assert threads == {threading.current_thread()}  # one picture needs no threads


def test_many_threads_may_embed_at_once(bb: Backbone, pictures: list[Path]) -> None:
    expected = bb.embed(pictures, batch_size=4)
    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(lambda _: bb.embed(pictures, batch_size=4), range(12)):
            np.testing.assert_array_equal(got, expected)


def test_one_lazily_opened_image_may_stand_twice(bb: Backbone, pictures: list[Path]) -> None:
    for _ in range(5):
        with Image.open(pictures[0]) as image:
            got = bb.embed([image] * 8)
        np.testing.assert_array_equal(got, np.repeat(got[:1], 8, axis=0))


def test_results_are_deterministic(tiny_bundle: Path, pictures: list[Path]) -> None:
    first, second = Backbone.load(tiny_bundle), Backbone.load(tiny_bundle)
    np.testing.assert_array_equal(first.embed(pictures), second.embed(pictures))


def test_threads(tiny_bundle: Path, pictures: list[Path]) -> None:
    one = Backbone.load(tiny_bundle, threads=1)
    assert one.info()["engine"]["threads"] == 1
    np.testing.assert_allclose(one.embed(pictures), Backbone.load(tiny_bundle).embed(pictures), rtol=1e-4, atol=1e-5)
    for threads in (0, -2, True, "2"):
        with pytest.raises(OptionError, match="threads must be a whole number above 0"):
            Backbone.load(tiny_bundle, threads=threads)  # type: ignore[arg-type]


def test_engines(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSHOT_DEVICE", "host")
    for engine in ("auto", "onnxruntime"):
        assert Backbone.load(tiny_bundle, engine).engine == "onnxruntime"
    with pytest.raises(ValueError, match=r"one of auto, onnxruntime, tensorrt \(got 'tensorflow'\)"):
        Backbone.load(tiny_bundle, engine="tensorflow")


def test_without_tensorrt_the_error_says_what_to_install(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("fieldshot.backbone.tensorrt")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependencyError, match=r"TensorRT 10.3 or newer must .*Hint: JetPack brings"):
        Backbone.load(tiny_bundle, engine="tensorrt")
    monkeypatch.setattr("fieldshot.backbone.choice.find_device", lambda index: None)  # as where there is one
    auto = Backbone.load(tiny_bundle)
    assert auto.engine == "onnxruntime"
    assert auto.info()["engine"]["passed over"].startswith("tensorrt: TensorRT 10.3 or newer must be installed")


def test_without_onnxruntime_the_error_says_what_to_install(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        Backbone.load(tiny_bundle)


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.fieldshot must exist"):
        Backbone.load(tmp_path / "none.fieldshot")


def test_the_embedded_backbone_is_named_when_it_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldshot.backbone, "_DEFAULT", tmp_path / "default.fieldshot")
    with pytest.raises(BundleError, match=r"embedded backbone .*Hint: reinstall"):
        Backbone.default()
    write_tiny_bundle(tmp_path / "default.fieldshot")
    embedded = Backbone.default(threads=1)
    assert embedded.path is None
    assert embedded.info()["path"] is None


def rewritten(path: Path, network: bytes, embeddings: Callable[[np.ndarray], np.ndarray], **bounds: float) -> Path:
    """A tiny bundle whose verification embeddings were changed."""
    tensors = load(verification(tiny_onnx(), TINY_PREPROCESSING))
    tensors["embeddings"] = embeddings(tensors["embeddings"]).astype(np.float32)
    Bundle.write(
        path,
        name="tiny",
        licence="MIT",
        source="tests",
        dim=16,
        preprocessing=TINY_PREPROCESSING,
        verify={"float32": {"cosine": 0.9999, "max_abs": 0.001, **bounds}},
        files={"backbone.onnx": network, "verify.safetensors": save(tensors)},
    )
    return path


def test_an_engine_that_gives_other_embeddings_is_refused(tmp_path: Path) -> None:
    def turned(z: np.ndarray) -> np.ndarray:
        return z[:, ::-1].copy()

    def longer(z: np.ndarray) -> np.ndarray:
        return z * np.float32(1.01)

    path = rewritten(tmp_path / "turned.fieldshot", tiny_onnx(), turned, max_abs=10)
    with pytest.raises(EngineError, match=r"onnxruntime must reproduce .*turned\.fieldshot with a cosine of 0\.9999"):
        Backbone.load(path)
    path = rewritten(tmp_path / "longer.fieldshot", tiny_onnx(), longer)
    with pytest.raises(EngineError, match=r"differences up to 0\.001 \(got 1\.000000 and 0\.00990"):
        Backbone.load(path)
    assert Backbone.load(rewritten(tmp_path / "near.fieldshot", tiny_onnx(), longer, max_abs=0.01)).dim == 16
    assert Backbone.load(rewritten(tmp_path / "same.fieldshot", tiny_onnx(), lambda z: z, cosine=1)).dim == 16


def test_a_precision_is_a_network_of_its_own(tmp_path: Path, pictures: list[Path]) -> None:
    path = write_tiny_bundle(tmp_path / "both.fieldshot", others={"backbone.int8.onnx": coarse(tiny_onnx())})
    full, low = Backbone.load(path), Backbone.load(path, precision="int8")
    assert (full.precision, low.precision) == ("float32", "int8")
    assert low.info()["engine"]["precision"] == "int8"
    assert low.contract == low.bundle.contract("int8") != full.contract
    assert low.with_views(2).contract == f"{low.contract}-2-views"
    got = low.embed(pictures, batch_size=len(pictures))
    np.testing.assert_array_equal(got, bare(coarse(tiny_onnx()), pictures, TINY_PREPROCESSING))
    assert np.abs(got - full.embed(pictures)).max() > 1e-4


def test_a_precision_that_is_not_there(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"must hold its network in int8 \(got float32\)\. Hint: leave .*export"):
        Backbone.load(tiny_bundle, precision="int8")
    with pytest.raises(OptionError, match=r"precision must be one of float32, float16, int8 .*got 'int4'"):
        Backbone.load(tiny_bundle, precision="int4")


def test_the_bounds_are_those_of_the_precision(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "other.fieldshot", others={"backbone.int8.onnx": tiny_onnx(seed=1)})
    assert Backbone.load(path).precision == "float32"
    with pytest.raises(
        EngineError, match=r"must reproduce .* with a cosine of 0\.99 or more and differences up to 0\.1"
    ):
        Backbone.load(path, precision="int8")


def changed_onnx(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(tiny_onnx())
    change(model)
    return model.SerializeToString()


def test_a_network_that_gives_nan_is_refused(tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "b1")
        bias.CopyFrom(numpy_helper.from_array(np.full(12, np.nan, np.float32), "b1"))

    path = rewritten(tmp_path / "nan.fieldshot", changed_onnx(spoil), lambda z: z)
    with pytest.raises(EngineError, match="got NaN or infinity"):
        Backbone.load(path)


def test_a_network_of_another_form_is_refused(tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = model.graph.input[0].name = "data"

    path = rewritten(tmp_path / "name.fieldshot", changed_onnx(rename), lambda z: z)
    with pytest.raises(BundleError, match=r"must have the float32 input 'input' .*\(got data and embedding\)"):
        Backbone.load(path)
    path = rewritten(tmp_path / "junk.fieldshot", b"no onnx", lambda z: z)
    with pytest.raises(BundleError, match=r"backbone\.onnx must load in ONNX Runtime"):
        Backbone.load(path)
    path = rewritten(tmp_path / "dim.fieldshot", tiny_onnx(dim=8), lambda z: z)
    with pytest.raises(EngineError, match=r"of shape \(3, 16\) \(got \(3, 8\)\)"):
        Backbone.load(path)


def test_a_failing_run_is_an_engine_error(tmp_path: Path) -> None:
    """A network of a fixed batch of 3: the verification pictures pass, another number does not."""
    shape = numpy_helper.from_array(np.array([3, 16], np.int64), "shape")

    def fix(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "flat"
        model.graph.initializer.append(shape)
        model.graph.node.append(helper.make_node("Reshape", ["flat", "shape"], ["embedding"]))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [3, 16]))

    bb = Backbone.load(rewritten(tmp_path / "fixed.fieldshot", changed_onnx(fix), lambda z: z))
    with pytest.raises(EngineError, match=r"must run a batch of shape \(2, 3, 32, 32\).*Hint"):
        bb.embed(np.zeros((2, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_equal_a_bare_session(shared: Path, tmp_path: Path, name: str) -> None:
    side, dim = NETWORKS[name]
    network = (shared / "models" / f"{name}.onnx").read_bytes()
    spec = Preprocessing(size=(side, side), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    bb = Backbone.load(write_bundle(tmp_path / f"{name}.fieldshot", network, name=name, dim=dim, preprocessing=spec))
    paths = [*find(shared / "data/trashnet/glass")[:4], *find(shared / "data/pcb6/open")[:3]]
    got = bb.embed(paths, batch_size=len(paths))
    assert got.shape == (7, dim)
    np.testing.assert_array_equal(got, bare(network, paths, spec))
    for batch_size in (1, 3):
        other = bb.embed(paths, batch_size=batch_size)
        assert np.abs(other - got).max() <= 1e-4 * np.abs(got).max()
