"""Processes that are measured: started, pinned, asked and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from fieldshot.bench.sides import Side
from fieldshot.errors import MeasurementError

__all__ = ["BOOT", "Worker", "pinned"]

PROBE = Path(__file__).with_name("probe")

# Loads the probe of this installation beside whichever fieldshot the side has.
BOOT = """
import importlib.util, sys
path = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "fieldshot_probe", path + "/__init__.py", submodule_search_locations=[path]
)
sys.modules["fieldshot_probe"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from fieldshot_probe.worker import main
"""


class Worker:
    """A fresh process of a side, ready to be asked; a context manager that ends it.

    Parameters
    ----------
    side : Side
    stages : sequence of str
        What it prepares.
    cold : bool
        Whether it measures its start, and what it holds then.
    pictures : sequence of Path
    cores : set of int or None
        Where it may run; None: anywhere.
    seed : int
        Order of Python's sets and dictionaries of strings: one for both sides of a round, another in the next.
    lacking : bool
        Whether a stage that fails for want of a name is absent, as in a version that is older than it.
    counter : sequence of str
        A command that runs the process and counts its instructions: it then makes the calls of its stages and ends.

    Attributes
    ----------
    about : dict
        `cold` (None where it was not measured), `absent` stages with the reason, `call_ns` of each stage, that of
        the `reference` workload, `facts`.

    Raises
    ------
    MeasurementError
        If the process ends before it is ready.
    """

    def __init__(
        self,
        side: Side,
        stages: Sequence[str],
        pictures: Sequence[Path],
        *,
        cores: set[int] | None,
        seed: int,
        cold: bool = False,
        lacking: bool = False,
        counter: Sequence[str] = (),
    ) -> None:
        self.side = side
        self._folder = tempfile.TemporaryDirectory(dir=side.root, prefix="work-")
        self._errors = tempfile.TemporaryFile(dir=side.root)  # noqa: SIM115 (closed in `close`)
        path = os.pathsep.join(filter(None, [os.fspath(side.root), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(seed)}
        started_ns = time.monotonic_ns()
        command = [*counter, sys.executable, "-c", BOOT + (side.entry or "main()"), str(PROBE)]
        with pinned(cores):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                cwd=self._folder.name,  # not the caller's: a folder there named fieldshot would be imported
                text=True,
            )
        self.about = self._say(
            folder=self._folder.name,
            bundle=None if side.bundle is None else os.fspath(side.bundle),
            pictures=[os.fspath(path) for path in pictures],
            options=dict(side.options),
            stages=list(stages),
            cold=cold,
            lacking=lacking,
            counted=bool(counter),
            gallery=os.fspath(side.root / "bench.gallery"),
            spawned_ns=started_ns,
        )
        package = Path(self.about["facts"]["package"]).resolve()
        if package.parent != side.root.resolve():
            self.close()
            raise MeasurementError(
                f"the measured process must import fieldshot from {side.root} (got {package})",
                hint="is another fieldshot on the path of every Python here, by a .pth file or sitecustomize?",
            )

    def ask(self, stage: str, plan: dict[str, int], turn: int) -> dict[str, Any]:
        """Time one block: nanoseconds a call of each sample, `wall` and `cpu`, and of the `reference` beside it."""
        answer: dict[str, Any] = self._say(stage=stage, turn=turn, **plan)
        return answer

    def _say(self, **document: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            told = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            self.close()
            raise MeasurementError(
                f"the process of {self.side.about} must run its stages (got: {told[-1] if told else 'no answer'})",
                hint="run `fieldshot bench` with that version and these pictures to see more",
            )
        answer = json.loads(line)
        if "failed" in answer:
            self.close()
            failed = answer["failed"]
            raise MeasurementError(f"{failed['message']}, in {self.side.about}", hint=failed["hint"])
        return answer

    def close(self) -> None:
        """End the process and remove what it wrote."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def pinned(cores: set[int] | None) -> Iterator[None]:
    """Within it this thread, and the processes that it starts, run on these cores."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
