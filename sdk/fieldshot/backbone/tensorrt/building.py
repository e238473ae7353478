"""An ONNX network becomes a plan: what TensorRT runs on one kind of GPU.

The network is strongly typed: each tensor is computed in the type that the ONNX file states, so the precision is that
of the file, in every version of TensorRT alike. This takes minutes on a small device, and no GPU with TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fieldshot.backbone.tensorrt.library import LOGGER, NAME, VERSION, made, refusals, trt
from fieldshot.errors import EngineError

__all__ = ["RECIPE", "Progress", "build"]

RECIPE = "strongly typed, no TF32, user allocation, one profile tuned for 1"
"""What plans are built by; with another one they are others."""

Progress = Callable[[float], object]
"""Called with the share that is done, from 0 to 1; what it raises ends the build."""


def build(network: bytes, batch_size: int, progress: Progress | None = None) -> bytes:
    """Build the plan of a network for batches of 1 to `batch_size`, tuned for 1.

    A recognition is one picture. Of many, reading takes longer than the network: to tune it for them would not show.

    Parameters
    ----------
    network : bytes
        ONNX, with one input (N, 3, height, width).
    batch_size : int
        The largest batch that it will be run with.
    progress : callable, optional
        See `Progress`; may be called from another thread.

    Raises
    ------
    EngineError
        If TensorRT cannot read the network, naming the node, or build it.
    """
    builder = made(trt.Builder)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(network, definition)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # a 10-bit mantissa is not float32
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # of TensorRT-RTX: else a run may allocate, and be no graph
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    profile = builder.create_optimization_profile()
    source = definition.get_input(0)
    _, *sides = source.shape
    profile.set_shape(source.name, (1, *sides), (1, *sides), (batch_size, *sides))
    config.add_optimization_profile(profile)
    monitor = _Monitor(progress)
    config.progress_monitor = monitor
    with refusals() as errors:
        plan = builder.build_serialized_network(definition, config)
    if monitor.raised is not None:
        raise monitor.raised
    if plan is None:
        raise EngineError(
            f"{NAME} {VERSION} must build a plan of the network (got: {'; '.join(errors) or 'nothing'})",
            hint="free memory on the device, or use engine='onnxruntime'",
        )
    return bytes(memoryview(plan))


def _parse(network: bytes, definition: trt.INetworkDefinition) -> None:
    parser = trt.OnnxParser(definition, LOGGER)
    with refusals() as errors:
        parsed = parser.parse(network)
    if parsed and definition.num_inputs == 1:
        return
    got = "; ".join(_described(parser.get_error(i)) for i in range(parser.num_errors)) or "; ".join(errors)
    raise EngineError(
        f"{NAME} {VERSION} must read the network (got: {got or f'{definition.num_inputs} inputs'})",
        hint="use engine='onnxruntime', which runs it, or export the network without that operator",
    )


def _described(error: trt.ParserError) -> str:
    node = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
    return node + " ".join(error.desc().split())


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
    """Makes one share of TensorRT's nested phases; each fills a step of the phase that it is in."""

    def __init__(self, progress: Progress | None) -> None:
        trt.IProgressMonitor.__init__(self)
        self.raised: BaseException | None = None
        self._progress = progress
        self._phases: dict[str, tuple[float, float]] = {}  # running ones: where each begins, and how much a step is
        self._done: dict[str, int] = {}
        self._most = 0.0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Begin a phase: it fills the present step of its parent."""
        with self._remembering():
            self._start(phase_name, parent_phase, num_steps)

    def _start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        begin, width = self._phases.get(parent_phase or "", (0.0, 1.0))
        begin += width * self._done.get(parent_phase or "", 0)
        self._phases[phase_name] = begin, width / max(num_steps, 1)
        self._done[phase_name] = 0

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Take a step; False ends the build."""
        with self._remembering():
            self._step(phase_name, step)
        return self.raised is None and LOGGER.interrupted is None

    def _step(self, phase_name: str, step: int) -> None:
        begin, width = self._phases.get(phase_name, (0.0, 0.0))
        self._done[phase_name] = step + 1
        # Phases overlap and come again: a share never goes back.
        self._most = min(1.0, max(self._most, begin + width * (step + 1)))
        if self.raised is None and self._progress is not None:
            self._progress(self._most)

    def phase_finish(self, phase_name: str) -> None:
        """End a phase."""
        with self._remembering():
            self._phases.pop(phase_name, None)
            self._done.pop(phase_name, None)

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """Keep what is raised for `build`: TensorRT would swallow it, be it Control-C or of `progress`."""
        try:
            yield
        except BaseException as error:
            self.raised = self.raised or error
