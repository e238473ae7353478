"""The pictures that a bundle is verified on, and that its feature statistics are taken of.

They are the user's own, or procedural: "dead leaves", discs of random sizes that hide one another, have edges at
all scales and the power spectrum of photographs (Lee, Mumford, Huang, "Occlusion Models for Natural Images: A
Statistical Study of the Scale-Invariant Dead Leaves Model", IJCV 2001): radii distributed as 1 / r^3 between two
bounds make a picture look alike at every scale.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fieldshot import images
from fieldshot.errors import ExportError, MissingFileError, PictureError

Pixels = NDArray[np.uint8]

VERIFY_COUNT, VERIFY_PROCEDURAL_COUNT = 8, 4
STATISTICS_COUNT, STATISTICS_PROCEDURAL_COUNT = 256, 64
CALIBRATE_COUNT, CALIBRATE_LEAST = 64, 8

# Height and width relative to what the network sees: smaller, larger, upright and lying.
_SHAPES = ((1.2, 1.2), (0.75, 1.1), (1.4, 0.9), (0.6, 0.6))

_MAX_SHORTEST, _MAX_LONGEST = 1.5, 3  # sides of a verification picture, in sides of the network's input


@dataclass(frozen=True)
class PictureSet:
    """Pictures to verify with and to take statistics of.

    Parameters
    ----------
    verify : tuple of ndarray of shape (height, width, 3), dtype uint8
        RGB pictures that go into the bundle.
    description : str
        Where they come from, for the manifest.
    others : tuple
        Files or seeds of the further pictures that statistics are taken of; `statistics` reads them.
    size : (int, int)
        Height and width of the network's input.
    """

    verify: tuple[Pixels, ...]
    description: str
    others: tuple[Path, ...] | tuple[int, ...]
    size: tuple[int, int]

    def statistics(self) -> Iterator[Pixels]:
        """Yield the pictures for the statistics one by one; unreadable files are passed over."""
        for other in self.others:
            if isinstance(other, int):
                yield dead_leaves(_scaled(other, self.size), seed=other)
            else:
                try:
                    yield images.read(other)
                except PictureError:
                    continue


def collect(size: tuple[int, int], folder: str | os.PathLike[str] | None = None, *, seed: int = 0) -> PictureSet:
    """Take a seeded sample of a folder's pictures, or make procedural ones.

    Parameters
    ----------
    size : (int, int)
        Height and width of the network's input in pixels.
    folder : path, optional
        Pictures of the user's, also in sub-folders: up to 8 to verify and 256 for the statistics. Without it 4
        and 64 are made.
    seed : int
        Which sample.

    Returns
    -------
    PictureSet
        The pictures.

    Raises
    ------
    MissingFileError
        There is no such folder.
    ExportError
        Fewer than two of its pictures can be read.
    """
    if folder is None:
        seeds = range(STATISTICS_PROCEDURAL_COUNT)
        verify = tuple(dead_leaves(_scaled(s, size), seed=s) for s in seeds[:VERIFY_PROCEDURAL_COUNT])
        return PictureSet(verify, "procedural pictures (dead leaves)", tuple(seeds), size)
    found = _found(folder, "--pictures")
    order = np.random.default_rng(seed).permutation(len(found))[: 2 * STATISTICS_COUNT]
    chosen, kept = [], []
    for path in (found[i] for i in order):
        if len(kept) == VERIFY_COUNT:
            break
        try:
            kept.append(_reduce(images.read(path), size))
            chosen.append(path)
        except PictureError:
            continue
    if len(kept) < 2:
        raise ExportError(
            f"the folder must hold at least 2 pictures that can be read (got {len(kept)} of {len(found)})",
            hint="name a folder of ordinary photographs, or leave --pictures out",
        )
    rest = [found[i] for i in order if found[i] not in chosen]
    others = tuple((chosen + rest)[:STATISTICS_COUNT])
    return PictureSet(tuple(kept), f"{len(kept)} of the exporter's own pictures", others, size)


def calibration(folder: str | os.PathLike[str] | None, chosen: PictureSet, *, seed: int = 0) -> Iterator[Pixels]:
    """Yield up to 64 pictures that show int8 which values to expect.

    Parameters
    ----------
    folder : path or None
        Pictures of the user's, also in sub-folders, of which a seeded sample is taken; those of `chosen` without it.
    chosen : PictureSet
        Pictures of this export.
    seed : int
        Which sample.

    Raises
    ------
    MissingFileError
        There is no such folder.
    ExportError
        Fewer than eight of its pictures can be read; raised after the last of them.
    """
    if folder is None:
        found, given = [], chosen.statistics()
    else:
        found = _found(folder, "--calibrate")
        order = np.random.default_rng(seed).permutation(len(found))
        given = PictureSet((), "", tuple(found[i] for i in order), chosen.size).statistics()
    count = 0
    for picture in islice(given, CALIBRATE_COUNT):
        count += 1
        yield picture
    if count < CALIBRATE_LEAST:
        raise ExportError(
            f"int8 must be calibrated on at least {CALIBRATE_LEAST} pictures that can be read (got {count} of "
            f"{len(found if folder is not None else chosen.others)})",
            hint=f"{CALIBRATE_COUNT} pictures of all that the device will see are sensible: name their folder by "
            "--calibrate",
        )


def _found(folder: str | os.PathLike[str], option: str) -> list[Path]:
    if not os.path.isdir(folder):
        raise MissingFileError(f"the folder of pictures must exist (got {folder})", hint=f"check {option}")
    return sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in images.SUFFIXES and p.is_file())


def dead_leaves(shape: tuple[int, int], *, seed: int) -> Pixels:
    """Cover a picture with discs until hardly anything of the ground is left.

    Parameters
    ----------
    shape : (int, int)
        Height and width in pixels.
    seed : int
        Which picture.

    Returns
    -------
    ndarray of shape (height, width, 3), dtype uint8
        RGB picture. Each disc has one colour, brighter towards one side as if lit from there.
    """
    rng = np.random.default_rng(seed)
    height, width = shape
    smallest, largest = 2.0, 0.4 * max(shape)
    n = 3 * max(shape)
    # Inverse of the distribution function of a density proportional to r^-3 on [smallest, largest].
    u = rng.random(n)
    radii = (smallest**-2 - u * (smallest**-2 - largest**-2)) ** -0.5
    # A few large discs first, so that the small ones lie on leaves and not on bare ground.
    radii[:12] = rng.uniform(0.2, 0.6, 12) * max(shape)
    centres = rng.random((n, 2)) * shape
    # Colours of one picture keep to its own brightness and saturation, as under one light.
    grey, spread = rng.uniform(60, 190), rng.uniform(10, 70)
    colours = grey + rng.normal(0, 45, (n, 1)) + rng.normal(0, spread, (n, 3))
    slopes = rng.normal(0, 25, (n, 2))
    canvas = np.full((height, width, 3), grey)
    for (y, x), radius, colour, (dy, dx) in zip(centres, radii, colours, slopes, strict=True):
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        bottom, right = min(height, int(y + radius) + 1), min(width, int(x + radius) + 1)
        rows = (np.arange(top, bottom)[:, None] - y) / radius
        columns = (np.arange(left, right)[None, :] - x) / radius
        inside = rows**2 + columns**2 <= 1
        light = (dy * rows + dx * columns)[..., None]
        canvas[top:bottom, left:right][inside] = (colour + light)[inside]
    return np.clip(canvas, 0, 255).round().astype(np.uint8)


def _scaled(seed: int, size: tuple[int, int]) -> tuple[int, int]:
    height, width = _SHAPES[seed % len(_SHAPES)]
    return max(8, round(height * size[0])), max(8, round(width * size[1]))


def _reduce(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bring a picture down to what keeps the bundle small, its proportions kept but for extreme ones."""
    scale = min(1.0, _MAX_SHORTEST * max(size) / min(pixels.shape[:2]))
    if scale < 1:
        height, width = (max(1, round(scale * side)) for side in pixels.shape[:2])
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3)
        pixels = np.asarray(resized)
    limit = _MAX_LONGEST * max(size)
    top, left = ((side - min(side, limit)) // 2 for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + limit, left : left + limit])
