"""What runs a network: the protocol of engines, how one is chosen, and the check that it gives the right embeddings."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.bundle import Bundle
from fieldshot.errors import EngineError, OptionError

__all__ = ["CHOICES", "Engine", "create"]

CHOICES: Final = ("auto", "onnxruntime", "tensorrt")

Floats = npt.NDArray[np.float32]


class Engine(Protocol):
    """A network that is ready to run; ``run`` and ``run_beside`` may be called from any thread.

    Attributes
    ----------
    name, precision : str
    workers : int
        Calls of ``run_beside`` at once that make the most of the device.
    batch_size : int
        Pictures in each of them, at most, that do.
    """

    name: str
    precision: str
    workers: int
    batch_size: int

    def run(self, batch: Floats) -> Floats:
        """Turn inputs of shape (n, 3, height, width) into embeddings of shape (n, D), both float32, soonest."""
        ...

    def run_beside(self, batch: Floats) -> Floats:
        """Like ``run``, for one of several calls at once: together soonest."""
        ...

    def info(self) -> dict[str, Any]:
        """What runs where, in words and numbers that JSON can hold."""
        ...


def create(choice: str, bundle: Bundle, threads: int | None, precision: str = "float32") -> Engine:
    """Build an engine for a bundle and check it on the verification pictures.

    Parameters
    ----------
    choice : {"auto", "onnxruntime", "tensorrt"}
        ``auto`` takes the fastest engine there is.
    bundle : Bundle
        The network.
    threads : int or None
        Threads of one run on the CPU; None lets the engine choose.
    precision : {"float32", "float16", "int8"}
        Which of the bundle's networks runs.

    Raises
    ------
    OptionError
        If ``choice``, ``threads`` or ``precision`` is none of these.
    BundleError
        If the bundle has no network in that precision.
    EngineError
        If the engine is not there, cannot run the network, or gives other embeddings than the bundle states.
    """
    if choice not in CHOICES:
        raise OptionError(f"engine must be one of {', '.join(CHOICES)} (got {choice!r})", hint="leave it at auto")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise OptionError(f"threads must be a whole number above 0, or None (got {threads!r})", hint="leave it at None")
    if choice == "tensorrt":
        raise EngineError(
            "engine must be onnxruntime in this version (got tensorrt)",
            hint="use engine='auto' or 'onnxruntime'",
        )
    from fieldshot.backbone.onnxruntime import OnnxRuntimeEngine

    engine = OnnxRuntimeEngine(bundle, threads, precision)
    _check(engine, bundle)
    return engine


def _check(engine: Engine, bundle: Bundle) -> None:
    pictures, expected = bundle.verification()
    got = engine.run(np.stack([bundle.preprocessing.apply(pixels) for pixels in pictures]))
    bounds = bundle.manifest["verify"][engine.precision]
    who = f"{engine.name} must reproduce the verification embeddings of {bundle.path}"
    hint = "upgrade or reinstall the engine; if that does not help, export the bundle again"
    if got.shape != expected.shape:
        raise EngineError(f"{who}, of shape {expected.shape} (got {got.shape})", hint=hint)
    if not np.isfinite(got).all():
        raise EngineError(f"{who} (got NaN or infinity)", hint=hint)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = float(((got * expected).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)).min())
    largest = float(np.abs(got - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
    # float32 sums round: a bound of 1 must let equal embeddings pass
    if cosine < bounds["cosine"] - 1e-6 or largest > bounds["max_abs"]:
        raise EngineError(
            f"{who} with a cosine of {bounds['cosine']} or more and differences up to {bounds['max_abs']} "
            f"(got {cosine:.6f} and {largest:.6f})",
            hint=hint,
        )
