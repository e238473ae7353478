"""Embeddings of pictures, kept on disk between measurements.

One file a set of pictures, named by a digest of the backbone's contract and of every picture's path and content: a
changed picture makes another file. NumPy's ``.npz`` without pickle, whose checksums tell a damaged one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.npyio import NpzFile

from fieldshot.writing import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fieldshot.backbone import Backbone
    from fieldshot.ops.interface import Float32

__all__ = ["default_folder", "embed", "read_arrays"]

_LOG = logging.getLogger("fieldshot")


def default_folder() -> Path | None:
    """``$XDG_CACHE_HOME/fieldshot``, or ``~/.cache/fieldshot``; None where there is no home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the specification has others passed over
        return Path(named, "fieldshot")
    try:
        return Path.home() / ".cache" / "fieldshot"
    except RuntimeError:
        return None


def embed(
    backbone: Backbone,
    pictures: Sequence[Path],
    root: Path,
    *,
    cache: Path | None,
    progress: Callable[[int, int | None], object] | None = None,
) -> Float32:
    """Embeddings of pictures, from the cache where they are in it.

    Parameters
    ----------
    backbone : Backbone
    pictures : sequence of Path
    root : Path
        Folder that all of them lie in; where it lies does not matter.
    cache : Path or None
        Folder of the cache, made where it is missing; None does without. What cannot be read in it is made anew and
        what cannot be written is left, each with a word in the log.
    progress : callable, optional
        Called as ``progress(done, total)`` while pictures are embedded.

    Returns
    -------
    ndarray of shape (N, D), dtype float32
        In the order of the pictures.

    Raises
    ------
    PictureError, MissingFileError
        If a picture cannot be read.
    """
    try:
        file = None if cache is None else cache / f"embeddings-{_digest(backbone.contract, pictures, root)}.npz"
    except OSError:
        file = None  # of a picture that cannot be read, embedding tells more
    if file is not None:
        found = _read(file, (len(pictures), backbone.dim))
        if found is not None:
            return found
    embeddings = backbone.embed(pictures, progress=progress)
    if file is not None:
        _write(file, embeddings)
    return embeddings


def _digest(contract: str, pictures: Sequence[Path], root: Path) -> str:
    digest = hashlib.sha256(contract.encode())
    for path in pictures:
        # Digests are of one length and names end in a zero byte: no two lists give the same bytes.
        digest.update(os.fsencode(path.relative_to(root)) + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file, without pickle.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is damaged, or another kind of file.
    """
    with open(path, "rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, NpzFile):
                raise ValueError("a single array")
            return {name: arrays[name] for name in arrays.files}
        # RuntimeError: an archive with a password or of an unknown compression.
        except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(str(error)) from error


def _read(file: Path, shape: tuple[int, int]) -> Float32 | None:
    try:
        found = read_arrays(file).get("embeddings", np.empty(0))
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"it holds {found.dtype} of shape {found.shape}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _LOG.warning("cached embeddings %s are made anew: %s", file, error)
        return None
    return found


def _write(file: Path, embeddings: Float32) -> None:
    """Whole or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as out:
            np.savez(out, embeddings=embeddings)
    except OSError as error:
        _LOG.warning("embeddings cannot be cached: %s", error)
