"""What scikit-learn expects of an estimator, without importing it: parameters, tags, checked input."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldshot.errors import EmbeddingError, FieldshotError, LabelError, NotFittedError, OptionError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "DataConversionWarning",
    "Estimator",
    "checked_embeddings",
    "checked_labels",
    "embedding_rows",
    "finite",
    "not_fitted",
]

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)
# Numbers of which OpenBLAS takes the product on the calling thread.
_ON_ONE_THREAD = 8192


class DataConversionWarning(UserWarning):
    """Input was taken in another shape than it came in."""


class Estimator:
    """Parameters and tags of an estimator; its keyword-only `__init__` does nothing but store them."""

    @classmethod
    def _parameters(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Hyper-parameters by name; `deep` is there for scikit-learn, no parameter has parameters."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        """Set hyper-parameters by name; they take effect at the next fit.

        Raises
        ------
        OptionError
            For a name that is no parameter.
        """
        for name, value in params.items():
            if name not in self._parameters():
                raise OptionError(
                    f"parameter must be one of {', '.join(self._parameters())} (got {name!r})",
                    hint="check its spelling",
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = {k: v for k, v in self.get_params().items() if v is not defaults[k].default}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    def __sklearn_tags__(self) -> Any:
        # Called by scikit-learn only, which is therefore there to import.
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(),
        )


def not_fitted(name: str) -> FieldshotError:
    """The error for a head without samples; scikit-learn's own too, where that is loaded."""
    message, hint = f"{name} must be fitted before it is used (got no samples yet)", "call fit or partial_fit first"
    sklearn = sys.modules.get("sklearn.exceptions")
    if sklearn is None:
        return NotFittedError(message, hint=hint)
    both = type("NotFittedError", (NotFittedError, sklearn.NotFittedError), {"__doc__": NotFittedError.__doc__})
    error: FieldshotError = both(message, hint=hint)
    return error


def checked_embeddings(Z: ArrayLike, *, expected: int | None, name: str, least: int = 1) -> NDArray[Any]:
    """Embeddings as a finite float array (N, D) of float32 or float64.

    Raises
    ------
    EmbeddingError
        As `embedding_rows` and `finite`.
    """
    return finite(embedding_rows(Z, expected=expected, name=name, least=least))


def embedding_rows(Z: ArrayLike, *, expected: int | None, name: str, least: int = 1) -> NDArray[Any]:
    """Embeddings as an array (N, D) of real numbers, not looked at yet: they may lie in a file.

    Raises
    ------
    EmbeddingError
        For another shape or dimension, sparse, complex or text, or less than `least` samples.
    """
    if not isinstance(Z, np.ndarray) and hasattr(Z, "toarray"):
        raise EmbeddingError("embeddings must be a dense array (got a sparse one)", hint="pass Z.toarray()")
    try:
        array = np.asarray(Z)
        if array.dtype.kind == "c":
            raise EmbeddingError("Complex data not supported: embeddings must be real", hint="pass their real part")
        if array.dtype.kind not in "fiub":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, FieldshotError):
            raise
        raise _not_numbers(error) from error
    if array.ndim != 2:
        wanted = "D" if expected is None else expected
        raise EmbeddingError(
            f"embeddings must have shape (N, {wanted}) (got {array.shape}). Reshape your data",
            hint="pass Z.reshape(1, -1) for a single embedding",
        )
    if array.shape[1] == 0:
        raise EmbeddingError(
            f"0 feature(s) (shape={array.shape}) while a minimum of 1 is required", hint="pass (N, D) embeddings"
        )
    if expected is not None and array.shape[1] != expected:
        raise EmbeddingError(
            f"embeddings must have shape (N, {expected}) (got {array.shape}): X has {array.shape[1]} features, "
            f"but {name} is expecting {expected} features as input",
            hint="embed with the backbone that the samples were embedded with",
        )
    if len(array) < least:
        raise EmbeddingError(
            f"embeddings must hold at least {least} sample(s) (got shape {array.shape})", hint="pass more samples"
        )
    return array


def finite(rows: NDArray[Any], numbers: NDArray[np.intp] | None = None) -> NDArray[Any]:
    """Rows of real numbers in float32 or float64, all finite; `numbers` are those that an error names.

    Raises
    ------
    EmbeddingError
        For NaN or infinity.
    """
    if rows.dtype not in _FLOATS:
        rows = rows.astype(np.float64)
    # Of one embedding the product takes a third of the time; it overflows, without a warning, where others would warn.
    few = rows.size <= _ON_ONE_THREAD
    if not ((few and math.isfinite(np.vdot(rows, rows))) or np.isfinite(rows).all()):
        row, column = np.argwhere(~np.isfinite(rows))[0]
        value = "NaN" if np.isnan(rows[row, column]) else rows[row, column]
        raise EmbeddingError(
            f"embeddings must be finite (got {value} in row {row if numbers is None else numbers[row]})",
            hint="look at the picture of that row, or at the backbone's precision",
        )
    return rows


class _TypeEmbeddingError(EmbeddingError, TypeError):
    """Embeddings that are no numbers at all."""


def _not_numbers(error: Exception) -> EmbeddingError:
    kind = _TypeEmbeddingError if isinstance(error, TypeError) else EmbeddingError
    return kind(f"embeddings must be numbers (got: {error})", hint="pass a float array of shape (N, D)")


def checked_labels(y: ArrayLike | None, count: int, name: str) -> NDArray[Any]:
    """Labels as an array (N,) of integers, booleans, text or sortable objects.

    Raises
    ------
    LabelError
        For no labels, another number of them than samples, more than one a sample, or continuous ones.
    """
    if y is None:
        raise LabelError(
            f"{name} requires y to be passed, but the target y is None", hint="pass a label for each sample"
        )
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        warnings.warn(DataConversionWarning("A column-vector y was passed when a 1d array was expected."), stacklevel=3)
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != count:
        raise LabelError(
            f"labels must have shape ({count},) (got {labels.shape})", hint="pass one label for each embedding"
        )
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise LabelError("labels must be finite (got NaN or infinity)", hint="leave out samples without a label")
        if (labels != np.floor(labels)).any():
            raise LabelError(
                "Unknown label type: continuous; labels must be whole numbers or text",
                hint="turn measured values into classes first",
            )
    elif labels.dtype.kind not in "biuUO":
        raise LabelError(f"Unknown label type: {labels.dtype}", hint="pass whole numbers or text")
    return labels
