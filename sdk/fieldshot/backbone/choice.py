"""Which engine runs a network: what the caller asked for, else the fastest that there is and that passes the gate."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from fieldshot.backbone.bundle import Bundle
from fieldshot.backbone.engine import Engine
from fieldshot.backbone.handover import Handover
from fieldshot.backbone.parity import check_parity
from fieldshot.device import asked_index, device_count, find_device
from fieldshot.errors import DeviceError, DeviceMemoryError, EngineError, MissingDependencyError, OptionError

if TYPE_CHECKING:
    from fieldshot.backbone.tensorrt import TensorRTEngine
    from fieldshot.backbone.tensorrt.building import Progress
    from fieldshot.backbone.tensorrt.plans import Plan

__all__ = ["CHOICES", "create"]

CHOICES: Final = ("auto", "onnxruntime", "tensorrt")

_log = logging.getLogger("fieldshot")


def create(
    choice: str,
    bundle: Bundle,
    threads: int | None,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Engine | Handover:
    """Make an engine for a bundle and check it on the verification pictures.

    Parameters
    ----------
    choice : {"auto", "onnxruntime", "tensorrt"}
        ``auto`` takes TensorRT where it is installed and FIELDSHOT_DEVICE allows a GPU; while its plan is built, and
        where it cannot reproduce the embeddings, ONNX Runtime serves. ``tensorrt`` waits for the plan, and takes the
        next safer precision where it cannot reproduce the embeddings in the one that was asked for.
    bundle : Bundle
        The network.
    threads : int or None
        Threads of one run on the CPU; None lets the engine choose.
    precision : {"float32", "float16", "int8"}
        Which of the bundle's networks runs.
    progress : callable, optional
        Called with the share of a plan that is built, from 0 to 1. Whoever watches waits for it with ``auto`` too.

    Returns
    -------
    Engine or Handover
        The latter where another engine is on its way.

    Raises
    ------
    OptionError
        If ``choice``, ``threads`` or ``precision`` is none of these.
    BundleError
        If the bundle has no network in that precision.
    MissingDependencyError, DeviceError
        If TensorRT is asked for by name and it, PyCUDA or a device is not there.
    EngineError
        If no engine that was asked for can run the network and give the embeddings that the bundle states.
    """
    if choice not in CHOICES:
        raise OptionError(f"engine must be one of {', '.join(CHOICES)} (got {choice!r})", hint="leave it at auto")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise OptionError(f"threads must be a whole number above 0, or None (got {threads!r})", hint="leave it at None")
    bundle.network(precision)
    if choice == "tensorrt":
        return _tensorrt(bundle, precision, progress)
    if choice == "auto":
        return _fastest(bundle, threads, precision, progress)
    return _onnxruntime(bundle, threads, precision)


def _onnxruntime(bundle: Bundle, threads: int | None, precision: str) -> Engine:
    from fieldshot.backbone.onnxruntime import OnnxRuntimeEngine, has_cuda

    passed_over = ""
    index = asked_index()
    # Without a device its CUDA provider would complain on stderr.
    if index is not None and has_cuda() and device_count() > index:
        try:
            engine = OnnxRuntimeEngine(bundle, threads, precision, index)
            check_parity(engine, bundle)
            return engine
        except EngineError as error:
            passed_over = f"onnxruntime on CUDA: {error}"
            _log.warning("onnxruntime runs on the CPU, for its CUDA provider is passed over: %s", error)
    engine = OnnxRuntimeEngine(bundle, threads, precision)
    engine.passed_over = passed_over
    check_parity(engine, bundle)
    return engine


def _tensorrt(bundle: Bundle, precision: str, progress: Progress | None) -> Engine:
    """In the precision that was asked for, or the next safer one that passes."""
    refused: list[str] = []
    held = bundle.precisions  # safest first
    for candidate in reversed(held[: held.index(precision) + 1]):
        try:
            engine = _checked(bundle, candidate, progress)
        except EngineError as error:
            refused.append(f"{candidate}: {error}")
            _log.warning("tensorrt in %s is passed over: %s", candidate, error)
        else:
            engine.passed_over = "; ".join(refused)
            return engine
    raise EngineError(
        f"tensorrt must run {bundle.path} and reproduce its embeddings (got {'; '.join(refused)})",
        hint="use engine='auto' or 'onnxruntime'",
    )


def _fastest(bundle: Bundle, threads: int | None, precision: str, progress: Progress | None) -> Engine | Handover:
    passed_over = "tensorrt: FIELDSHOT_DEVICE names no GPU"
    index = asked_index()
    if index is not None:
        try:
            find_device(index)  # first: importing TensorRT may take 110 MB, for nothing where there is no device
            from fieldshot.backbone.tensorrt import find_plan

            if progress is not None:
                return _checked(bundle, precision, progress)
            plan = find_plan(bundle, precision, index)
            engine = None if plan is None else _loaded(bundle, precision, index, plan)
            if engine is not None:
                check_parity(engine, bundle)
                return engine
        except (EngineError, DeviceMemoryError) as error:
            passed_over = f"tensorrt: {error}"
            _log.warning("onnxruntime serves, for tensorrt is passed over: %s", error)
        except (MissingDependencyError, DeviceError) as error:
            passed_over = f"tensorrt: {error}"
        else:
            return Handover(_onnxruntime(bundle, threads, precision), partial(_checked, bundle, precision))
    serving = _onnxruntime(bundle, threads, precision)
    serving.passed_over = "; ".join(filter(None, [passed_over, serving.passed_over]))
    return serving


def _checked(bundle: Bundle, precision: str, progress: Progress | None) -> TensorRTEngine:
    """The engine on the plan that is there or is built now, once it passed the gate."""
    from fieldshot.backbone.tensorrt import TensorRTEngine, obtain_plan

    index = asked_index() or 0
    engine = _loaded(bundle, precision, index, obtain_plan(bundle, precision, index, progress))
    if engine is None:
        plan = obtain_plan(bundle, precision, index, progress, anew=True)
        engine = TensorRTEngine(bundle, precision, index, plan)
    check_parity(engine, bundle)
    return engine


def _loaded(bundle: Bundle, precision: str, index: int, plan: Plan) -> TensorRTEngine | None:
    """The engine on a plan; None where one that was kept cannot be used and is to be built anew."""
    from fieldshot.backbone.tensorrt import TensorRTEngine

    try:
        return TensorRTEngine(bundle, precision, index, plan)
    except EngineError as error:
        if not plan.kept:
            raise
        _log.warning("the plan is built anew, for the one that was kept cannot be used: %s", error)
        return None
