"""Preprocessing: Pillow's resize to the bit, the stated normalisation, and refusals of values that make no sense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fieldshot.errors import BundleError, PictureError
from fieldshot.images import Preprocessing

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SIDES = st.integers(1, 90)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def seen_by_pillow(pixels: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """What docs/bundle.md says, written plainly: uint8 (height, width, 3) before normalisation."""
    (height, width), (to_height, to_width) = pixels.shape[:2], (round(side / spec.crop) for side in spec.size)
    if spec.resize == "shortest":
        if to_height / height >= to_width / width:
            to_width = int(to_height * width / height + 1e-9)
        else:
            to_height = int(to_width * height / width + 1e-9)
    image = Image.fromarray(pixels).resize((to_width, to_height), FILTERS[spec.interpolation])
    top, left = round((to_height - spec.size[0]) / 2), round((to_width - spec.size[1]) / 2)
    return np.asarray(image)[top : top + spec.size[0], left : left + spec.size[1]]


def undo(inputs: np.ndarray, spec: Preprocessing) -> np.ndarray:
    values = inputs * np.reshape(spec.std, (3, 1, 1)) + np.reshape(spec.mean, (3, 1, 1))
    return (values * 255).round().astype(np.uint8).transpose(1, 2, 0)


@settings(deadline=None, max_examples=150)
@given(
    height=SIDES,
    width=SIDES,
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["shortest", "stretch"]),
    crop=st.sampled_from([1.0, 0.875, 0.9, 0.5]),
    interpolation=st.sampled_from(sorted(FILTERS)),
)
def test_resize_and_crop_equal_pillow_to_the_bit(
    height: int, width: int, size: tuple[int, int], resize: Any, crop: float, interpolation: Any
) -> None:
    spec = Preprocessing(size=size, resize=resize, crop=crop, interpolation=interpolation)
    pixels = noise(height, width)
    got = spec.apply(pixels)
    assert got.shape == (3, *size)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(undo(got, spec), seen_by_pillow(pixels, spec))


def test_a_picture_of_the_right_size_is_only_normalised() -> None:
    pixels = noise(32, 48)
    spec = Preprocessing(size=(32, 48), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(spec.apply(pixels), expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_channels_may_be_turned() -> None:
    pixels = noise(8, 8)
    rgb = Preprocessing(size=(8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)).apply(pixels)
    bgr = Preprocessing(size=(8, 8), channels="BGR", mean=(0.3, 0.2, 0.1), std=(0.7, 0.6, 0.5)).apply(pixels)
    np.testing.assert_array_equal(bgr, rgb[::-1])


def test_an_image_gives_the_same_as_its_pixels() -> None:
    for height, width in ((20, 30), (8, 8)):
        pixels, spec = noise(height, width), Preprocessing(size=(8, 8), crop=0.8, mean=(0.5, 0.5, 0.5))
        np.testing.assert_array_equal(spec.apply(Image.fromarray(pixels)), spec.apply(pixels))


def test_out_is_filled_and_returned() -> None:
    spec, pixels = Preprocessing(size=(8, 8), mean=(0.5, 0.5, 0.5)), noise(20, 30)
    batch = np.full((2, 3, 8, 8), np.nan, np.float32)
    got = spec.apply(pixels, batch[1])
    assert np.shares_memory(got, batch)
    np.testing.assert_array_equal(batch[1], spec.apply(pixels))
    assert np.isnan(batch[0]).all()


def test_the_input_is_left_as_it_was() -> None:
    pixels = noise(8, 8)
    before = pixels.copy()
    Preprocessing(size=(8, 8)).apply(pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("spec", "height", "width", "expected"),
    [
        (Preprocessing(size=(224, 224)), 384, 512, (224, 298)),
        (Preprocessing(size=(224, 224)), 512, 384, (298, 224)),
        (Preprocessing(size=(224, 224), crop=0.875), 300, 400, (256, 341)),
        (Preprocessing(size=(100, 50)), 10, 20, (100, 200)),
        (Preprocessing(size=(50, 100)), 10, 10, (100, 100)),
        (Preprocessing(size=(50, 100), resize="stretch", crop=0.5), 7, 9, (100, 200)),
    ],
)
def test_resized(spec: Preprocessing, height: int, width: int, expected: tuple[int, int]) -> None:
    assert spec.resized(height, width) == expected


def test_a_thread_of_pixels_does_not_fill_the_memory() -> None:
    with pytest.raises(PictureError, match=r"long and narrow \(got 500000 x 1\)"):
        Preprocessing(size=(224, 224)).apply(noise(1, 500_000))


def test_json_there_and_back() -> None:
    spec = Preprocessing(size=(160, 192), resize="stretch", crop=0.9, interpolation="lanczos", channels="BGR")
    assert Preprocessing.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_equal_values_have_one_spelling() -> None:
    whole = Preprocessing(size=(8, 8), crop=1, mean=(0, 0, 0), std=(1, 1, 1))  # whole numbers for floats
    assert json.dumps(whole.to_json()) == json.dumps(Preprocessing(size=(8, 8)).to_json())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", [224]),
        ("size", [224, 0]),
        ("size", [224.0, 224]),
        ("size", [True, 224]),
        ("size", [100_000, 100_000]),
        ("size", "22"),
        ("size", None),
        ("resize", "longest"),
        ("resize", ["shortest"]),
        ("crop", 0),
        ("crop", 1.5),
        ("crop", float("nan")),
        ("crop", "1"),
        ("interpolation", "cubic"),
        ("interpolation", {}),
        ("channels", "RGBA"),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("nan")]),
        ("mean", 0.5),
        ("std", [0.5, 0.5, 0.0]),
        ("std", [0.5, 0.5, -1.0]),
        ("std", [0.5, 0.5, 10**400]),
    ],
)
def test_values_that_make_no_sense(field: str, value: object) -> None:
    values = {**Preprocessing(size=(224, 224)).to_json(), field: value}
    with pytest.raises(BundleError, match=rf"preprocessing {field} must be .*Hint: "):
        Preprocessing.from_json(values)


def test_every_field_and_no_other() -> None:
    values = Preprocessing(size=(8, 8)).to_json()
    with pytest.raises(BundleError, match="check gamma"):
        Preprocessing.from_json({**values, "gamma": 1})
    del values["crop"]
    with pytest.raises(BundleError, match="check crop"):
        Preprocessing.from_json(values)
    with pytest.raises(BundleError, match="must be an object"):
        Preprocessing.from_json([1, 2])
