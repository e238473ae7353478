"""Views of a picture: parts that are embedded too, their embeddings averaged.

Averaging over crops is as old as convolutional networks (Krizhevsky et al., NeurIPS 2012, ten crops). Which crops pay
on frozen features with few samples is measured in docs/views.md; mirror images are not among them, for they make a
left hand of a right one.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Final

import numpy as np

from fieldshot.errors import OptionError
from fieldshot.images import Picture, size_of

__all__ = ["MOST", "check_budget", "check_views", "views_of"]

_SHARE: Final = 0.85  # of a side that a view shows

# Of each number of views where the parts lie: 0 at the left or top, 1 at the right or bottom; None is all of it.
_PLACES: Final[dict[int, tuple[tuple[float, float] | None, ...]]] = {
    1: (None,),
    2: (None, (0.5, 0.5)),
    3: (None, (0.0, 0.0), (1.0, 1.0)),
}
MOST: Final = max(_PLACES)


def check_views(views: object) -> int:
    """Give a number of views back, or refuse it.

    Raises
    ------
    OptionError
        If it is not 1, 2 or 3.
    """
    if isinstance(views, bool) or not isinstance(views, int) or views not in _PLACES:
        raise OptionError(f"views must be 1, 2 or 3 (got {views!r})", hint="1 is the picture alone")
    return views


def check_budget(budget_ms: Any) -> float:
    """Give a number of milliseconds back, or refuse it.

    Raises
    ------
    OptionError
        If it is not a finite number above 0.
    """
    number = isinstance(budget_ms, Real) and not isinstance(budget_ms, bool)
    if not number or not 0 < float(budget_ms) < math.inf:
        raise OptionError(
            f"budget_ms must be a number of milliseconds above 0 (got {budget_ms!r})",
            hint="33 is one frame of 30 a second",
        )
    return float(budget_ms)


def views_of(picture: Picture, views: int) -> list[Picture]:
    """The picture, and the parts of it that belong to this number of views."""
    return [picture if place is None else _part(picture, *place) for place in _PLACES[views]]


def _part(picture: Picture, across: float, down: float) -> Picture:
    height, width = size_of(picture)
    tall, wide = max(1, round(_SHARE * height)), max(1, round(_SHARE * width))
    top, left = round(down * (height - tall)), round(across * (width - wide))
    if isinstance(picture, np.ndarray):
        return picture[top : top + tall, left : left + wide]
    return picture.crop((left, top, left + wide, top + tall))
