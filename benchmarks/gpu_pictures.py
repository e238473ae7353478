"""Preprocessing on a CUDA device: its bits against Pillow's, how long camera frames take, and the floor of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fieldshot.images import Preprocessing
from fieldshot.images.resampling import axis_of
from fieldshot.ops import Ops
from gpu_timing import Case, Floor

# (height, width) of pictures: lone pixels, lines, portraits that Pillow resizes from top to bottom first, photographs.
SHAPES = [(1, 1), (1, 90), (90, 1), (7, 9), (60, 20), (33, 47), (150, 70)]
LARGE = [(480, 640), (1080, 1920), (1920, 800), (2000, 3000), (30, 9000), (9000, 30)]
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


def differing(ops: Ops, seed: int, *, quick: bool) -> list[str]:
    """Batches of random pictures of many sizes that do not come out as Pillow and NumPy have them, to the bit."""
    rng = np.random.default_rng(seed)
    shapes = [*SHAPES, *([] if quick else LARGE)]
    pictures = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    wrong = []
    for interpolation in INTERPOLATIONS:
        for size in [(9, 35)] if quick else [(1, 1), (9, 35), (96, 96), (224, 224), (384, 160)]:
            spec = Preprocessing(size, "stretch", 0.875, interpolation, "BGR", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
            expected = np.stack([spec.apply(picture) for picture in pictures])
            if not np.array_equal(ops.preprocess(pictures, spec), expected):
                wrong.append(f"{interpolation} to {size[0]} x {size[1]}")
    return wrong


def case(
    bench: Any, count: int, height: int, width: int, side: int, interpolation: Any, random: np.random.Generator
) -> Case:
    """So many frames of a camera to the input of a network."""
    frames = random.integers(0, 256, (count, height, width, 3), np.uint8)
    spec = Preprocessing((side, side), interpolation=interpolation, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    sides: dict[str, Callable[[], object]] = bench.operations(lambda ops: ops.preprocess(list(frames), spec))
    to_height, to_width, top, left = spec.placed(height, width)
    if bench.baselines:
        sides |= bench.beside(
            "torch",
            lambda: bench.baselines.preprocess_sides(frames, (to_height, to_width), (top, left, side), interpolation),
        )
    down = axis_of(interpolation, height, to_height, top, side)
    across = axis_of(interpolation, width, to_width, left, side)
    rows, columns = down.last - down.first, across.last - across.first
    read, written = 3 * rows * columns, 12 * side * side
    operations = 2 * 3 * side * (rows * across.taps + side * down.taps)
    name = f"preprocess, {count} of {width} x {height} to {side} x {side}, {interpolation}"
    return Case(name, sides, Floor(count * (read + written), count * (read + written), count * operations))
