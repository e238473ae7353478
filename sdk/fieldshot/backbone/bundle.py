"""The bundle: a backbone on disk, a zip file or a folder (docs/bundle.md).

A bundle that opened is whole: every member was checked against the digests of its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.manifest import FORMAT, FORMAT_VERSION, PRECISIONS, check_manifest
from fieldshot.backbone.members import list_members, open_member, write_zip
from fieldshot.errors import BundleError, MissingFileError, OptionError
from fieldshot.images import Pixels, Preprocessing

__all__ = ["Bundle"]

_MANIFEST: Final = "manifest.json"
_WEIGHTS: Final = "backbone.onnx"
_VERIFY: Final = "verify.safetensors"
_MAX_MANIFEST_BYTES: Final = 16 << 20
_CHUNK_BYTES: Final = 1 << 20
# What zipfile and the file system raise on a damaged, encrypted or vanished bundle.
_UNREADABLE: Final = (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
_COPY_AGAIN: Final = "copy or export the bundle again"


class Bundle:
    """A bundle that was opened and checked; make one with ``Bundle.open`` or ``Bundle.write``.

    Attributes
    ----------
    path : Path
        Where it lies.
    manifest : dict
        Its manifest, checked.
    preprocessing : Preprocessing
        What its network must be fed.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.preprocessing = Preprocessing.from_json(manifest["preprocessing"])

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, name={self.name!r}, dim={self.dim})"

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return str(self.manifest["name"])

    @property
    def dim(self) -> int:
        """Dimension D of its embeddings."""
        return int(self.manifest["dim"])

    @property
    def feature_mean(self) -> npt.NDArray[np.float32] | None:
        """Mean embedding at export, of shape (D,), dtype float32; None if the manifest states no statistics."""
        statistics = self.manifest.get("statistics")
        return None if statistics is None else np.array(statistics["mean"], np.float32)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and check every rule of the format.

        Raises
        ------
        OptionError
            If ``path`` is no path.
        MissingFileError
            If there is nothing at ``path``.
        BundleError
            If it is damaged, unsafe or of a newer format; the message names the file and the mend.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise OptionError(
                f"a bundle must be named by its path (got {path!r})", hint="Backbone.default() is the embedded one"
            )
        path = Path(path)
        try:
            if not path.exists():
                raise MissingFileError(f"bundle {path} must exist", hint="check the path")
            members = list_members(path)
            if _MANIFEST not in members:
                raise BundleError(f"bundle {path} must hold {_MANIFEST} (got none)", hint="is this a bundle?")
            if members[_MANIFEST] > _MAX_MANIFEST_BYTES:
                raise BundleError(f"{path}: {_MANIFEST} must be below 16 MiB", hint=_COPY_AGAIN)
            manifest = _parse(_read(path, _MANIFEST), path)
            bundle = cls(path, manifest)
            _check_members(path, members, manifest["files"])
        except (BundleError, MissingFileError):
            raise
        except _UNREADABLE as error:
            raise BundleError(f"bundle {path} must be readable (got: {error})", hint=_COPY_AGAIN) from error
        return bundle

    def read(self, name: str) -> bytes:
        """Return the bytes of a member, checked against its digest.

        Raises
        ------
        BundleError
            If the bundle has no such member, or it changed since the bundle was opened.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise BundleError(
                f"bundle {self.path} must hold {name} (got {', '.join(sorted(self.manifest['files']))})",
                hint="export the bundle again with it",
            )
        try:
            data = _read(self.path, name)
        except _UNREADABLE as error:
            raise BundleError(f"{self.path}: {name} must be readable (got: {error})", hint=_COPY_AGAIN) from error
        _check_digest(self.path, name, entry, hashlib.sha256(data).hexdigest())
        return data

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that it holds a network in, safest first."""
        return tuple(precision for name, precision in PRECISIONS.items() if name in self.manifest["files"])

    def network(self, precision: str) -> str:
        """Name the member that is the network in a precision.

        Raises
        ------
        OptionError
            If ``precision`` is none of "float32", "float16" and "int8".
        BundleError
            If the bundle has no network in it.
        """
        _check_precision(precision)
        if precision not in self.precisions:
            raise BundleError(
                f"bundle {self.path} must hold its network in {precision} (got {', '.join(self.precisions)})",
                hint=f"leave the precision at float32, or export the bundle again with {precision}",
            )
        return next(name for name, held in PRECISIONS.items() if held == precision)

    def contract(self, precision: str = "float32") -> str:
        """Digest weights, preprocessing and precision; only embeddings of equal contracts may be compared.

        Parameters
        ----------
        precision : {"float32", "float16", "int8"}
            Arithmetic in which the embeddings are computed.

        Returns
        -------
        str
            16 hexadecimal digits.

        Raises
        ------
        OptionError
            If ``precision`` is none of these.
        BundleError
            If it is int8, and the bundle has no such network.
        """
        _check_precision(precision)
        # Calibrated on other pictures, or left in float32 elsewhere, int8 is another network, that of float32 the same.
        member = self.network(precision) if precision == "int8" else _WEIGHTS
        terms = {
            "weights": self.manifest["files"][member]["sha256"],
            "preprocessing": self.preprocessing.to_json(),
            "precision": precision,
        }
        canonical = json.dumps(terms, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def verification(self) -> tuple[list[Pixels], npt.NDArray[np.float32]]:
        """Return the verification pictures and what the source framework gives for them.

        Returns
        -------
        pictures : list of n ndarrays of shape (height, width, 3), dtype uint8
        embeddings : ndarray of shape (n, D), dtype float32
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(self.read(_VERIFY))
        except SafetensorError as error:
            raise BundleError(f"{self.path}: {_VERIFY} must be safetensors (got: {error})", hint=_COPY_AGAIN) from error
        expected = tensors.pop("embeddings", np.empty(0))
        pictures = [tensors.get(f"picture_{i}", np.empty(0)) for i in range(len(tensors))]
        if not pictures or not all(
            p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 and p.size for p in pictures
        ):
            raise BundleError(
                f"{self.path}: {_VERIFY} must hold picture_0, picture_1, ..., uint8 of shape (height, width, 3)",
                hint="export the bundle again",
            )
        if expected.dtype != np.float32 or expected.shape != (len(pictures), self.dim):
            raise BundleError(
                f"{self.path}: embeddings in {_VERIFY} must be float32 of shape {(len(pictures), self.dim)} "
                f"(got {expected.dtype} of shape {expected.shape})",
                hint="export the bundle again",
            )
        return pictures, expected

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str,
        licence: str,
        source: str,
        dim: int,
        preprocessing: Preprocessing,
        verify: Mapping[str, Mapping[str, float]],
        files: Mapping[str, bytes],
        statistics: Mapping[str, Any] | None = None,
    ) -> Bundle:
        """Write a bundle as one zip file, whole or not at all, and open it.

        Equal arguments give equal bytes.

        Parameters
        ----------
        path : str or os.PathLike
            The file to write, usually ``NAME.fieldshot``; one that is there is replaced.
        name, licence, source, dim, preprocessing, verify, statistics
            The fields of the manifest (docs/bundle.md).
        files : mapping of str to bytes
            The members: at least ``backbone.onnx`` and ``verify.safetensors``.

        Raises
        ------
        BundleError
            If a field is wrong, a member is missing, or the file cannot be written.
        """
        path = Path(path)
        entries: dict[str, dict[str, Any]] = {}
        for member, data in sorted(files.items()):
            entries[member] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
            if member in PRECISIONS:
                entries[member]["precision"] = PRECISIONS[member]
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": name,
            "licence": licence,
            "source": source,
            "dim": dim,
            "preprocessing": preprocessing.to_json(),
            **({} if statistics is None else {"statistics": dict(statistics)}),
            "verify": {precision: dict(bounds) for precision, bounds in verify.items()},
            "files": entries,
        }
        check_manifest(manifest, path)
        members = {
            _MANIFEST: json.dumps(manifest, indent=1, allow_nan=False).encode(),
            **dict(sorted(files.items())),
        }
        try:
            write_zip(path, members)
        except OSError as error:
            raise BundleError(
                f"bundle {path} must be writable (got: {error.strerror or error})",
                hint="check that the folder exists, is not read-only and has space",
            ) from error
        return cls.open(path)


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS.values():
        raise OptionError(
            f"precision must be one of {', '.join(PRECISIONS.values())} (got {precision!r})",
            hint="leave it at float32",
        )


def _check_members(path: Path, members: Mapping[str, int], files: Mapping[str, Mapping[str, Any]]) -> None:
    listed = {_MANIFEST, *files}
    for name in sorted(listed - members.keys()):
        raise BundleError(f"bundle {path} must hold {name}, which its manifest lists (got none)", hint=_COPY_AGAIN)
    for name in sorted(members.keys() - listed):
        raise BundleError(
            f"bundle {path} must hold only what its manifest lists (got {name} too)",
            hint=f"remove {name} from it",
        )
    for name, entry in files.items():
        if members[name] != entry["size_bytes"]:
            raise BundleError(
                f"{path}: {name} must have {entry['size_bytes']} bytes (got {members[name]})",
                hint=_COPY_AGAIN,
            )
        digest = hashlib.sha256()
        with open_member(path, name) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        _check_digest(path, name, entry, digest.hexdigest())


def _check_digest(path: Path, name: str, entry: Mapping[str, Any], got: str) -> None:
    if got != entry["sha256"]:
        raise BundleError(
            f"{path}: {name} must have the SHA-256 of its manifest, {entry['sha256'][:16]}... (got {got[:16]}...)",
            hint=f"the file was changed or damaged; {_COPY_AGAIN}",
        )


def _read(path: Path, name: str) -> bytes:
    with open_member(path, name) as stream:
        return stream.read()


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {_MANIFEST} must be UTF-8 JSON (got: {error})", hint=_COPY_AGAIN) from error
    return check_manifest(manifest, path)
