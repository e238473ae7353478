"""How alike two sets of embeddings must be, and what embeddings can never be right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fieldshot.errors import ExportError
from fieldshot_export.source import Floats

TOLERANCES = {
    "float32": {"cosine": 0.99999, "max_abs": 1e-3},
    "float16": {"cosine": 0.999, "max_abs": 0.05},
    "int8": {"cosine": 0.95, "max_abs": 0.5},
}
"""Per precision the lowest cosine and the largest difference, as a fraction of the largest value expected."""

_HINTS = {
    "int8": "calibrate on more pictures of what the device will see (--calibrate DIR), or leave out --int8: some "
    "networks lose too much",
}

_ALIKE = 1e-5  # of the largest value: embeddings of different pictures that differ by less are one and the same


@dataclass(frozen=True)
class Parity:
    """How embeddings compare to those expected.

    Parameters
    ----------
    cosine : float
        Lowest cosine over the pictures; NaN where embeddings are not finite.
    max_abs : float
        Largest absolute difference, as a fraction of the largest absolute value expected.
    """

    cosine: float
    max_abs: float

    def __str__(self) -> str:
        return f"lowest cosine {self.cosine:.7f}, largest difference {self.max_abs:.1e} of the largest value"

    def within(self, precision: str) -> bool:
        """Tell whether this meets the tolerances of a precision; NaN never does."""
        bounds = TOLERANCES[precision]
        return self.cosine >= bounds["cosine"] and self.max_abs <= bounds["max_abs"]

    def require(self, precision: str) -> None:
        """Raise ExportError unless this meets the tolerances of a precision."""
        if not self.within(precision):
            bounds = TOLERANCES[precision]
            raise ExportError(
                f"the exported {precision} network must agree with its source, cosine at least "
                f"{bounds['cosine']}, difference at most {bounds['max_abs']} (got {self})",
                hint=_HINTS.get(precision, "the conversion changed the network; try another opset or a newer exporter"),
            )

    def bounds(self, precision: str) -> dict[str, float]:
        """What an engine may show: the tolerances; at int8, whose cost is each network's own, twice what is here."""
        if precision != "int8":
            return TOLERANCES[precision]
        least = TOLERANCES["float16"]  # engines round in more places than one
        return {
            "cosine": min(round(1 - 2 * (1 - self.cosine), 6), least["cosine"]),
            "max_abs": max(round(2 * self.max_abs, 6), least["max_abs"]),
        }


def compare(expected: Floats, got: Floats) -> Parity:
    """Compare embeddings of shape (n, D) with those expected."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return Parity(math.nan, math.inf)
    a, b = expected.astype(np.float64), got.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore"):  # an embedding of zeros has no direction: NaN
        cosine = float(((a * b).sum(axis=1) / norms).min())
    return Parity(cosine, float(np.abs(a - b).max() / np.abs(a).max()))


def check_embeddings(embeddings: Floats) -> None:
    """Refuse embeddings of a network that cannot tell pictures apart.

    Parameters
    ----------
    embeddings : ndarray of shape (n, D)
        What the source framework gives for different pictures.

    Raises
    ------
    ExportError
        They are not finite, or all the same.
    """
    if not np.isfinite(embeddings).all():
        bad = int((~np.isfinite(embeddings)).any(axis=1).sum())
        raise ExportError(
            f"the source's embeddings must be finite (got NaN or infinity in {bad} of {len(embeddings)})",
            hint="check the weights, and that --mean and --std are those that the network was trained with",
        )
    spread = float(np.ptp(embeddings, axis=0).max())
    if spread <= _ALIKE * float(np.abs(embeddings).max()):
        raise ExportError(
            f"the source must tell pictures apart (got the same embedding for all {len(embeddings)})",
            hint="check that the weights are the trained ones, and that --pictures holds different pictures",
        )


def statistics(embeddings: Floats) -> dict[str, object]:
    """Describe embeddings of shape (n, D) as a manifest does: count, mean and std per dimension, minimum."""

    def rounded(values: Floats) -> list[float]:
        return [float(f"{value:.6g}") for value in values]

    return {
        "count": len(embeddings),
        "mean": rounded(embeddings.mean(axis=0, dtype=np.float64)),
        "std": rounded(embeddings.std(axis=0, dtype=np.float64)),
        "minimum": float(embeddings.min()),
    }
