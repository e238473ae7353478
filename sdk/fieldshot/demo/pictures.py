"""Pictures to show the main job with: a folder of classes, or photographs and digits out of packages."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fieldshot import images
from fieldshot.errors import MissingDependencyError, PictureError

__all__ = ["Task", "from_folder", "from_packages"]

# Photographs that scikit-image carries (public domain or CC0, see its data folder) and scikit-learn's two.
_SCIKIT_IMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg"),
    "rocket.jpg",
)
_SCIKIT_LEARN = ["china.jpg", "flower.jpg"]
_SUPPORT, _QUERY = 40, 10  # pictures a class to learn from and to recognise


@dataclass(frozen=True)
class Task:
    """Classes with pictures to learn from and others to recognise.

    Attributes
    ----------
    name : str
    support, query : dict of str to list of pictures
        Per label, anything that `Recognizer.enroll` takes.
    """

    name: str
    support: dict[str, list[Any]]
    query: dict[str, list[Any]]


def from_folder(folder: Path, seed: int = 0) -> Task:
    """Half the pictures of each class to learn from, the other half (at most 10) to recognise.

    Raises
    ------
    PictureError
        For fewer than two classes, or a class with a single picture.
    """
    classes = images.find_classes(folder)
    if len(classes) < 2:
        raise PictureError(
            f"{folder} must have at least two classes (got {len(classes)})", hint="add a folder of pictures of another"
        )
    rng = np.random.default_rng(seed)
    support, query = {}, {}
    for label, paths in classes.items():
        if len(paths) < 2:
            raise PictureError(
                f"class {label!r} must have at least two pictures (got {len(paths)})",
                hint="one is learned from, another recognised: add one",
            )
        order = [paths[i] for i in rng.permutation(len(paths))]
        half = len(order) // 2
        support[label], query[label] = order[:half], order[half:][:_QUERY]
    return Task(folder.name, support, query)


def from_packages(seed: int = 0) -> list[Task]:
    """Photographs of scikit-image and scikit-learn, and scikit-learn's handwritten digits.

    Raises
    ------
    MissingDependencyError
        If one of the two is not installed.
    """
    return [_photographs(seed), _digits(seed)]


def _package(name: str) -> Path:
    """Folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            f"the demo's own pictures come from scikit-image and scikit-learn (got no {name})",
            hint="pip install 'fieldshot[demo]', or bring your own pictures with --data DIR",
        )
    return Path(spec.origin).parent


def _photographs(seed: int) -> Task:
    """One class a photograph: crops of its left half to learn from, of its right half to recognise."""
    files = [_package("skimage") / "data" / name for name in _SCIKIT_IMAGE]
    files += [_package("sklearn") / "datasets" / "images" / name for name in _SCIKIT_LEARN]
    rng = np.random.default_rng(seed)
    support, query = {}, {}
    for file in files:
        pixels, label = images.read(file), file.stem.split("_")[0]
        half = pixels.shape[1] // 2
        support[label] = [_crop(pixels[:, :half], rng) for _ in range(_SUPPORT)]
        query[label] = [_crop(pixels[:, half:], rng) for _ in range(_QUERY)]
    return Task("photographs", support, query)


def _crop(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of half to nine tenths of the shorter side, anywhere."""
    height, width = pixels.shape[:2]
    side = int(min(height, width) * rng.uniform(0.5, 0.9))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def _digits(seed: int) -> Task:
    """Ten classes of handwritten digits (8 x 8, 16 levels), enlarged to 64 x 64."""
    _package("sklearn")
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng(seed)
    support, query = {}, {}
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(data.target == digit))[: _SUPPORT + _QUERY]
        drawn = [_enlarged(data.images[row]) for row in rows]
        support[str(digit)], query[str(digit)] = drawn[:_SUPPORT], drawn[_SUPPORT:]
    return Task("digits", support, query)


def _enlarged(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Dark ink on white paper, as a camera would see it."""
    grey = Image.fromarray((255 - levels * (255 / 16)).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(grey.convert("RGB"))
