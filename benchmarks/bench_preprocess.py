"""What it costs to make a picture ready for the network, beside Pillow's resize and crop and NumPy's normalisation.

Both begin with what a decoder left, an image of Pillow's, or with an array as a camera gives it, and end with float32
planes, on one core; large ones are shared among threads too.

Floor on one core, of the rows and columns that the crop is made of: 3 bytes a pixel read, 3 rows x width x taps integer
multiply-adds along rows, 3 height x width x taps down columns, 12 bytes a pixel of the output written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import bare
from fieldshot.images import Preprocessing
from fieldshot.ops.pictures import prepare
from fieldshot.system import cores
from turns import Compare

FRAMES = {"4K": (2160, 3840), "1080p": (1080, 1920), "512x384": (384, 512), "12MP": (3000, 4000), "100x100": (100, 100)}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("lying", ["image", "array"])
@pytest.mark.parametrize("frame", ["1080p", "512x384", "12MP", "100x100"])
def bench_preprocess(
    benchmark: Any, compare: Compare, one_core: None, frame: str, lying: str, interpolation: Any
) -> None:
    """To 224 x 224, not slower than Pillow and NumPy."""
    pixels = np.random.default_rng(0).integers(0, 256, (*FRAMES[frame], 3), np.uint8)
    picture = Image.fromarray(pixels) if lying == "image" else pixels
    spec = Preprocessing(size=(224, 224), interpolation=interpolation, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    inputs = np.empty((3, 224, 224), np.float32)
    turns = compare(
        1,
        ours=lambda: prepare(picture, spec, inputs),
        pillow_numpy=lambda: bare.preprocess(picture, spec),
    )
    benchmark.pedantic(prepare, (picture, spec, inputs), rounds=5)
    np.testing.assert_array_equal(inputs, bare.preprocess(picture, spec))
    assert turns.ratio("ours", "pillow_numpy") < 1


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
@pytest.mark.parametrize("frame", ["1080p", "4K"])
def bench_preprocess_shared(benchmark: Any, compare: Compare, frame: str) -> None:
    """A lone frame of a camera is ready sooner by two threads than by one."""
    pixels = np.random.default_rng(0).integers(0, 256, (*FRAMES[frame], 3), np.uint8)
    spec = Preprocessing(size=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    inputs, alone = np.empty((2, 3, 224, 224), np.float32)
    turns = compare(
        2,
        ours=lambda: prepare(pixels, spec, inputs, threads=2),
        alone=lambda: prepare(pixels, spec, alone),
    )
    benchmark.pedantic(prepare, (pixels, spec, inputs), {"threads": 2}, rounds=5)
    np.testing.assert_array_equal(inputs, alone)
    assert turns.ratio("ours", "alone") < 1
