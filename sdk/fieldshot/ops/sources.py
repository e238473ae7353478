"""The kernels' sources and what was built of them, and the structs that they take.

They lie in `fieldshot/kernels`, put there by the build (kernels/build.py). A file that was built carries the digest
of its sources in its name, so that a stale one is never taken for a fitting one.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from functools import cache
from pathlib import Path

__all__ = ["FOLDER", "built", "digest", "kernels", "struct_of", "structs"]

FOLDER = Path(__file__).resolve().parents[1] / "kernels"

_TYPES = {"int": ctypes.c_int, "double": ctypes.c_double}


@cache
def digest(folder: Path = FOLDER) -> str:
    """Twelve hexadecimal digits that change with any source; of nothing where there are none."""
    sources = sorted(path for path in folder.glob("*.cu*") if path.suffix in {".cu", ".cuh"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def built(name: str, suffix: str) -> Path:
    """Where the file that was built of these sources is, or would be."""
    return FOLDER / f"{name}.{digest()}.{suffix}"


def struct_of(kernel: str, folder: Path = FOLDER) -> type[ctypes.Structure]:
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
def structs(folder: Path = FOLDER) -> dict[str, type[ctypes.Structure]]:
    """The structs of params.cuh, the only place where they are declared, by name."""
    text = re.sub(r"//.*", "", (folder / "params.cuh").read_text("utf-8"))
    return {
        name: type(name, (ctypes.Structure,), {"_fields_": list(_fields(body))})
        for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, re.DOTALL)
    }


def _fields(body: str) -> list[tuple[str, type]]:
    fields: list[tuple[str, type]] = []
    for line in filter(None, map(str.strip, body.split(";"))):
        match = re.fullmatch(r"(?:const )?(\w+)(\*?) (\w+(?:, \w+)*)", line)
        assert match, f"params.cuh: {line!r} is not `type name, name`"
        kind = ctypes.c_void_p if match[2] else _TYPES[match[1]]
        fields += [(name, kind) for name in match[3].split(", ")]
    return fields
