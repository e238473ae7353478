"""JSON that users hand to bench: results, budgets, thresholds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fieldshot.errors import MissingFileError, OptionError

__all__ = ["read_bytes", "read_json"]


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """What is in a file; MissingFileError, which says what should be there, if there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{what} must lie in a file (got none at {os.fspath(path)})", hint="check the path"
        ) from error


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """The document in a file; as `read_bytes`, and OptionError if it is none."""
    try:
        return json.loads(read_bytes(path, what).decode("utf-8"))
    except ValueError as error:
        raise OptionError(f"{os.fspath(path)} must be JSON (got: {error})", hint=f"name {what}") from error
