"""The engine that runs everywhere: ONNX Runtime, on the CPU or by its CUDA provider."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.int8 import for_cpu
from fieldshot.errors import BundleError, EngineError, MissingDependencyError
from fieldshot.system import cores

if TYPE_CHECKING:
    import onnxruntime

    from fieldshot.backbone.bundle import Bundle

__all__ = ["OnnxRuntimeEngine", "has_cuda"]

_MAX_WORKERS = 4  # each holds the buffers of a run
# Earlier ones, 1.21 aside, leave layers in float32 whose biases are, as TensorRT wants them.
_FAST_INT8: Final = (1, 23)
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_log = logging.getLogger("fieldshot")


class OnnxRuntimeEngine:
    """A network of a bundle in an inference session, and a second one for many pictures.

    The first spreads a run over all threads, for a single picture soonest. The second, made when it is first needed,
    runs on the thread that calls it: one picture takes longer, but as many as there are cores run side by side
    and none waits for another at every operator, nor for the threads that decode the next pictures.

    Parameters
    ----------
    bundle : Bundle
        The network.
    threads : int or None
        Threads of one run; None takes one for each core that the process may use.
    precision : {"float32", "float16", "int8"}
        Which of the bundle's networks. A CPU computes float16 in float32 and rounds: it takes longer.
    gpu : int, optional
        Number of the CUDA device that runs it; the CPU does if it is left out.

    Raises
    ------
    OptionError
        If ``precision`` is none of these.
    MissingDependencyError
        If onnxruntime is not installed.
    BundleError
        If the bundle has no such network, ONNX Runtime cannot load it, or its input and output are not those of the
        format.
    EngineError
        If ONNX Runtime has no CUDA provider that works on the device and has memory there, or in int8.
    """

    name = "onnxruntime"
    pending = None
    batch_sizes = ()  # the whole verification set at once says it all
    batch_size = 2  # of runs on one core; more gain nothing, and a worker's pictures no longer fit its cache

    def __init__(self, bundle: Bundle, threads: int | None, precision: str, gpu: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                f"onnxruntime must be installed (got: {error})", hint="pip install onnxruntime"
            ) from error
        if gpu is not None and precision == "int8":
            raise EngineError(
                "onnxruntime must run all of an int8 network (got a CUDA provider that runs little of it)",
                hint="install TensorRT, use precision='float16', or set FIELDSHOT_DEVICE=host",
            )
        self.workers = min(cores(), _MAX_WORKERS) if threads is None else threads
        self.precision = precision
        self.passed_over = ""
        self._bundle = bundle
        self._file = bundle.network(precision)
        self._threads = _default_threads() if threads is None else threads
        onnxruntime.disable_telemetry_events()  # a device tells nobody what it does
        self._version = onnxruntime.__version__
        self._gpu = gpu
        self._session = self._make_session(self._threads)
        if precision == "int8" and tuple(map(int, self._version.split(".")[:2])) < _FAST_INT8:
            _log.warning("int8 may be slower than float32 with onnxruntime %s: upgrade to 1.23 or newer", self._version)
        self._beside: onnxruntime.InferenceSession | None = None
        self._making = threading.Lock()
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = {node.name: node for node in self._session.get_outputs()}
        if list(inputs) != ["input"] or inputs["input"].type != "tensor(float)" or "embedding" not in outputs:
            raise BundleError(
                f"{bundle.path}: {self._file} must have the float32 input 'input' and an output 'embedding' "
                f"(got {', '.join(inputs)} and {', '.join(outputs)})",
                hint="export the bundle again",
            )

    def _make_session(self, threads: int) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # Threads may spin for 20 us between the operators of a run, and not at all after it. ONNX Runtime's own choice
        # burns a core for over 20 ms after each run, and takes twice as long beside another busy process; without any
        # spinning a single picture takes 25 to 40 % longer on an idle machine.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "20")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        network = self._bundle.read(self._file)
        try:
            if self._gpu is None:
                network = for_cpu(network) if self.precision == "int8" else network
                return onnxruntime.InferenceSession(network, sess_options=options, providers=[_CPU])
            cuda = {"device_id": self._gpu, "use_tf32": 0}  # a mantissa of 10 bits is not float32
            session = onnxruntime.InferenceSession(network, sess_options=options, providers=[(_CUDA, cuda), _CPU])
        except Exception as error:  # its exceptions share no base of their own
            if self._gpu is not None:  # the network may be as it should be: a CPU will tell
                raise EngineError(
                    f"onnxruntime {self._version} must load {self._file} on CUDA device {self._gpu}"
                    f" (got: {_line(error)})",
                    hint="free memory on the device, or set FIELDSHOT_DEVICE=host",
                ) from error
            raise BundleError(
                f"{self._bundle.path}: {self._file} must load in ONNX Runtime {self._version} (got: {_line(error)})",
                hint="upgrade onnxruntime, or export the bundle again",
            ) from error
        if session.get_providers()[0] != _CUDA:
            raise EngineError(
                f"onnxruntime {self._version} must run on CUDA device {self._gpu} (got {session.get_providers()[0]})",
                hint="install the CUDA and cuDNN that it was built for, or set FIELDSHOT_DEVICE=host",
            )
        return session

    def run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn inputs of shape (n, 3, height, width) into embeddings of shape (n, D), both float32.

        Raises
        ------
        EngineError
            If ONNX Runtime fails, for instance for want of memory.
        """
        return _run(self._session, batch)

    def run_beside(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Like ``run``, on the calling thread alone; on a GPU it is the same."""
        if self._gpu is not None:
            return _run(self._session, batch)
        with self._making:
            if self._beside is None:
                self._beside = self._make_session(1)
        return _run(self._beside, batch)

    def info(self) -> dict[str, Any]:
        """Version and threads; 0 threads: ONNX Runtime's own choice, one for each physical core."""
        return {
            "name": self.name,
            "version": self._version,
            "provider": self._session.get_providers()[0],
            "precision": self.precision,
            "threads": self._threads,
        }


def has_cuda() -> bool:
    """Whether ONNX Runtime is installed with its CUDA provider."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return _CUDA in onnxruntime.get_available_providers()


def _run(session: onnxruntime.InferenceSession, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    try:
        (embeddings,) = session.run(["embedding"], {"input": batch})
    except Exception as error:  # its exceptions share no base of their own
        raise EngineError(
            f"onnxruntime must run a batch of shape {batch.shape} (got: {_line(error)})",
            hint="try a smaller batch_size",
        ) from error
    return np.asarray(embeddings, np.float32)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _default_threads() -> int:
    # ONNX Runtime's own choice, one thread a physical core, knows nothing of a restricted set of CPUs.
    return 0 if cores() == os.cpu_count() else cores()
