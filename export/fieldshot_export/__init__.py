"""The workstation side of fieldshot: a network of any framework becomes a bundle that a device can trust.

    from fieldshot_export import export
    report = export("mobilenet.fieldshot", onnx="mobilenet_v2.onnx", size=224, mean=[0.5] * 3, std=[0.5] * 3)

Importing this package loads neither torch nor onnx; calling `export` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fieldshot_export.exporter import Report, export

__all__ = ["Report", "export"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fieldshot_export.exporter"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
