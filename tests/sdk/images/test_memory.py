"""Pixels of arrays and of Pillow's images where they lie."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest
from PIL import Image

from fieldshot.images import pixels_in_place


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_an_image_lends_its_memory() -> None:
    expected, image = noise(20, 30), Image.fromarray(noise(20, 30))
    pixels = pixels_in_place(image)
    assert pixels is not None
    pixels = np.asarray(pixels)
    np.testing.assert_array_equal(pixels, expected)
    assert not pixels.flags.writeable
    image.putpixel((3, 5), (1, 2, 3))
    assert pixels[5, 3].tolist() == [1, 2, 3]  # no copy


def test_what_was_lent_outlives_the_image() -> None:
    part = np.asarray(pixels_in_place(Image.fromarray(noise(300, 200))).part(slice(10, 20), slice(5, 150)))
    gc.collect()
    others = [Image.new("RGB", (200, 300), "white") for _ in range(9)]
    np.testing.assert_array_equal(part, noise(300, 200)[10:20, 5:150])
    del others


def test_an_image_lends_whatever_another_library_takes_of_capsules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.pythonapi.PyCapsule_GetPointer, "restype", ctypes.c_char_p)
    np.testing.assert_array_equal(pixels_in_place(Image.fromarray(noise(20, 30))), noise(20, 30))


def test_an_image_in_several_pieces_is_not_lent() -> None:
    assert pixels_in_place(Image.new("RGB", (2048, 2048))) is not None
    assert pixels_in_place(Image.new("RGB", (2049, 2048))) is None


@pytest.mark.parametrize("mode", ["L", "I;16", "F"])
def test_an_image_of_other_pixels_is_not_lent(mode: str) -> None:
    assert pixels_in_place(Image.new(mode, (20, 30))) is None


def test_an_array_is_taken_as_it_lies_if_kernels_can_walk_it() -> None:
    whole = noise(20, 30)
    for array in (whole, whole[3:9, 2:5], whole[::2, ::3], np.dstack([whole, whole[..., 0]])[..., :3]):
        pixels = pixels_in_place(array)
        assert pixels.owner is array
        np.testing.assert_array_equal(pixels, array)
    for array in (whole[::-1], whole[:, ::-1], whole[..., ::-1], whole.transpose(1, 0, 2)):
        copy = pixels_in_place(array)
        assert copy.owner is not array
        np.testing.assert_array_equal(copy, array)
