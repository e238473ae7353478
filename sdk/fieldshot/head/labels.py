"""Labels as a head keeps them: Python objects that sort among themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import LabelError

__all__ = ["in_order", "label_array", "plain", "unsortable"]


def plain(label: Any) -> Any:
    """A NumPy scalar as the Python object that the statistics are kept under."""
    return label.item() if isinstance(label, np.generic) else label


def in_order(labels: list[Any]) -> list[Any]:
    """Labels sorted; LabelError where they do not sort."""
    try:
        return sorted(labels)
    except TypeError as error:
        raise unsortable(error) from error


def label_array(labels: list[Any]) -> NDArray[Any]:
    """Labels as an array (K,), of objects where NumPy would otherwise change them (mixed or nested ones)."""
    if len({type(label) for label in labels}) == 1 and isinstance(labels[0], (bool, int, float, str)):
        return np.array(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def unsortable(error: TypeError) -> LabelError:
    """The error for labels of which none comes before the other."""
    return LabelError(f"labels must sort among themselves (got: {error})", hint="use one type of label")
