"""A stand-in for TensorRT on the stand-in driver: a plan is its ONNX network, ONNX Runtime computes it.

It keeps to what TensorRT asks of its callers, and refuses or aborts where a GPU would give rubbish: a context needs
memory of its own, aligned, and belongs to one run at a time until that is done; addresses and shape must be set; work
happens on the stream, when somebody waits for it.

Environment:
    STANDIN_TENSORRT_VERSION      what it calls itself (10.3.0)
    STANDIN_TENSORRT_BUILD_S      how long a build takes (0)
    STANDIN_TENSORRT_WRONG        precision ("float16") that it computes wrongly, as some versions do transformers
    STANDIN_TENSORRT_WRONG_FROM   batch size from which on it computes wrongly
    STANDIN_TENSORRT_NAN          1: it gives NaN
    STANDIN_TENSORRT_BROKEN       1: neither a builder nor a runtime starts
    STANDIN_TENSORRT_FULL         1: the device has no memory for a plan
    STANDIN_TENSORRT_WRONG_GRAPH  1: what it computes in a graph is wrong
    STANDIN_TENSORRT_MEMORY       bytes that a run of the largest batch needs (4096)
    STANDIN_TENSORRT_REFUSES      precision whose networks it cannot parse
"""

from __future__ import annotations

import ctypes
import enum
import os
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime

__version__ = os.environ.get("STANDIN_TENSORRT_VERSION", "10.3.0")

_MAGIC = b"plan of " + __version__.encode() + b"\n"
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_driver = ctypes.CDLL("libcuda.so.1")


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 1


class DataType(enum.Enum):
    FLOAT = 0


class ExecutionContextAllocationStrategy(enum.Enum):
    USER_MANAGED = 2


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def node_name(self) -> str:
        return "conv_7"

    def node_operator(self) -> str:
        return "Conv"

    def desc(self) -> str:
        return self._text


class _Tensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class INetworkDefinition:
    network = b""

    @property
    def num_inputs(self) -> int:
        return int(bool(self.network))

    def get_input(self, index: int) -> _Tensor:
        return _Tensor("input", _session(self.network)[1])


def _session(network: bytes) -> tuple[onnxruntime.InferenceSession, tuple[int, ...]]:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    return session, tuple(side if isinstance(side, int) else -1 for side in node.shape)


def _precision(network: bytes) -> str:
    model = onnx.load_from_string(network)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    types = {tensor.data_type for tensor in model.graph.initializer}
    return "float16" if onnx.TensorProto.FLOAT16 in types else "float32"


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network, self._errors = network, list[ParserError]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse(self, network: bytes) -> bool:
        if _precision(network) == os.environ.get("STANDIN_TENSORRT_REFUSES"):
            self._errors.append(ParserError("not in this stand-in"))
            return False
        self._network.network = network
        return True


class _Profile:
    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        assert name == "input"
        self.shapes = tuple(least), tuple(best), tuple(most)


class _Config:
    progress_monitor: Any = None

    def clear_flag(self, flag: BuilderFlag) -> None:
        assert flag is BuilderFlag.TF32
        self.exact = True

    def add_optimization_profile(self, profile: _Profile) -> None:
        self.profile = profile


def _start() -> None:
    if os.environ.get("STANDIN_TENSORRT_BROKEN"):
        raise TypeError("pybind11::init(): factory function returned nullptr")


class Builder:
    def __init__(self, logger: Any) -> None:
        _start()

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: INetworkDefinition, config: _Config) -> bytes | None:
        assert config.exact
        monitor, steps = config.progress_monitor, 10
        monitor.phase_start("Building engine", None, steps)
        for step in range(steps):
            time.sleep(float(os.environ.get("STANDIN_TENSORRT_BUILD_S", "0")) / steps)
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        return _MAGIC + bytes([config.profile.shapes[2][0]]) + network.network


class Runtime:
    def __init__(self, logger: Any) -> None:
        _start()
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if os.environ.get("STANDIN_TENSORRT_FULL"):
            self._logger.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 4271788 bytes.)")
            return None
        if not plan.startswith(_MAGIC):
            self._logger.log(ILogger.Severity.ERROR, "Version tag does not match")
            return None
        return ICudaEngine(plan[len(_MAGIC)], plan[len(_MAGIC) + 1 :])


class ICudaEngine:
    num_io_tensors = 2
    device_memory_size_v2 = int(os.environ.get("STANDIN_TENSORRT_MEMORY", "4096"))

    def __init__(self, most: int, network: bytes) -> None:
        self.most, self.precision = most, _precision(network)
        self.session, self.shape = _session(network)

    def get_tensor_name(self, index: int) -> str:
        return ("input", "embedding")[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape if name == "input" else (-1, self.session.get_outputs()[0].shape[1])

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> IExecutionContext:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._memory = engine, (0, 0)
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self._busy = False
        self._changes = 0
        self._kept: list[Any] = []  # what a graph may call again

    def set_device_memory(self, memory: int, size: int) -> None:
        assert not self._busy, "memory was changed under a run"
        assert memory and memory % 256 == 0
        self._memory = memory, size
        self._changes += 1

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert not self._busy, "an address was changed under a run"
        self._addresses[name] = address
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape, self._needs = tuple(shape), self._engine.device_memory_size_v2
        self._changes += 1
        return 1 <= shape[0] <= self._engine.most and self._shape[1:] == self._engine.shape[1:]

    def update_device_memory_size_for_shapes(self) -> int:
        self._needs = -(-self._engine.device_memory_size_v2 * self._shape[0] // self._engine.most)
        self._changes += 1
        return self._needs

    def execute_async_v3(self, stream: int) -> bool:
        assert self._memory[1] >= self._needs and set(self._addresses) == {"input", "embedding"}
        assert not self._busy, "a context was used by two runs at once"
        capturing, changes = ctypes.c_int(), self._changes
        assert _driver.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(capturing)) == 0
        source, target = self._addresses["input"], self._addresses["embedding"]
        shape, memory = self._shape, self._memory

        def run(_: int | None) -> None:
            ctypes.memset(memory[0], 0xFF, memory[1])
            (embeddings,) = self._engine.session.run(None, {"input": _array(source, shape).copy()})
            wrong_from = int(os.environ.get("STANDIN_TENSORRT_WRONG_FROM", "1000"))
            wrong = self._engine.precision == os.environ.get("STANDIN_TENSORRT_WRONG") or len(embeddings) >= wrong_from
            if wrong or (capturing.value and os.environ.get("STANDIN_TENSORRT_WRONG_GRAPH")):
                embeddings = embeddings[:, ::-1]
            # A graph holds what is inside of its context: it gives rubbish once that was changed.
            if os.environ.get("STANDIN_TENSORRT_NAN") or self._changes != changes:
                embeddings = embeddings * np.nan
            _array(target, embeddings.shape)[:] = embeddings
            self._busy = False

        self._busy = not capturing.value  # a graph runs when it is launched, if ever
        self._kept.append(_CALLBACK(run))
        return bool(_driver.cuLaunchHostFunc(ctypes.c_void_p(stream), self._kept[-1], None) == 0)


def _array(address: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape)
