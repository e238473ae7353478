"""The kernels' sources and what was built of them, and the structs that they take.

They lie in `fieldshot/kernels`, put there by the build (kernels/build.py). A file that was built carries the digest
of its sources in its name, so that a stale one is never taken for a fitting one.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["FOLDER", "Layout", "built", "digest", "kernels", "struct_of", "structs"]

FOLDER = Path(__file__).resolve().parents[1] / "kernels"

_CODES = {"int": "i", "double": "d"}  # of Python's `struct`; a pointer's is P


@cache
def digest(folder: Path = FOLDER) -> str:
    """Twelve hexadecimal digits that change with any source; of nothing where there are none."""
    sources = sorted(path for path in folder.glob("*.cu*") if path.suffix in {".cu", ".cuh"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


class Layout:
    """How the fields of a struct lie in memory.

    Parameters
    ----------
    fields : list of (str, str)
        Name and code of each, in their order.

    Attributes
    ----------
    pack : callable
        Bytes of the struct, from the values of all fields in their order.
    """

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._names, codes = zip(*fields, strict=True)
        # Nothing of the strictest kind at the end: a struct is as long as an array of them needs it.
        self.pack = struct.Struct(f"{''.join(codes)}0{max(codes, key=struct.calcsize)}").pack

    def of(self, fields: Mapping[str, int | float | None]) -> bytes:
        """Bytes of the struct with these fields; what is left out, or None, is 0."""
        return self.pack(*[fields.get(name) or 0 for name in self._names])


def built(name: str, suffix: str) -> Path:
    """Where the file that was built of these sources is, or would be."""
    return FOLDER / f"{name}.{digest()}.{suffix}"


def struct_of(kernel: str, folder: Path = FOLDER) -> Layout:
    """The struct that a kernel takes."""
    return structs(folder)[kernels(folder)[kernel]]


@cache
def kernels(folder: Path = FOLDER) -> dict[str, str]:
    """Every kernel by name, with the name of its struct."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.cu")):
        found.update(re.findall(r"^KERNEL\((\w+), (\w+)\)", path.read_text("utf-8"), re.MULTILINE))
    return found


@cache
def structs(folder: Path = FOLDER) -> dict[str, Layout]:
    """The structs of params.cuh, the only place where they are declared, by name."""
    text = re.sub(r"//.*", "", (folder / "params.cuh").read_text("utf-8"))
    return {name: Layout(_fields(body)) for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, re.DOTALL)}


def _fields(body: str) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, body.split(";"))):
        match = re.fullmatch(r"(?:const )?(\w+)(\*?) (\w+(?:, \w+)*)", line)
        assert match, f"params.cuh: {line!r} is not `type name, name`"
        code = "P" if match[2] else _CODES[match[1]]
        fields += [(name, code) for name in match[3].split(", ")]
    return fields
