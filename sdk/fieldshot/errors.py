"""Everything that fieldshot raises on purpose.

    FieldshotError
    ├── PictureError (ValueError)        a picture that cannot be read or makes no sense
    ├── EmbeddingError (ValueError)      embeddings of the wrong shape, dimension or content
    ├── LabelError (ValueError)          a label that is missing, unknown, too long or not allowed
    ├── NotFittedError (ValueError, AttributeError)   a head that has seen no samples yet
    ├── BundleError (ValueError)         a bundle or model file that is damaged, unsafe or too new
    ├── ContractError (ValueError)       embeddings of one backbone meant for another
    ├── OptionError (ValueError)         an argument that is none of its choices or out of its range
    ├── EngineError (RuntimeError)       an engine that cannot run, or gives wrong embeddings
    ├── DeviceError (RuntimeError)       a compute device or its kernels that cannot be used
    │   └── DeviceMemoryError (MemoryError)   a device whose memory is too small for what was asked
    ├── MeasurementError (RuntimeError)  a process whose latency cannot be measured
    ├── GalleryError (OSError)           the gallery file cannot be read or written
    ├── MissingFileError (FileNotFoundError)
    ├── MissingDependencyError (ImportError)   an optional package is not installed
    └── ExportError (ValueError)         a backbone that cannot be exported faithfully

What the user can mend also derives from the built-in exception of its kind, so `except ValueError`
and `except FileNotFoundError` keep working. Messages have one form: what must hold, what was got,
and how to mend it: ``X must be Y (got Z). Hint: do this.``
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ContractError",
    "DeviceError",
    "DeviceMemoryError",
    "EmbeddingError",
    "EngineError",
    "ExportError",
    "FieldshotError",
    "GalleryError",
    "LabelError",
    "MeasurementError",
    "MissingDependencyError",
    "MissingFileError",
    "NotFittedError",
    "OptionError",
    "PictureError",
]


class FieldshotError(Exception):
    """Base of every error that fieldshot raises on purpose.

    Parameters
    ----------
    message : str
        What must hold and what was got, without a final full stop.
    hint : str, optional
        How to mend it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message}. Hint: {hint}" if hint else message)


class PictureError(FieldshotError, ValueError):
    """A picture that cannot be read or makes no sense."""


class EmbeddingError(FieldshotError, ValueError):
    """Embeddings of the wrong shape, dimension or content."""


class LabelError(FieldshotError, ValueError):
    """A label that is missing, unknown, too long or not allowed."""


class NotFittedError(FieldshotError, ValueError, AttributeError):
    """A head that has seen no samples yet."""


class BundleError(FieldshotError, ValueError):
    """A bundle or model file that is damaged, unsafe or too new."""


class ContractError(FieldshotError, ValueError):
    """Embeddings of one backbone meant for another."""


class OptionError(FieldshotError, ValueError):
    """An argument that is none of its choices or out of its range."""


class EngineError(FieldshotError, RuntimeError):
    """An engine that cannot run, or gives wrong embeddings."""


class DeviceError(FieldshotError, RuntimeError):
    """A compute device or its kernels that cannot be used."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A device whose memory is too small for what was asked."""


class MeasurementError(FieldshotError, RuntimeError):
    """A process whose latency cannot be measured."""


class GalleryError(FieldshotError, OSError):
    """The gallery file cannot be read or written."""


class MissingFileError(FieldshotError, FileNotFoundError):
    """A file or folder that is not there."""


class MissingDependencyError(FieldshotError, ImportError):
    """An optional package is not installed."""


class ExportError(FieldshotError, ValueError):
    """A backbone that cannot be exported faithfully."""
