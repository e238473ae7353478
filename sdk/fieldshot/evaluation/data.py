"""What is measured on: a folder of classes, a folder with an official split, or embeddings that are ready."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fieldshot import images
from fieldshot.errors import FieldshotError, MissingFileError, OptionError
from fieldshot.evaluation import cache
from fieldshot.evaluation.episodes import Pool
from fieldshot.evaluation.grid import checked_samples

if TYPE_CHECKING:
    from fieldshot.backbone import Backbone
    from fieldshot.ops.interface import Float32

__all__ = ["DataSet", "Pictures", "embed", "find_pictures", "read_embeddings"]

_LOG = logging.getLogger("fieldshot")

_NAMES = ("embeddings", "labels", "test_embeddings", "test_labels")


@dataclass(frozen=True)
class DataSet:
    """Embeddings with labels, as `evaluate` takes them.

    Attributes
    ----------
    embeddings : ndarray (N, D), float32
    labels : ndarray (N,)
    test : (ndarray (M, D), ndarray (M,)) or None
        Those of an official test set, of the same classes.
    """

    embeddings: Float32
    labels: NDArray[Any]
    test: tuple[Float32, NDArray[Any]] | None = None

    def __str__(self) -> str:
        asked = "" if self.test is None else f" to learn from, {len(self.test[1])} to recognise,"
        return f"{len(self.labels)} pictures{asked} in {len(np.unique(self.labels))} classes"

    def pool(self) -> Pool:
        """What episodes are drawn from."""
        return Pool.of(self.labels, None if self.test is None else self.test[1])


@dataclass(frozen=True)
class Pictures:
    """Pictures of classes: label -> paths; `test` has those of an official test set.

    Attributes
    ----------
    folder : Path
        That all lie in.
    train : mapping of str to list of Path
    test : mapping of str to list of Path, or None
    """

    folder: Path
    train: Mapping[str, list[Path]]
    test: Mapping[str, list[Path]] | None = None

    def labels(self) -> list[NDArray[np.str_]]:
        """Label of every picture, in the order of the classes: of `train`, and of `test` if there is one."""
        sides = [self.train] if self.test is None else [self.train, self.test]
        return [np.repeat(list(side), [len(of) for of in side.values()]) for side in sides]

    def pool(self) -> Pool:
        """What episodes are drawn from."""
        return Pool.of(*self.labels())


def find_pictures(folder: str | os.PathLike[str]) -> Pictures:
    """Find the pictures of a folder of classes, or of one whose folders ``train`` and ``test`` are such folders.

    Raises
    ------
    MissingFileError, PictureError
        As `fieldshot.images.find_classes`.
    OptionError
        If only one of train and test holds classes, they do not hold the same ones, or it is a file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise OptionError(
            f"{folder} must be a folder of pictures, or a file of embeddings that ends in .npz (got another file)",
            hint="name the folder, or write the file with numpy.savez('my.npz', embeddings=..., labels=...)",
        )
    sides = [name for name in ("train", "test") if _holds_classes(folder / name)]
    if not sides:
        return Pictures(folder, images.find_classes(folder))
    if len(sides) == 1:
        other = "test" if sides == ["train"] else "train"
        raise OptionError(
            f"an official split must have one sub-folder a class in {folder / 'train'} and in {folder / 'test'}"
            f" (got such in {sides[0]} only)",
            hint=f"add those of {other}, or measure {folder / sides[0]} alone",
        )
    train, test = (images.find_classes(folder / name) for name in ("train", "test"))
    alone = [
        f"{name}/{label}"
        for name, own, other in (("train", train, test), ("test", test, train))
        for label in own
        if label not in other
    ]
    if alone:
        raise OptionError(
            f"train and test in {folder} must hold the same classes (got in one of them only:"
            f" {', '.join(alone[:5])}{', ...' if len(alone) > 5 else ''})",
            hint=f"take these folders away or name them alike, or measure one side alone, such as {folder / 'test'}",
        )
    beside = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
    if unused := ", ".join(name for name in beside if name not in sides):
        _LOG.warning("%s: only train and test are measured, %s beside them is left out", folder, unused)
    return Pictures(folder, train, test)


def _holds_classes(folder: Path) -> bool:
    """Whether it is a folder of folders: one with pictures in it is a class that happens to have its name."""
    try:
        with os.scandir(folder) as entries:
            inside = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return False
    pictures = any(os.path.splitext(entry.name)[1].lower() in images.SUFFIXES and entry.is_file() for entry in inside)
    return not pictures and any(entry.is_dir() for entry in inside)


def embed(
    pictures: Pictures,
    backbone: Backbone,
    *,
    cached: Path | None,
    progress: Callable[[int, int | None], object] | None = None,
) -> DataSet:
    """Embed pictures, or take their embeddings from a cache.

    Parameters
    ----------
    pictures : Pictures
    backbone : Backbone
    cached : Path or None
        Folder of the cache (`fieldshot.evaluation.cache`); None does without.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Raises
    ------
    PictureError
        For the first picture that cannot be read.
    """
    paths = [path for side in (pictures.train, pictures.test or {}) for of in side.values() for path in of]
    Z = cache.embed(backbone, paths, pictures.folder, cache=cached, progress=progress)
    labels, *tested = pictures.labels()
    return DataSet(Z[: len(labels)], labels, (Z[len(labels) :], tested[0]) if tested else None)


def read_embeddings(path: str | os.PathLike[str]) -> DataSet:
    """Read embeddings that are ready from an ``.npz`` file.

    It holds the arrays ``embeddings`` (N, D) and ``labels`` (N,) and, for an official test set, ``test_embeddings``
    (M, D) and ``test_labels`` (M,).

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is no such file, or lacks one of them.
    EmbeddingError, LabelError
        If what it holds makes no sense.
    """
    try:
        arrays = cache.read_arrays(path)
    except FileNotFoundError as error:
        raise MissingFileError(f"file {os.fspath(path)} must exist", hint="check the path") from error
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{os.fspath(path)} must be a whole .npz file of numbers and text (got: {error})",
            hint="write it with numpy.savez(file, embeddings=..., labels=...), labels as text or whole numbers",
        ) from error
    tested = "test_embeddings" in arrays or "test_labels" in arrays
    wanted = _NAMES if tested else _NAMES[:2]
    if not set(wanted) <= set(arrays):
        raise OptionError(
            f"{os.fspath(path)} must hold the arrays {', '.join(wanted)} (got {', '.join(arrays) or 'none'})",
            hint="write it with numpy.savez(file, embeddings=..., labels=...)",
        )
    try:
        train = checked_samples(arrays["embeddings"], arrays["labels"], None)
        test = checked_samples(arrays["test_embeddings"], arrays["test_labels"], train[0].shape[1]) if tested else None
    except FieldshotError as error:
        raise type(error)(f"{os.fspath(path)}: {error.message}", hint=error.hint) from error
    return DataSet(*train, test)
