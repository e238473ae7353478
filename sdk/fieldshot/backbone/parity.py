"""The gate that every engine passes before it serves: it gives the embeddings that the bundle states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.bundle import Bundle
from fieldshot.backbone.engine import Engine
from fieldshot.errors import EngineError

__all__ = ["check_parity", "deviation"]

Floats = npt.NDArray[np.float32]

_HINT = "upgrade or reinstall the engine; if that does not help, export the bundle again"


def check_parity(engine: Engine, bundle: Bundle) -> None:
    """Run the verification pictures, all at once and in batches of every size that the engine runs differently.

    Raises
    ------
    EngineError
        If an embedding is not finite, or further from the stated one than the bundle allows in this precision.
    """
    pictures, expected = bundle.verification()
    inputs = np.stack([bundle.preprocessing.apply(pixels) for pixels in pictures])
    bounds = bundle.manifest["verify"][engine.precision]

    def compare(found: Floats, rows: npt.NDArray[np.intp], how: str) -> None:
        what = (
            f"{engine.name} must reproduce in {engine.precision}, {how}, the verification embeddings of {bundle.path}"
        )
        _compare(found, expected[rows], bounds, what)

    for size in (len(inputs), *engine.batch_sizes):
        rows = np.arange(size) % len(inputs)
        compare(engine.run(inputs[rows]), rows, f"{size} at a time")
    if engine.pending is None:
        return
    together = engine.pending(pictures[:2], bundle.preprocessing).fetch()  # as an enrolment has it
    compare(together, np.arange(len(together)), "two pictures at a time")
    # As a recognition has it: kernel by kernel at first, then captured, then as a graph; with batches in between.
    for time in ("first", "second", "third", "fourth"):
        for row, picture in enumerate(pictures[:2]):
            found = engine.pending([picture], bundle.preprocessing).fetch()
            compare(found, np.array([row]), f"from the picture, the {time} time")
        engine.run(inputs)


def deviation(got: Floats, expected: Floats) -> tuple[float, float]:
    """Least cosine of embeddings (n, D), and largest difference as a share of the largest number expected."""
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = float(((got * expected).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)).min())
    largest = float(np.abs(got - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
    return cosine, largest


def _compare(got: Floats, expected: Floats, bounds: dict[str, float], what: str) -> None:
    if got.shape != expected.shape:
        raise EngineError(f"{what}, of shape {expected.shape} (got {got.shape})", hint=_HINT)
    if not np.isfinite(got).all():
        raise EngineError(f"{what} (got NaN or infinity)", hint=_HINT)
    cosine, largest = deviation(got, expected)
    # float32 sums round: a bound of 1 must let equal embeddings pass
    if cosine < bounds["cosine"] - 1e-6 or largest > bounds["max_abs"]:
        raise EngineError(
            f"{what} with a cosine of {bounds['cosine']} or more and differences up to {bounds['max_abs']} "
            f"(got {cosine:.6f} and {largest:.6f})",
            hint=_HINT,
        )
