"""What goes into a gallery and comes out of it, and what a label may be."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import EmbeddingError, LabelError

__all__ = ["MAX_LABEL", "Operation", "Sample", "Snapshot", "checked_blobs", "clean_label"]

MAX_LABEL = 200  # characters of a label


@dataclass(frozen=True)
class Sample:
    """One picture to store: SHA-256 of its pixels, embedding (D,) float32, source, original bytes or None."""

    hash: bytes
    embedding: NDArray[np.float32]
    source: str
    picture: bytes | None = None


@dataclass(frozen=True)
class Operation:
    """One entry of the history.

    `label` is None for undo and rollback, `target` the version that an undo reverts or a rollback
    restores, `added` and `removed` count samples, `time` is ISO 8601 in UTC, `undone` tells whether a
    later undo reverted this operation.
    """

    version: int
    kind: str
    label: str | None
    target: int | None
    added: int
    removed: int
    time: str
    undone: bool


@dataclass(frozen=True)
class Snapshot:
    """The samples that came to live since version `since` and still do at `version`, N of them.

    Labels (N,), `negative` (N,) bool, embeddings (N, D) float32, in the order they were stored.
    `removed` counts the samples that lived at `since` and do not any more. `sources` (N,) is empty unless asked for.
    """

    since: int
    version: int
    labels: list[str]
    negative: NDArray[np.bool_]
    embeddings: NDArray[np.float32]
    removed: int
    sources: list[str] = field(default_factory=list)


def clean_label(label: object) -> str:
    """Bring a label into its one stored form: Unicode NFC without surrounding space.

    Any script, emoji and slashes are welcome: labels are never used as file names.

    Raises
    ------
    LabelError
        Not a string, empty, longer than 200 characters, "unknown", or with control characters in it.
    """
    if not isinstance(label, str):
        raise LabelError(f"label must be a string (got {type(label).__name__})", hint="use str(label)")
    text = unicodedata.normalize("NFC", label).strip()
    if not 1 <= len(text) <= MAX_LABEL:
        shown = f"{text[:20]!r}..., {len(text):,} characters" if text else repr(label[:20])
        raise LabelError(f"label must have 1 to {MAX_LABEL} characters (got {shown})", hint="choose a name")
    if text.casefold() == "unknown":
        raise LabelError(
            f"label must not be {text!r}: it is the answer for what was never enrolled",
            hint="choose another name, or enrol nothing for it",
        )
    bad = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), None)
    if bad is not None:
        raise LabelError(
            f"label must be one line of printable text (got U+{ord(bad):04X} in {text[:40]!a})",
            hint="leave out control characters and line breaks",
        )
    return text


def checked_blobs(samples: Sequence[Sample], dim: int) -> list[bytes]:
    """Give the embeddings as they are stored (D float32, little endian).

    Raises
    ------
    EmbeddingError
        An embedding has the wrong dimension or is not finite.
    """
    for sample in samples:
        if sample.embedding.shape != (dim,):
            raise EmbeddingError(
                f"embedding must have shape ({dim},) (got {sample.embedding.shape} for {sample.source})",
                hint="embed with the backbone that the gallery was made with",
            )
        if not np.isfinite(sample.embedding).all():
            raise EmbeddingError(
                f"embedding must be finite (got NaN or infinity for {sample.source})",
                hint="check the backbone on this picture",
            )
    return [sample.embedding.astype("<f4", copy=False).tobytes() for sample in samples]
