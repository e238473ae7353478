"""Pictures of many classes become samples: one stream through the network, each class given out when complete."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldshot import images
from fieldshot.backbone import Backbone, as_items
from fieldshot.errors import FieldshotError, MissingFileError, PictureError
from fieldshot.gallery import Sample

__all__ = ["Batch", "Progress", "embedded", "source_of"]

Progress = Callable[[int, "int | None"], object]

_BLANK = np.zeros((1, 1, 3), np.uint8)  # what the network sees in place of a picture that cannot be read


@dataclass
class Batch:
    """The pictures of one class: samples in their order, and the sources of those that could not be read."""

    label: str
    samples: list[Sample] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    waiting: int = 0  # pictures on their way through the network
    complete: bool = False  # no more pictures will come
    error: FieldshotError | None = None  # why the first of the unreadable is so


@dataclass
class _Picture:
    """One picture on its way."""

    batch: Batch
    image: object
    source: str
    hash: bytes = b""
    original: bytes | None = None
    error: FieldshotError | None = None


def embedded(
    backbone: Backbone,
    classes: Iterable[tuple[str, object]],
    *,
    keep_pictures: bool,
    skip_unreadable: bool,
    progress: Progress | None,
) -> Generator[Batch, None, None]:
    """Embed pictures of several classes; network batches cross the borders of classes.

    Parameters
    ----------
    classes : iterable of (label, pictures)
        Generators are taken as they go; what was embedded is let go.
    keep_pictures : bool
        Take along the original file (for arrays and PIL images a PNG of what was seen).
    skip_unreadable : bool
        List pictures that cannot be read instead of raising.
    progress : callable or None
        Called as ``progress(done, total)``; total is None where a class is a generator.

    Yields
    ------
    Batch
        In the order of the classes.

    Raises
    ------
    PictureError, MissingFileError
        The first picture that cannot be read, after all classes before it were given out; a class
        without pictures.
    """
    listed = [(label, as_items(pictures)) for label, pictures in classes]
    total = sum(len(p) for _, p in listed if isinstance(p, Sized))
    sized = all(isinstance(p, Sized) for _, p in listed)
    batches: deque[Batch] = deque()
    pictures: deque[_Picture] = deque()
    done = 0
    stream = backbone.stream(_pictures(listed, batches, pictures), lambda p: _read(p, keep_pictures))
    with closing(stream):
        for embeddings in stream:
            for embedding in embeddings:
                _arrive(pictures.popleft(), embedding)
            done += len(embeddings)
            if progress is not None:
                progress(done, total if sized else None)
            yield from _finished(batches, strict=not skip_unreadable)
    yield from _finished(batches, strict=not skip_unreadable)


def _pictures(
    classes: Iterable[tuple[str, Iterable[object]]], batches: deque[Batch], pictures: deque[_Picture]
) -> Iterator[_Picture]:
    for label, images_of_label in classes:
        batch = Batch(label)
        batches.append(batch)
        for number, image in enumerate(images_of_label):
            picture = _Picture(batch, image, _source(image, label, number))
            batch.waiting += 1
            pictures.append(picture)
            yield picture
        batch.complete = True


def source_of(path: str | os.PathLike[str]) -> str:
    """What a gallery stores of a path: file names are bytes, and what is not UTF-8 in them cannot be stored as text."""
    return os.fsencode(path).decode("utf-8", "replace")


def _source(image: object, label: str, number: int) -> str:
    if isinstance(image, (str, os.PathLike)):
        return source_of(image)
    return str(getattr(image, "filename", "") or f"picture {number} of {label!r}")


def _read(picture: _Picture, keep: bool) -> NDArray[np.uint8]:
    image = picture.image
    picture.image = None
    try:
        pixels = images.read(image)
        if keep and isinstance(image, (str, os.PathLike)):
            picture.original = Path(os.fsdecode(image)).read_bytes()
        elif keep:
            picture.original = images.encode(pixels)
    except (PictureError, MissingFileError) as error:
        if picture.source not in error.message:
            error = type(error)(f"{picture.source}: {error.message}", hint=error.hint)
        picture.error = error
        return _BLANK
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    picture.hash = digest.digest()
    return pixels


def _arrive(picture: _Picture, embedding: NDArray[np.float32]) -> None:
    batch = picture.batch
    batch.waiting -= 1
    if picture.error is None:
        batch.samples.append(Sample(picture.hash, embedding, picture.source, picture.original))
    else:
        batch.unreadable.append(picture.source)
        batch.error = batch.error or picture.error


def _finished(batches: deque[Batch], *, strict: bool) -> Iterator[Batch]:
    while batches:
        batch = batches[0]
        if strict and batch.error is not None:
            raise batch.error
        if batch.waiting or not batch.complete:
            return
        if not batch.samples and not batch.unreadable:
            raise PictureError(f"{batch.label!r} must get at least one picture (got none)", hint="pass some")
        yield batches.popleft()
