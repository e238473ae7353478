"""A head on disk: one safetensors file with its statistics; the solution is computed again at loading.

Tensors: ``samples`` float32 (M, D) and ``sample_class`` int64 (M,) of all classes one after the other,
``counts`` int64 (K,), ``totals`` float64 (K, D), ``moment_<k>`` float64 (D, D) of classes past 2 D samples,
``unlabelled`` float32 (M', D) of an adapted head. Metadata: ``fieldshot-head`` (format version), ``params``
and ``labels`` as JSON, and ``sha256`` of all of it, for a single wrong bit would make another head.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import BundleError, LabelError, MissingFileError
from fieldshot.head.statistics import ClassStatistics
from fieldshot.writing import replacing

if TYPE_CHECKING:
    from fieldshot.ops import Float32

__all__ = ["read", "write"]

_FORMAT = "1"


def write(
    path: str | os.PathLike[str],
    params: dict[str, Any],
    statistics: dict[Any, ClassStatistics],
    unlabelled: Float32 | None,
) -> None:
    """Write it, whole or not at all."""
    from safetensors.numpy import save

    labels, classes = list(statistics), list(statistics.values())
    for label in labels:
        if not isinstance(label, (bool, int, float, str)):
            raise LabelError(
                f"labels must be numbers, text or booleans to be saved (got {type(label).__name__})",
                hint="fit the head with labels of these types",
            )
    tensors = {
        "samples": np.concatenate([s.samples for s in classes]),
        "sample_class": np.repeat(np.arange(len(classes)), [len(s.samples) for s in classes]),
        "counts": np.array([s.count for s in classes]),
        "totals": np.stack([s.total for s in classes]),
    }
    tensors |= {f"moment_{k}": s.moment for k, s in enumerate(classes) if s.moment is not None}
    if unlabelled is not None:
        tensors["unlabelled"] = unlabelled
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata = {"fieldshot-head": _FORMAT, "params": json.dumps(params), "labels": json.dumps(labels)}
    metadata["sha256"] = _digest(metadata, tensors)
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"folder {path.parent} must be there to save a head in (got none)", hint="make it first")
    with replacing(path) as file:
        file.write(save(tensors, metadata))


def read(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[Any, ClassStatistics], Float32 | None, int]:
    """Parameters, statistics by label, unlabelled embeddings and D of a saved head."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise MissingFileError(f"head {os.fspath(path)} must be a file (got none)", hint="check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("fieldshot-head") != _FORMAT:
                raise BundleError(
                    f"{os.fspath(path)} must be a head of format {_FORMAT} "
                    f"(got {metadata.get('fieldshot-head', 'another kind of file')})",
                    hint="a head of a newer format needs a newer fieldshot",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        stated, found = metadata.pop("sha256", "stated nowhere"), _digest(metadata, tensors)
        if stated != found:
            raise ValueError(f"sha256 {found[:16]}, not {stated[:16]}")
        labels, params = json.loads(metadata["labels"]), json.loads(metadata["params"])
        dim = tensors["totals"].shape[1]
        statistics = {
            label: ClassStatistics(
                int(tensors["counts"][k]),
                tensors["totals"][k],
                tensors["samples"][tensors["sample_class"] == k],
                tensors.get(f"moment_{k}"),
            )
            for k, label in enumerate(labels)
        }
    except (SafetensorError, KeyError, ValueError, IndexError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"head {os.fspath(path)} must be whole (got: {error})", hint="copy it again, or fit it and save it anew"
        ) from error
    return params, statistics, tensors.get("unlabelled"), dim


def _digest(metadata: dict[str, str], tensors: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.data)
    return digest.hexdigest()
