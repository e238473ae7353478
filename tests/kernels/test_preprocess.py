"""One suite for every build: pictures come to the network as Pillow and NumPy bring them, to the bit.

test_builds.py runs it again on the builds that need a process of their own.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fieldshot.errors import PictureError
from fieldshot.images import Preprocessing, pixels_in_place

FILTERS = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pycuda")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Also black and white, which the wider filters overshoot."""
    rng = np.random.default_rng(seed + height * width)
    levels = [0, 255] if (height + width) % 2 else 256
    return rng.choice(levels, (height, width, 3)).astype(np.uint8)


def seen_by_pillow(pixels: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Resize and crop of docs/bundle.md, and its normalisation in float64: (3, height, width)."""
    (height, width), (to_height, to_width) = pixels.shape[:2], (round(side / spec.crop) for side in spec.size)
    if spec.resize == "shortest":
        if to_height / height >= to_width / width:
            to_width = int(to_height * width / height + 1e-9)
        else:
            to_height = int(to_width * height / width + 1e-9)
    image = Image.fromarray(pixels).resize((to_width, to_height), Image.Resampling[spec.interpolation.upper()])
    top, left = round((to_height - spec.size[0]) / 2), round((to_width - spec.size[1]) / 2)
    seen = np.asarray(image)[top : top + spec.size[0], left : left + spec.size[1]].transpose(2, 0, 1)
    seen = seen[::-1] if spec.channels == "BGR" else seen
    return (seen / 255 - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))


def assert_conforms(ops: Any, pictures: list[np.ndarray], spec: Preprocessing) -> None:
    got = ops.preprocess(pictures, spec)
    assert got.shape == (len(pictures), 3, *spec.size)
    assert got.dtype == np.float32
    for inputs, pixels in zip(got, pictures, strict=True):
        np.testing.assert_allclose(inputs, seen_by_pillow(pixels, spec), rtol=0, atol=2e-6)
        np.testing.assert_array_equal(inputs, spec.apply(pixels))


SHAPES = [(1, 1), (1, 9), (9, 1), (7, 7), (8, 33), (33, 47), (5, 160), (150, 9), (60, 80)]


@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_batch_of_many_sizes(ops: Any, interpolation: Any) -> None:
    """Some only normalised, some cropped, larger and smaller, tall enough for Pillow to begin with the columns."""
    spec = Preprocessing(
        size=(9, 35),
        resize="stretch",
        crop=0.9,
        interpolation=interpolation,
        channels="BGR",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    assert_conforms(ops, [noise(*shape) for shape in [*SHAPES, (10, 39)]], spec)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (3, 1600, (2, 3)),  # past what the host has at hand of a line
        (1600, 3, (2, 3)),
        (700, 70, (1, 1)),
        (5, 4, (40, 37)),
        (2, 90, (90, 2)),
        (90, 2, (2, 90)),
        (40, 40, (67, 11)),
        (70, 70, (11, 67)),
    ],
)
def test_far_down_and_up(ops: Any, height: int, width: int, size: tuple[int, int]) -> None:
    spec = Preprocessing(
        size=size, resize="stretch", interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    assert_conforms(ops, [noise(height, width)], spec)


@settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=3),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["shortest", "stretch"]),
    crop=st.sampled_from([1.0, 0.875, 0.5]),
    interpolation=st.sampled_from(FILTERS),
)
def test_any_sizes(ops: Any, shapes: Any, size: Any, resize: Any, crop: float, interpolation: Any) -> None:
    spec = Preprocessing(size=size, resize=resize, crop=crop, interpolation=interpolation, std=(0.1, 0.2, 0.3))
    assert_conforms(ops, [noise(*shape) for shape in shapes], spec)


def test_pixels_that_lie_another_way(ops: Any) -> None:
    pixels, spec = noise(30, 50), Preprocessing(size=(8, 8), crop=0.8)
    wide = np.dstack([pixels, pixels[..., :1]])
    lying = {
        "apart": np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)[::2, ::2],
        "four bytes a pixel": wide[..., :3],
        "behind a first byte": np.dstack([pixels[..., :1], pixels])[..., 1:],
        "a part": np.pad(pixels, ((3, 2), (4, 1), (0, 0)))[3:-2, 4:-1],
        "mirrored": pixels[::-1, ::-1].copy()[::-1, ::-1],
        "blue first": pixels[..., ::-1].copy()[..., ::-1],
        "channels first": pixels.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        "columns first": pixels.transpose(1, 0, 2).copy().transpose(1, 0, 2),
        "an image": Image.fromarray(pixels),
    }
    for name, inputs in zip(lying, ops.preprocess(list(lying.values()), spec), strict=True):
        np.testing.assert_array_equal(inputs, spec.apply(pixels), err_msg=name)


def test_one_row_stands_for_all(ops: Any) -> None:
    pixels, spec = noise(1, 40), Preprocessing(size=(8, 8))
    (inputs,) = ops.preprocess([np.broadcast_to(pixels, (20, 40, 3))], spec)
    np.testing.assert_array_equal(inputs, spec.apply(np.repeat(pixels, 20, axis=0)))


def test_an_image_that_does_not_lend_its_memory(ops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(noise(30, 50))
    expected = Preprocessing(size=(8, 8)).apply(image)
    monkeypatch.setattr(Image.Image, "__arrow_c_array__", refuse)
    assert pixels_in_place(image) is None
    np.testing.assert_array_equal(ops.preprocess([image], Preprocessing(size=(8, 8)))[0], expected)


def refuse(image: Image.Image) -> None:
    raise ValueError("Image is in multiple array blocks")


def test_no_pictures(ops: Any) -> None:
    assert ops.preprocess([], Preprocessing(size=(8, 9))).shape == (0, 3, 8, 9)


def test_a_thread_of_pixels(ops: Any) -> None:
    with pytest.raises(PictureError, match=r"long and narrow \(got 500000 x 1\)"):
        ops.preprocess([noise(1, 500_000)], Preprocessing(size=(224, 224)))


def test_the_order_of_lanes_and_blocks_changes_no_bit(ops: Any) -> None:
    if ops.name != "race":
        pytest.skip("only the check machine shuffles its lanes")
    pictures, spec = [noise(33, 47), noise(90, 20)], Preprocessing(size=(20, 40), resize="stretch")
    results = set()
    for seed in range(3):
        ops.runner.library.fieldshot_check_seed(seed)
        results.add(ops.preprocess(pictures, spec).tobytes())
    assert len(results) == 1


GUARDED = """
import ctypes, mmap
import numpy as np
from fieldshot.images import Preprocessing
from fieldshot.ops.host import HostOps

room = mmap.mmap(-1, 2 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(room))
pages = np.frombuffer(room, np.uint8)
assert ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
for height, width in ((1, 1), (1, 40), (40, 1), (20, 30), (60, 10), (3, 400), (400, 3)):
    size = 3 * height * width
    pixels = pages[mmap.PAGESIZE - size : mmap.PAGESIZE].reshape(height, width, 3)
    pixels[:] = np.arange(size).reshape(pixels.shape) % 251
    for resize in ("shortest", "stretch"):
        spec = Preprocessing(size=(8, 9), resize=resize, interpolation="bicubic")
        np.testing.assert_array_equal(HostOps().preprocess([pixels], spec)[0], spec.apply(pixels))
print("whole")
"""


def test_nothing_is_read_behind_the_last_pixel(ops: Any) -> None:
    """The host build reads four bytes where a pixel has three: here a page that nobody may touch lies behind it."""
    if ops.name != "host":
        pytest.skip("the other builds check bounds themselves")
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True)
    assert done.stdout == "whole\n", done.stderr[-2000:]
    assert done.returncode == 0
