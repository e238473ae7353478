"""On-device few-shot image recognition: a frozen backbone, a head fine-tuned on the spot, a safe gallery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fieldshot.errors import FieldshotError

if TYPE_CHECKING:
    from fieldshot.backbone import Backbone
    from fieldshot.head import FewShotHead
    from fieldshot.recognizer import Recognition, Recognizer

__version__ = "0.1.0"

__all__ = ["Backbone", "FewShotHead", "FieldshotError", "Recognition", "Recognizer"]

_HOME = {
    "Backbone": "fieldshot.backbone",
    "FewShotHead": "fieldshot.head",
    "Recognition": "fieldshot.recognizer",
    "Recognizer": "fieldshot.recognizer",
}


def __getattr__(name: str) -> object:
    # Lazy (PEP 562): a device app pays for NumPy, Pillow and ONNX Runtime only when it uses them.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
