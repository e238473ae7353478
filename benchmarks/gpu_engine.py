"""The TensorRT engine on a CUDA device: plans and their parity, latencies of a batch, and a recognition from the frame.

The network is the embedded backbone, in each precision that its bundle holds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fieldshot import Backbone, Recognizer
from fieldshot.backbone import Bundle
from fieldshot.backbone.parity import check_parity, deviation
from fieldshot.errors import EngineError, MissingDependencyError
from gpu_timing import Case, Floor, Timer, timed

Sides = dict[str, Callable[[], object]]


@contextmanager
def empty_cache() -> Iterator[None]:
    """No plan is there yet: how long one takes to build is to be seen."""
    before = os.environ.get("FIELDSHOT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FIELDSHOT_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["FIELDSHOT_CACHE"]
            else:
                os.environ["FIELDSHOT_CACHE"] = before


def built(results: Any, bundle: Bundle) -> dict[str, Any]:
    """The engines that pass the gate, by precision, and in the results how they were built and how exact they are."""
    from fieldshot.backbone.tensorrt import TensorRTEngine, obtain_plan

    engines, figures = {}, results.figures["engine"]
    for precision in bundle.precisions:
        with results.part(f"plan in {precision}"):
            start = time.perf_counter()
            engine = TensorRTEngine(bundle, precision, 0, obtain_plan(bundle, precision, 0))
            seconds = time.perf_counter() - start
            check_parity(engine, bundle)
            pictures, expected = bundle.verification()
            found = engine.run(np.stack([bundle.preprocessing.apply(picture) for picture in pictures]))
            cosine, largest = deviation(found, expected)
            figures["plans"].append(
                {
                    **engine.info(),
                    "built in seconds": round(seconds, 2),
                    "least cosine": cosine,
                    "largest difference": largest,
                }
            )
            engines[precision] = engine
    rows = [[plan[key] for key in ("precision", *list(plan)[-3:])] for plan in figures["plans"]]
    results.table(["precision", "built in s", "least cosine", "largest difference"], rows)
    return engines


def bare(engine: Any, timer: Timer, inputs: np.ndarray) -> Callable[[], object]:
    """Nothing but the plan, from memory of the device to memory of the device, and the wait for it."""
    from fieldshot.backbone.tensorrt.running import made_context, place

    running, device = engine._running, timer.device
    with device.current():
        stream = device.cuda.Stream()
        context = made_context(running._engine)
        source, target = timer.allocate(inputs.nbytes), timer.allocate(4 * len(inputs) * running.dim)
        device.cuda.memcpy_htod(source, inputs)
        place(context, timer.allocate(running.memory_bytes), running.memory_bytes, source, target, inputs.shape)

    def run() -> None:
        with device.current():
            context.execute_async_v3(stream.handle)
            stream.synchronize()

    return run


def onnxruntime_sides(results: Any, bundle: Bundle, inputs: np.ndarray) -> Sides:
    """ONNX Runtime's CUDA provider, from and to the host, as its users call it."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        results.skip("latencies of onnxruntime on CUDA", "it comes without its CUDA provider")
        return {}
    session = onnxruntime.InferenceSession(bundle.read("backbone.onnx"), providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        results.skip("latencies of onnxruntime on CUDA", "its CUDA provider does not load")
        return {}
    return {"onnxruntime CUDA float32": lambda: session.run(["embedding"], {"input": inputs})}


def torch_sides(results: Any, inputs: np.ndarray, *, compiled: bool) -> Sides:
    """The same network in torch, eager, and compiled into CUDA graphs, from and to the host; weights are random."""
    try:
        import torch

        network = import_module("fieldshot_export.compact").compact().eval().cuda()
        fast = torch.compile(network, mode="reduce-overhead") if compiled else None
    except Exception as error:
        results.skip("latencies of torch", repr(error)[:300])
        return {}

    def side(module: Any) -> Callable[[], object]:
        def run() -> Any:
            with torch.inference_mode():
                return module(torch.from_numpy(inputs).cuda()).cpu().numpy()

        return run

    sides = {"torch eager float32": side(network)}
    return sides if fast is None else {**sides, "torch compiled float32": side(fast)}


def batch_case(results: Any, bundle: Bundle, engines: dict[str, Any], timer: Timer, n: int, *, quick: bool) -> Case:
    """A batch of inputs that are made ready."""
    height, width = bundle.preprocessing.size
    inputs = np.random.default_rng(n).normal(size=(n, 3, height, width)).astype(np.float32)
    sides: Sides = {}
    for precision, engine in engines.items():
        sides[f"fieldshot tensorrt {precision}, from and to the host"] = lambda engine=engine: engine.run(inputs)
        sides[f"bare TensorRT {precision}, on the device"] = bare(engine, timer, inputs)
    sides |= onnxruntime_sides(results, bundle, inputs)
    sides |= torch_sides(results, inputs, compiled=n == 1 and not quick)
    link = inputs.nbytes + 4 * n * bundle.dim
    return Case(f"network, batch of {n}", sides, Floor(link, link, 0.0))


def recognition_case(bundle: Bundle, engines: dict[str, Any], timer: Timer, height: int, width: int) -> Case:
    """From a frame in memory to the answer, among five classes of five pictures, beside nothing but the plan."""
    random = np.random.default_rng(0)
    frame = random.integers(0, 256, (height, width, 3), np.uint8)
    sides: Sides = {}
    for precision, engine in engines.items():
        backbone = Backbone(bundle, engine, path=None)
        folder = Path(tempfile.mkdtemp(), "site.gallery")
        recognizer = Recognizer.create(folder, backbone, device="cuda")
        recognizer.enroll_many(
            {f"class {k}": list(random.integers(50 * k, 50 * k + 56, (5, 64, 64, 3), np.uint8)) for k in range(5)}
        )
        sides[f"fieldshot recognize {precision}"] = lambda recognizer=recognizer: recognizer.recognize(frame)
        inputs = bundle.preprocessing.apply(frame)[None]
        sides[f"bare TensorRT {precision}, on the device"] = bare(engine, timer, inputs)
    return Case(f"recognition of a frame of {width} x {height}", sides, Floor(frame.nbytes, frame.nbytes, 0.0))


def check(results: Any, *, quick: bool) -> None:
    """Build, hold to the bundle, time; figures go to `results`."""
    bundle = Backbone.default(engine="onnxruntime").bundle
    figures = results.figures["engine"] = {"network": bundle.name, "plans": [], "cases": []}
    try:
        import_module("fieldshot.backbone.tensorrt")
    except MissingDependencyError as error:
        results.skip("the TensorRT engine", str(error))
        return
    from fieldshot.ops import find_ops

    timer = Timer(find_ops("cuda").runner.device)
    try:
        with empty_cache():
            engines = built(results, bundle)
        if not engines:
            raise EngineError("no plan passed the gate")
        runs = 2 if quick else 200
        for n in (1, 2) if quick else (1, 8, 16):
            with results.part(f"network, batch of {n}"):
                case = batch_case(results, bundle, engines, timer, n, quick=quick)
                figures["cases"].append(timed(case, timer, results, runs))
        with results.part("recognition"):
            shape = (108, 192) if quick else (1080, 1920)
            figures["cases"].append(timed(recognition_case(bundle, engines, timer, *shape), timer, results, runs))
    finally:
        timer.close()
