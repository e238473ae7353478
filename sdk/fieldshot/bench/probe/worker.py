"""The process that is measured: starts cold, prepares its stages, then times a few calls whenever it is asked."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .clock import Reading, read, watch_devices
from .counted import mark_calls
from .heap import Heap
from .reference import reference
from .stages import STAGES, AbsentError, Bench, Stage

__all__ = ["main"]


def main() -> None:
    """Answer requests, one JSON document a line, until there are no more; the first line says what to prepare."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else prints does not disturb the answers

    def answer(document: Any) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    at_work = ["a recognition"]
    try:
        _serve(answer, at_work)
    except Exception as error:
        answer({"failed": _told(error, at_work[0])})
        raise


def _told(error: Exception, at_work: str) -> dict[str, str]:
    """What failed, for who measures: in the words of fieldshot's own errors, of whichever version, or where it did."""
    told = vars(error)
    if "hint" in told:
        return {"message": told["message"], "hint": told["hint"]}
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    return {
        "message": f"{at_work} must run (got {type(error).__name__}: {error}, in {where})",
        "hint": "leave it out with --suite if it was removed on purpose",
    }


def _serve(answer: Callable[[Any], None], at_work: list[str]) -> None:
    order = json.loads(sys.stdin.readline())
    bench = Bench(
        Path(order["folder"]),
        Path(order["bundle"]) if order["bundle"] else None,
        [Path(path) for path in order["pictures"]],
        order["options"],
        Path(order["gallery"]),
    )
    if order["counted"]:
        mark_calls(bench, order["stages"])
        answer({"facts": {"package": _package()}})
        return
    cold = None
    if not bench.gallery.exists():  # the first process of a side makes it for the others
        bench.recognizer("first").close()
        (bench.folder / "first.gallery").replace(bench.gallery)
    elif order["cold"]:
        cold = _cold(bench, order["spawned_ns"])
    watch_devices()
    ready: dict[str, Stage] = {}
    call_ns: dict[str, int] = {}
    absent: dict[str, str] = {}
    # What it looks like where a version does not have something yet; from any other it is a defect.
    lacks = (AttributeError, ImportError, KeyError, TypeError) if order["lacking"] else ()
    for name in order["stages"]:
        at_work[0] = name
        try:
            ready[name] = STAGES[name](bench)
            call_ns[name] = _warm_up(ready[name])
        except AbsentError as error:
            absent[name] = str(error)
        except lacks as error:
            absent[name] = f"{type(error).__name__}: {error}"
    work, heap = reference(), Heap()
    beside = min(_timed(work) for _ in range(5))
    gc.collect()
    gc.freeze()
    gc.disable()
    answer({"cold": cold, "absent": absent, "call_ns": call_ns, "reference": beside, "facts": _facts(bench)})
    for line in sys.stdin:
        plan = json.loads(line)
        bench.turn = plan["turn"]
        at_work[0] = plan["stage"]
        answer(_block(ready[plan["stage"]], plan, work, heap))
        gc.collect(0)


def _cold(bench: Bench, spawned_ns: int) -> dict[str, int]:
    """From the start of the process to the first recognition, in ns, and the bytes that it holds then."""
    from fieldshot.recognizer import Recognizer

    # A gallery keeps to its precision by itself.
    engine: dict[str, Any] = {name: value for name, value in bench.options.items() if name == "engine"}
    with Recognizer.open(bench.gallery, backbone=bench.bundle, **engine) as recognizer:
        recognizer.recognize(bench.pictures[0])
        return {
            "wall": time.monotonic_ns() - spawned_ns,
            "cpu": time.process_time_ns(),
            "memory": _resident(),
            "device-memory": _on_device(),
        }


def _resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _on_device() -> int:
    """Bytes that the process took on CUDA devices; 0 where it uses none, or the side does not tell."""
    try:
        from fieldshot.device import held_bytes
    except ImportError:
        return 0
    return max(0, held_bytes())


def _warm_up(stage: Stage) -> int:
    """How long a call takes undisturbed, in nanoseconds, about; on a GPU processor time would not say."""
    times = []
    for _ in range(6):
        argument = stage.prepare()
        start = read()
        stage.step(argument)
        times.append(read().since(start))
    return max(sorted(of.cpu for of in times)[2], min(of.wall for of in times))


def _timed(work: Callable[[], object]) -> int:
    """Processor time of a call in nanoseconds."""
    start = read()
    work()
    return read().since(start).cpu


def _block(stage: Stage, plan: dict[str, int], work: Callable[[], object], heap: Heap) -> dict[str, Any]:
    """Nanoseconds a call of each sample, on each clock, and those of the reference beside them."""
    (step, prepare), calls = stage, plan["calls"]
    samples: dict[str, list[float]] = {clock: [] for clock in Reading._fields}
    work()  # once for the caches, which the other side has just had
    beside = _timed(work)
    for number in range(-plan["warm"], plan["samples"]):
        heap.shake()
        argument = prepare()
        start = read()
        for _ in range(calls):
            step(argument)
        passed = read().since(start)
        if number >= 0:
            for clock, values in samples.items():
                values.append(getattr(passed, clock) / calls)
    return {**samples, "reference": beside}


def _facts(bench: Bench) -> dict[str, Any]:
    """What runs: versions, the backbone, and what computes heads."""
    import numpy
    import PIL

    import fieldshot

    facts = {
        "fieldshot": fieldshot.__version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "backbone": bench.backbone.info(),
        "package": _package(),
    }
    try:
        from fieldshot.ops import choose

        facts["head"] = choose().ops.about
    except (AttributeError, ImportError):
        facts["head"] = "unknown"
    return facts


def _package() -> str:
    """Where the fieldshot lies that is measured."""
    import fieldshot

    return str(Path(fieldshot.__file__).parent)
