"""The engine of CUDA devices: a plan that TensorRT built for this very device, in the precision of its ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.bundle import Bundle
from fieldshot.backbone.engine import FromPictures
from fieldshot.backbone.tensorrt import plans
from fieldshot.backbone.tensorrt.building import RECIPE, Progress, build
from fieldshot.backbone.tensorrt.library import NAME, VERSION
from fieldshot.backbone.tensorrt.plans import Plan
from fieldshot.backbone.tensorrt.running import Running
from fieldshot.device import Device, find_device
from fieldshot.errors import DeviceError
from fieldshot.images import Picture, Preprocessing
from fieldshot.ops import Pending, find_ops
from fieldshot.ops.cuda import CudaCall, CudaOps, CudaRunner
from fieldshot.ops.preprocessing import launch_preprocess
from fieldshot.ops.runner import Call
from fieldshot.system import cores

__all__ = ["TensorRTEngine", "find_plan", "obtain_plan"]

_log = logging.getLogger("fieldshot")

_MOST = 16  # pictures in one run
_MAX_WORKERS = 4  # that read pictures while the device runs


class TensorRTEngine:
    """A network of a bundle in a TensorRT plan, built where it runs and kept there.

    Parameters
    ----------
    bundle : Bundle
        The network.
    precision : {"float32", "float16", "int8"}
        Which of the bundle's networks.
    index : int
        Which CUDA device.
    plan : Plan
        Of `find_plan` or `obtain_plan`, for these.

    Raises
    ------
    EngineError
        If TensorRT refuses the plan.
    DeviceError
        As for `Device.current`.
    """

    name = "tensorrt"
    batch_size = 8
    batch_sizes = range(1, _MOST + 1)

    def __init__(self, bundle: Bundle, precision: str, index: int, plan: Plan) -> None:
        self.precision = precision
        self.passed_over = ""
        self.workers = min(cores(), _MAX_WORKERS)
        self._running = Running(find_device(index), plan.data, bundle.preprocessing.size, bundle.dim)
        self._runner = _runner(index)
        self._about_plan = {"built": plan.built, "size_bytes": len(plan.data)}

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn inputs of shape (n, 3, height, width) into embeddings of shape (n, D), both float32.

        Raises
        ------
        EngineError
            If TensorRT fails.
        DeviceError
            If the device does, for instance for want of memory.
        """
        embeddings = np.empty((len(batch), self._running.dim), np.float32)
        for first in range(0, len(batch), _MOST):
            part = slice(first, first + _MOST)
            embeddings[part] = self._running.run(batch[part])
        return embeddings

    run_beside = run

    @property
    def pending(self) -> FromPictures | None:
        """Makes embeddings of pictures where there are kernels for this device; else `run` it is."""
        return None if self._runner is None else self._pending

    def _pending(self, pictures: Sequence[Picture], spec: Preprocessing) -> Pending:
        assert self._runner is not None  # `pending`
        running, N = self._running, len(pictures)
        shape = N, 3, *spec.size

        def launch(call: Call) -> int:
            assert isinstance(call, CudaCall)  # of this runner
            embeddings = call.out(np.float32, N, running.dim)
            inputs = call.scratch(np.float32, *shape)
            launch_preprocess(call, pictures, spec, inputs)
            scratch = call.scratch(np.uint8, running.needs(call.space, shape))
            fixed = running.fixed(call.space, scratch, inputs, embeddings, shape)
            call.do(("tensorrt", fixed.number), lambda: running.start(fixed.context, call.space))
            return embeddings

        # One picture is a camera's: it comes again in the same size.
        call = self._runner.repeated if N == 1 else self._runner.call
        return Pending((N, running.dim), self._runner, call, launch)

    def info(self) -> dict[str, Any]:
        """Versions, device, precision and the plan's age."""
        device = self._running.device
        return {
            "name": self.name,
            "version": f"{NAME} {VERSION}",
            "device": device.about,
            "precision": self.precision,
            "plan": self._about_plan,
            "memory_bytes": self._running.memory_bytes,
        }


def _runner(index: int) -> CudaRunner | None:
    """The kernels of a device, which are those of its heads; None where there are none."""
    try:
        ops = find_ops(f"cuda:{index}")
    except DeviceError as error:
        _log.info("pictures are made ready on the CPU, for there are no kernels for the device: %s", error)
        return None
    assert isinstance(ops, CudaOps)
    return ops.runner


def find_plan(bundle: Bundle, precision: str, index: int) -> Plan | None:
    """The plan of a bundle's network for a device, if it is built; errors as for `obtain_plan`."""
    return plans.find(_terms(bundle, precision, find_device(index)))


def obtain_plan(
    bundle: Bundle, precision: str, index: int, progress: Progress | None = None, *, anew: bool = False
) -> Plan:
    """The plan of a bundle's network for a device, from disk or built and kept there.

    Parameters
    ----------
    bundle, precision, index
        As for `TensorRTEngine`.
    progress : callable, optional
        Called with the share that is built, from 0 to 1; what it raises ends that.
    anew : bool
        Build it even if it is there.

    Raises
    ------
    OptionError, BundleError
        If `precision` is none of these, or the bundle has no such network.
    MissingDependencyError, DeviceError
        Without PyCUDA, or a device that can be used.
    EngineError
        If TensorRT cannot read or build the network.
    """
    device = find_device(index)

    def built() -> bytes:
        what = NAME, bundle.name, precision, device.name
        _log.warning("building the %s plan of %s in %s for %s, once; this may take minutes", *what)
        with device.current():
            return build(bundle.read(bundle.network(precision)), _MOST, progress)

    waiting = (lambda: None) if progress is None else partial(progress, 0.0)
    return plans.obtain(_terms(bundle, precision, device), built, waiting, anew=anew)


def _terms(bundle: Bundle, precision: str, device: Device) -> dict[str, object]:
    return {
        "network": bundle.manifest["files"][bundle.network(precision)]["sha256"],
        "tensorrt": f"{NAME} {VERSION}",
        "recipe": RECIPE,
        "batch_size": _MOST,
        "device": device.name,
        "capability": list(device.capability),
        "driver": list(device.driver),
        # Modules of one name may differ in these.
        "multiprocessors": device.multiprocessors,
        "memory_gib": round(device.memory_bytes / 2**30),
    }
