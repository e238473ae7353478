"""A plan that runs: memory and streams through PyCUDA, in the context that heads use too."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import count
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.tensorrt.library import NAME, VERSION, made, refusals, trt
from fieldshot.device import Device, Workspace
from fieldshot.errors import DeviceMemoryError, EngineError

__all__ = ["Running"]

Floats = npt.NDArray[np.float32]

_INPUT, _OUTPUT = "input", "embedding"
_KEPT = 4  # contexts of a workspace that stay as they are: of one picture, and of batches in one memory or another
_numbers = count()
_abandoned: list[Any] = []  # in a fork: freeing them there would end in an abort


class Running:
    """A network on a device; any thread may call it.

    Parameters
    ----------
    device : Device
    plan : bytes
        Made on this device by this TensorRT.
    size : (int, int)
        Height and width of the inputs.
    dim : int
        Dimension D of the embeddings.

    Attributes
    ----------
    memory_bytes : int
        What a run of the largest batch needs beside inputs and embeddings.

    Raises
    ------
    EngineError
        If TensorRT refuses the plan, or it is not of such a network.
    DeviceError
        As for `Device.current`; DeviceMemoryError if the plan does not fit into the device's memory.
    """

    def __init__(self, device: Device, plan: bytes, size: tuple[int, int], dim: int) -> None:
        self.device = device
        self.dim = dim
        self._spaces: WeakSet[Workspace] = WeakSet()
        self._needs: dict[tuple[int, ...], int] = {}
        # What workspaces keep for this one: a context that any batch changes, and those that graphs may hold.
        self._free, self._fixed = next(_numbers), next(_numbers)
        with device.current(), device.alone, refusals() as errors:
            self._runtime = made(trt.Runtime)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            got = "; ".join(errors) or "nothing"
            if re.search("out ?of ?memory|alloca", got, re.IGNORECASE):  # another plan would fare no better
                raise DeviceMemoryError(
                    f"{device.name} must have memory for the plan (got: {got})",
                    hint="close other programs on it, or use engine='onnxruntime'",
                )
            raise EngineError(
                f"{NAME} {VERSION} must load the plan (got: {got})",
                hint="it is built anew; if that does not help, use engine='onnxruntime'",
            )
        device.closes(self)
        tensors = dict(map(self._tensor, range(self._engine.num_io_tensors)))
        wanted = {_INPUT: f"FLOAT {(-1, 3, *size)}", _OUTPUT: f"FLOAT {(-1, dim)}"}
        # A longer embedding would be written past the end of its memory; where the plan leaves the length open (-1) the
        # gate has to tell.
        if tensors not in (wanted, {**wanted, _OUTPUT: "FLOAT (-1, -1)"}):
            raise EngineError(
                f"a plan of this network must have the tensors {_listed(wanted)} (got {_listed(tensors)})",
                hint="it is built anew; if that does not help, use engine='onnxruntime'",
            )
        self.memory_bytes: int = max(self._engine.device_memory_size_v2, 1)

    def _tensor(self, number: int) -> tuple[str, str]:
        name = self._engine.get_tensor_name(number)
        return name, f"{self._engine.get_tensor_dtype(name).name} {tuple(self._engine.get_tensor_shape(name))}"

    def run(self, batch: Floats) -> Floats:
        """Turn inputs (n, 3, height, width) into embeddings (n, D), both float32: one wait, at the end."""
        embeddings = np.empty((len(batch), self.dim), np.float32)
        with self.device.workspace() as space:
            source = space.put(np.ascontiguousarray(batch, np.float32))
            target = space.result(embeddings.nbytes)
            space.flush()
            context, size = self._changing(space), self.needs(space, batch.shape)
            place(context, space.take(size), size, source, target, batch.shape)
            self.start(context, space)
            space.fetch([(target, embeddings)])
        return embeddings

    def needs(self, space: Workspace, shape: tuple[int, ...]) -> int:
        """Bytes that a run needs for inputs of a shape: of a few pictures much less than `memory_bytes`."""
        if shape not in self._needs:
            self._needs[shape] = sized(self._changing(space), shape) or self.memory_bytes
        return self._needs[shape]

    def fixed(self, space: Workspace, scratch: int, source: int, target: int, shape: tuple[int, ...]) -> Fixed:
        """A context for one place and shape, which a graph may hold: nothing about it changes ever after.

        At `scratch` are as many bytes as it `needs`. TensorRT would allocate them for each context and keep them; a
        workspace shares them out.
        """
        at = scratch, source, target, shape
        kept: dict[object, Fixed] = space.kept.setdefault(self._fixed, {})
        found = kept.get(at)
        if found is None:
            context = self._context(space)
            place(context, scratch, self.needs(space, shape), source, target, shape)
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            found = kept[at] = Fixed(context)
        return found

    def start(self, context: trt.IExecutionContext, space: Workspace) -> None:
        """Start a run on a workspace's stream, in a context that knows its places."""
        with refusals() as errors:
            done = context.execute_async_v3(space.stream.handle)
        if not done:
            raise EngineError(
                f"{NAME} {VERSION} must run the network (got: {'; '.join(errors) or 'nothing'})",
                hint="try a smaller batch_size, or engine='onnxruntime'",
            )

    def _changing(self, space: Workspace) -> trt.IExecutionContext:
        """The workspace's context for any shape and place."""
        context = space.kept.get(self._free)
        if context is None:
            context = space.kept[self._free] = self._context(space)
        return context

    def _context(self, space: Workspace) -> trt.IExecutionContext:
        """An execution context that will belong to a workspace, and so to one run at a time."""
        with self.device.alone, refusals() as errors:
            context = made_context(self._engine)
        if context is None:
            raise EngineError(
                f"{NAME} {VERSION} must make an execution context (got: {'; '.join(errors) or 'none'})",
                hint="free memory on the device, or use engine='onnxruntime'",
            )
        self._spaces.add(space)
        return context

    def close(self) -> None:
        """Give back what TensorRT holds on the device; it does not run any more."""
        if self.device.forked:
            _abandoned.extend((self._runtime, self._engine, [space.kept for space in self._spaces]))
            return
        with self.device.current():
            for space in list(self._spaces):
                space.kept.pop(self._free, None)
                space.kept.pop(self._fixed, None)
            del self._engine, self._runtime

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            with suppress(Exception):
                self.close()


class Fixed:
    """An execution context that stays as it is; `number` is no other's in this process."""

    def __init__(self, context: trt.IExecutionContext) -> None:
        self.context, self.number = context, next(_numbers)


def _listed(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} {what}" for name, what in sorted(tensors.items(), reverse=True))


def made_context(engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
    """A context whose memory we give; on TensorRT-RTX one that compiles all that it needs when it first runs.

    Left to itself TensorRT-RTX starts with general kernels and compiles better ones meanwhile: a graph would keep those
    that it was captured with.
    """
    given = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context(given)
    rtx: Any = engine
    config = rtx.create_runtime_config()
    config.set_execution_context_allocation_strategy(given)
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    context: trt.IExecutionContext | None = rtx.create_execution_context(config)
    return context


def place(
    context: trt.IExecutionContext, scratch: int, size: int, source: int, target: int, shape: tuple[int, ...]
) -> None:
    """Tell a context where everything is."""
    sized(context, shape)
    context.set_device_memory(scratch, size)
    context.set_tensor_address(_INPUT, source)
    context.set_tensor_address(_OUTPUT, target)


def sized(context: trt.IExecutionContext, shape: tuple[int, ...]) -> int:
    """Tell a context the shape of its inputs; the bytes that it then needs, 0 where TensorRT cannot say."""
    if not context.set_input_shape(_INPUT, shape):
        raise EngineError(
            f"{NAME} {VERSION} must take inputs of shape {shape} (got a refusal)",
            hint="try a smaller batch_size, or engine='onnxruntime'",
        )
    size: int = context.update_device_memory_size_for_shapes()
    return size
