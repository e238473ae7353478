"""What it costs to make a picture ready for the network, beside Pillow's resize and crop and NumPy's normalisation.

Both begin with what a decoder left, an image of Pillow's, or with an array as a camera gives it, and end with float32
planes. Medians of sides that take turns in one process, on one thread.

Floor on one core, of the rows and columns that the crop is made of: 3 bytes a pixel read, 3 rows x width x taps integer
multiply-adds along rows, 3 height x width x taps down columns, 12 bytes a pixel of the output written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshot.images import Preprocessing
from fieldshot.ops.pictures import prepare
from turns import in_turn

FRAMES = {"1080p": (1080, 1920), "photograph": (384, 512), "12 megapixels": (3000, 4000), "small": (100, 100)}


def pillow(picture: Any, spec: Preprocessing, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The plainest way, and the quickest with these two: a resize, a crop, a multiplication and an addition."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    to_height, to_width, top, left = spec.placed(image.height, image.width)
    image = image.resize((to_width, to_height), Image.Resampling[spec.interpolation.upper()])
    seen = np.asarray(image.crop((left, top, left + spec.size[1], top + spec.size[0]))).transpose(2, 0, 1)
    inputs = np.multiply(seen, scale, dtype=np.float32)
    return np.add(inputs, shift, out=inputs)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("lying", ["image", "array"])
@pytest.mark.parametrize("frame", FRAMES)
def bench_preprocess(benchmark: Any, frame: str, lying: str, interpolation: Any) -> None:
    """To 224 x 224, not slower than Pillow and NumPy."""
    pixels = np.random.default_rng(0).integers(0, 256, (*FRAMES[frame], 3), np.uint8)
    picture = Image.fromarray(pixels) if lying == "image" else pixels
    spec = Preprocessing(size=(224, 224), interpolation=interpolation, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    scale, shift = np.full((3, 1, 1), 1 / 127.5, np.float32), np.full((3, 1, 1), -1, np.float32)
    inputs = np.empty((3, 224, 224), np.float32)
    times = in_turn(
        3,
        pillow=lambda: pillow(picture, spec, scale, shift),
        fieldshot=lambda: prepare(picture, spec, inputs),
    )
    share = times["fieldshot"] / times["pillow"]
    benchmark.extra_info.update(times, share_of_pillow=share)
    benchmark.pedantic(prepare, (picture, spec, inputs), rounds=5)
    np.testing.assert_array_equal(inputs, pillow(picture, spec, scale, shift))
    assert share < 1, f"{share:.2f} of Pillow's {times['pillow']:.2f} ms"
