"""Structs of the kernels' sources, byte by byte."""

from __future__ import annotations

import ctypes
from pathlib import Path

from fieldshot.ops.sources import structs


class Mixed(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("N", ctypes.c_int),
        ("scale", ctypes.c_double),
        ("D", ctypes.c_int),
    )


def test_a_struct_lies_as_a_compiler_lays_it(tmp_path: Path) -> None:
    (tmp_path / "params.cuh").write_text(
        "struct Mixed {\n  const uint8_t* pixels;  // (N)\n  int N;\n  double scale;\n  int D;\n};\n"
    )
    layout = structs(tmp_path)["Mixed"]
    assert layout.pack(1 << 40, 2, 0.5, 3) == bytes(Mixed(1 << 40, 2, 0.5, 3))  # a last int is filled up
    assert layout.of({"D": 3, "scale": 0.5, "pixels": None}) == bytes(Mixed(None, 0, 0.5, 3))
