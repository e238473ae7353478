"""What an export tells its caller: stages as they pass, and at the end what was written and measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fieldshot_export.parity import Parity

Progress = Callable[[str, "float | None"], None]
"""Called with what is done: at the start of a stage with None, at its end with how long it took, in seconds."""


@dataclass(frozen=True)
class Report:
    """What `export` wrote and measured.

    Parameters
    ----------
    path : pathlib.Path
        The bundle.
    name, source, licence : str
        As in its manifest.
    dim : int
        Width D of the embedding.
    preprocessing : dict
        As in its manifest.
    size_bytes : int
        Size of the bundle.
    files : dict of str to int
        Size in bytes of each member but the manifest.
    parity : dict of str to Parity
        Per precision, how the embeddings compare to the source framework's; also of a precision that failed.
    left_out : dict of str to str
        Precisions that are not in the bundle, and why.
    notes : tuple of str
        What was changed in the network on the way.
    seconds : float
        Wall time.
    """

    path: Path
    name: str
    source: str
    licence: str
    dim: int
    preprocessing: dict[str, object]
    size_bytes: int
    files: dict[str, int]
    parity: dict[str, Parity]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class Stages:
    """Times the stages of an export and reports each to the callback as it begins and ends."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress or (lambda what, seconds: None)
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the first stage began."""
        return time.perf_counter() - self._started

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[list[str]]:
        """Run one stage; what is appended to the list it gives is reported at its end."""
        self._progress(what, None)
        started, detail = time.perf_counter(), []
        try:
            yield detail
        finally:
            done = f"{what}: {'; '.join(detail)}" if detail else what
            self._progress(done, time.perf_counter() - started)
