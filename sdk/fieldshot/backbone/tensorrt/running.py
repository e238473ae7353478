"""A plan that runs: memory and streams through PyCUDA, in the context that heads use too."""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.tensorrt.library import LOGGER, NAME, VERSION, refusals, trt
from fieldshot.device import Device, Workspace
from fieldshot.errors import EngineError

__all__ = ["Running"]

Floats = npt.NDArray[np.float32]

_numbers = count()
_INPUT, _OUTPUT = "input", "embedding"


class Running:
    """A network on a device; any thread may call it.

    Parameters
    ----------
    device : Device
    plan : bytes
        Made on this device by this TensorRT.
    dim : int
        Dimension D of the embeddings.

    Attributes
    ----------
    number : int
        No other in this process has it.
    memory_bytes : int
        What a run needs beside inputs and embeddings.

    Raises
    ------
    EngineError
        If TensorRT refuses the plan, or it is not of such a network.
    DeviceError
        As for `Device.current`.
    """

    def __init__(self, device: Device, plan: bytes, dim: int) -> None:
        self.device = device
        self.dim = dim
        self.number = next(_numbers)
        self._contexts: WeakKeyDictionary[Workspace, trt.IExecutionContext] = WeakKeyDictionary()
        self._making = threading.Lock()
        with device.current(), refusals() as errors:
            self._runtime = trt.Runtime(LOGGER)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{NAME} {VERSION} must load the plan (got: {'; '.join(errors) or 'nothing'})",
                hint="it is built anew; if that does not help, use engine='onnxruntime'",
            )
        device.closes(self)
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if names != {_INPUT, _OUTPUT}:
            raise EngineError(
                f"a plan must have the tensors {_INPUT} and {_OUTPUT} (got {', '.join(sorted(names))})",
                hint="export the bundle again",
            )
        self.memory_bytes: int = max(self._engine.device_memory_size_v2, 1)

    def run(self, batch: Floats) -> Floats:
        """Turn inputs (n, 3, height, width) into embeddings (n, D), both float32: one wait, at the end."""
        embeddings = np.empty((len(batch), self.dim), np.float32)
        with self.device.workspace() as space:
            source = space.put(np.ascontiguousarray(batch, np.float32))
            target = space.result(embeddings.nbytes)
            space.flush()
            self.launch(space, space.take(self.memory_bytes), source, target, batch.shape)
            space.fetch([(target, embeddings)])
        return embeddings

    def launch(self, space: Workspace, scratch: int, source: int, target: int, shape: tuple[int, ...]) -> None:
        """Start a run on a workspace's stream, from inputs at one address to embeddings at another.

        At `scratch` are `memory_bytes`: TensorRT would allocate them for each context and keep them, where a workspace
        shares them out.
        """
        context = self._context(space)
        context.set_device_memory(scratch, self.memory_bytes)
        context.set_tensor_address(_INPUT, source)
        context.set_tensor_address(_OUTPUT, target)
        with refusals() as errors:
            done = context.set_input_shape(_INPUT, shape) and context.execute_async_v3(space.stream.handle)
        if not done:
            raise EngineError(
                f"{NAME} {VERSION} must run a batch of shape {shape} (got: {'; '.join(errors) or 'nothing'})",
                hint="try a smaller batch_size, or engine='onnxruntime'",
            )

    def _context(self, space: Workspace) -> trt.IExecutionContext:
        """The execution context that belongs to a workspace, and so to one run at a time."""
        context = self._contexts.get(space)
        if context is None:
            with self._making:
                context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
            if context is None:
                raise EngineError(
                    f"{NAME} {VERSION} must make an execution context (got none)",
                    hint="free memory on the device, or use engine='onnxruntime'",
                )
            self._contexts[space] = context
        return context

    def close(self) -> None:
        """Give back what TensorRT holds on the device; it does not run any more."""
        with self.device.current():
            self._contexts.clear()
            del self._engine, self._runtime

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            with suppress(Exception):
                self.close()
