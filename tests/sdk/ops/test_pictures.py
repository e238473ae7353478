"""Pictures made ready on the CPU: by kernels wherever they can, by Pillow elsewhere, and nobody sees a difference."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshot import Backbone
from fieldshot.errors import PictureError
from fieldshot.images import Preprocessing
from fieldshot.ops import pictures, preprocessing
from fieldshot.ops.pictures import at_hand, prepare

SPEC = Preprocessing(size=(20, 30), crop=0.875, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="BGR")

needs_kernels = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the CPU kernels")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was found out once is found out anew."""
    found = pictures._agrees, preprocessing._kept_resize
    for kept in found:
        kept.cache_clear()
    yield
    for kept in found:
        kept.cache_clear()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def prepared(picture: Any, spec: Preprocessing = SPEC) -> np.ndarray:
    out = np.full((3, *spec.size), np.nan, np.float32)
    prepare(picture, spec, out)
    return out


def only_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("Pillow was asked")

    assert pictures._agrees("bilinear")
    assert pictures._agrees("bicubic")
    monkeypatch.setattr(Preprocessing, "apply", fail)


@needs_kernels
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "shape", [(50, 70), (90, 20), (2100, 2050), (1100, 4000), (4500, 1000)], ids=lambda shape: f"{shape[0]}x{shape[1]}"
)
def test_kernels_do_what_pillow_does(monkeypatch: pytest.MonkeyPatch, shape: Any, interpolation: Any) -> None:
    """The larger ones Pillow keeps in several pieces."""
    spec = Preprocessing(size=(40, 56), interpolation=interpolation)
    pixels = noise(*shape)
    expected = spec.apply(pixels)
    only_kernels(monkeypatch)
    np.testing.assert_array_equal(prepared(pixels, spec), expected)
    np.testing.assert_array_equal(prepared(Image.fromarray(pixels), spec), expected)


@needs_kernels
@pytest.mark.parametrize("threads", [2, 3, 50])
def test_threads_share_a_large_picture(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(pictures, "_SHARE_PIXELS", 50)
    expected = SPEC.apply(noise(50, 70))
    only_kernels(monkeypatch)
    started: list[int] = []
    monkeypatch.setattr(pictures, "_prepare_band", _counting(pictures._prepare_band, started))
    for picture in (noise(50, 70), Image.fromarray(noise(50, 70))):
        out = np.full((3, *SPEC.size), np.nan, np.float32)
        prepare(picture, SPEC, out, threads=threads)
        np.testing.assert_array_equal(out, expected)
    assert len(started) == 2 * min(threads, SPEC.size[0])
    tall = Preprocessing(size=(2000, 30))
    with pytest.raises(PictureError, match="long and narrow"):
        prepare(noise(4, 40_000), tall, np.empty((3, *tall.size), np.float32), threads=threads)


def _counting(function: Any, calls: list[int]) -> Any:
    def counted(*arguments: Any, **options: Any) -> None:
        calls.append(1)
        function(*arguments, **options)

    return counted


@needs_kernels
def test_a_picture_at_hand_is_cut_without_a_copy() -> None:
    image = Image.fromarray(noise(50, 70))
    array = at_hand(image)
    assert np.shares_memory(array, at_hand(image))
    np.testing.assert_array_equal(prepared(array[5:40, 3:60]), SPEC.apply(noise(50, 70)[5:40, 3:60]))


@needs_kernels
def test_weights_of_long_sides_are_not_kept() -> None:
    assert pictures._agrees("bilinear")
    before = preprocessing._kept_resize.cache_info().currsize
    for width in (1 << 15, 1 << 15, (1 << 15) + 1):
        prepared(noise(16, width), Preprocessing(size=(8, 8), resize="stretch"))
    assert preprocessing._kept_resize.cache_info().currsize == before + 1


@needs_kernels
def test_embeddings_do_not_tell_who_resized(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [noise(50, 70), Image.fromarray(noise(90, 20)), noise(10, 10)]
    backbones = [Backbone.load(tiny_bundle, views=views) for views in (1, 2, 3)]
    inputs, before = backbones[0].preprocess(given[1]), [backbone.embed(given) for backbone in backbones]
    assert backbones[0].info()["pictures"].startswith("prepared by CPU kernels, host-")
    monkeypatch.setattr(pictures, "_host", lambda: None)
    assert backbones[0].info()["pictures"] == "prepared by Pillow"
    np.testing.assert_array_equal(backbones[0].preprocess(given[1]), inputs)
    for backbone, embeddings in zip(backbones, before, strict=True):
        np.testing.assert_array_equal(backbone.embed(given), embeddings)


@needs_kernels
def test_a_backbone_prepares_by_kernels(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone.load(tiny_bundle)
    only_kernels(monkeypatch)
    assert np.isfinite(backbone.embed([noise(50, 70), noise(40, 40)])).all()
    assert backbone.embed(noise(50, 70)).shape == (1, backbone.dim)
    assert backbone.preprocess(Image.fromarray(noise(50, 70))).shape == (3, *backbone.preprocessing.size)


def test_pillow_serves_where_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_host", lambda: None)
    image = Image.fromarray(noise(50, 70))
    assert at_hand(image) is image
    np.testing.assert_array_equal(prepared(image), SPEC.apply(image))


@needs_kernels
def test_a_pillow_that_resizes_another_way_serves_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preprocessing, "down_first", lambda *sides: True)
    with caplog.at_level(logging.WARNING, "fieldshot"):
        np.testing.assert_array_equal(prepared(noise(50, 70)), SPEC.apply(noise(50, 70)))
        prepared(noise(50, 70))
    assert [record.getMessage() for record in caplog.records] == [
        "pictures are resized by Pillow, slower: this version of it does bilinear another way"
    ]


def test_an_output_that_kernels_cannot_write_is_filled_all_the_same() -> None:
    expected = SPEC.apply(noise(50, 70))
    out = np.empty((20, 30, 3), np.float32).transpose(2, 0, 1)
    prepare(noise(50, 70), SPEC, out)
    np.testing.assert_array_equal(out, expected)


def test_a_thread_of_pixels_is_refused() -> None:
    for picture in (noise(1, 500_000), Image.fromarray(noise(1, 500_000))):
        with pytest.raises(PictureError, match=r"long and narrow \(got 500000 x 1\)"):
            prepared(picture, Preprocessing(size=(224, 224)))
