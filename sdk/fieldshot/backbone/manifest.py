"""The manifest of a bundle: its fields and what each must be (docs/bundle.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fieldshot.errors import BundleError
from fieldshot.images import Preprocessing

__all__ = ["FORMAT", "FORMAT_VERSION", "PRECISIONS", "check_manifest", "is_plain_name"]

FORMAT: Final = "fieldshot-bundle"
FORMAT_VERSION: Final = 1

PRECISIONS: Final = {
    "backbone.onnx": "float32",
    "backbone.fp16.onnx": "float16",
    "backbone.int8.onnx": "int8",
}
"""The networks that a bundle may hold, and the arithmetic of each, safest first."""

_MAX_DIM: Final = 1 << 20
_REQUIRED: Final = ("backbone.onnx", "verify.safetensors")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HINT: Final = "copy or export the bundle again"


def is_plain_name(name: str) -> bool:
    """Tell whether a name is that of a file at the top level: no folder, drive, NUL byte, and not ``.`` or ``..``."""
    return name not in ("", ".", "..") and not any(c in name for c in "/\\:\0")


def check_manifest(manifest: object, path: Path) -> dict[str, Any]:
    """Check every field of a manifest and return it.

    Parameters
    ----------
    manifest : object
        What the JSON decoded to.
    path : Path
        The bundle, for the messages.

    Raises
    ------
    BundleError
        If a field is missing or wrong, or the format is newer than this reader.
    """

    def need(field: str, holds: Callable[[Any], bool], must: str, values: Any = manifest) -> Any:
        value = values.get(field.rpartition(".")[2])
        if not holds(value):
            got = "nothing" if value is None else repr(value)[:80]
            raise BundleError(f"{path}: {field} in its manifest must be {must} (got {got})", hint=_HINT)
        return value

    if not isinstance(manifest, dict):
        raise BundleError(f"{path}: its manifest must be a JSON object (got {type(manifest).__name__})", hint=_HINT)
    need("format", lambda v: v == FORMAT, repr(FORMAT))
    version = need("format_version", lambda v: _is_int(v) and v >= 1, "a whole number above 0")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"bundle {path} must be of format {FORMAT_VERSION} at most (got {version})",
            hint="upgrade fieldshot, or export the bundle with this version",
        )
    need("name", lambda v: isinstance(v, str) and v != "", "a name")
    need("licence", lambda v: isinstance(v, str), "text")
    need("source", lambda v: isinstance(v, str), "text")
    dim = need("dim", lambda v: _is_int(v) and 1 <= v <= _MAX_DIM, f"a whole number from 1 to {_MAX_DIM}")
    try:
        Preprocessing.from_json(manifest.get("preprocessing"))
    except BundleError as error:
        raise BundleError(f"{path}: {error.message}", hint=error.hint) from error

    statistics = need("statistics", lambda v: v is None or isinstance(v, dict), "an object")
    if statistics is not None:
        need("statistics.count", lambda v: _is_int(v) and v >= 0, "a whole number", statistics)
        need("statistics.minimum", _is_number, "a number", statistics)
        for field in ("mean", "std"):
            need(f"statistics.{field}", lambda v: _is_vector(v, dim), f"a list of {dim} numbers", statistics)

    verify = need("verify", lambda v: isinstance(v, dict) and "float32" in v, "an object with float32")
    for precision in verify:
        bounds = need(f"verify.{precision}", lambda v: isinstance(v, dict), "an object", verify)
        need("cosine", lambda v: _is_number(v) and 0 < v <= 1, "a number in (0, 1]", bounds)
        need("max_abs", lambda v: _is_number(v) and v >= 0, "a number of at least 0", bounds)

    files = need("files", lambda v: isinstance(v, dict), "an object")
    for name, entry in files.items():
        if not is_plain_name(name) or name == "manifest.json":
            raise BundleError(
                f"{path}: its manifest must list files at its top level only (got the name {name!r})",
                hint="do not use this file; get the bundle from where it was exported",
            )
        if not isinstance(entry, dict):
            raise BundleError(f"{path}: the entry of {name} in its manifest must be an object", hint=_HINT)
        need(
            "sha256",
            lambda v: isinstance(v, str) and bool(_SHA256.fullmatch(v)),
            "64 hexadecimal digits",
            entry,
        )
        need("size_bytes", lambda v: _is_int(v) and v >= 0, "a whole number", entry)
        if name in PRECISIONS:
            need("precision", PRECISIONS[name].__eq__, repr(PRECISIONS[name]), entry)
            need(f"verify.{PRECISIONS[name]}", lambda v: v is not None, f"the bounds of {name}", verify)
    for name in _REQUIRED:
        if name not in files:
            raise BundleError(f"{path}: its manifest must list {name} (got none)", hint=_HINT)
    return manifest


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e30 < value < 1e30


def _is_vector(value: object, dim: int) -> bool:
    return isinstance(value, list) and len(value) == dim and all(map(_is_number, value))
