"""Run the main job on a task and measure it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.backbone import Backbone
from fieldshot.demo.pictures import Task, from_folder, from_packages
from fieldshot.demo.sheet import Answered, draw
from fieldshot.evaluation import evaluate
from fieldshot.head import FewShotHead
from fieldshot.recognizer import Recognizer

__all__ = ["SHEET", "DemoResult", "DemoRow", "run"]

SHEET = "sheet.png"
"""Name of the contact sheet in its folder."""

_SHOTS = (1, 5, 20)
_EPISODES = 50
_SHOWN = 48  # queries on the contact sheet

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DemoRow:
    """One task at one number of shots.

    Attributes
    ----------
    task : str
    classes, shots : int
    accuracy, interval : float
        Over `_EPISODES` draws of the support, all classes at once, in [0, 1]; half width of the 95 % interval. The best
        label counts, also where the recognizer would say that it is unknown.
    unknown : float
        Share of the queries of one draw of which it does say that.
    enrol_ms, refit_ms, recognize_ms : float
        Enrolment of one picture (decode, embed, store), one refit of the head on all, and one recognition.
    """

    task: str
    classes: int
    shots: int
    accuracy: float
    interval: float
    unknown: float
    enrol_ms: float
    refit_ms: float
    recognize_ms: float


@dataclass(frozen=True)
class DemoResult:
    """Rows of the table and the path of the contact sheet (PNG)."""

    rows: list[DemoRow]
    sheet: Path

    def table(self) -> str:
        """The rows as text."""
        lines = ["task          classes  shots   accuracy        unknown  enrol/picture    refit  recognize"]
        lines += [
            f"{r.task[:12]:12}  {r.classes:7}  {r.shots:5}  {100 * r.accuracy:5.1f} % +- {100 * r.interval:3.1f}"
            f"  {100 * r.unknown:5.0f} %  {r.enrol_ms:10.1f} ms  {r.refit_ms:4.1f} ms  {r.recognize_ms:6.1f} ms"
            for r in self.rows
        ]
        return "\n".join(lines)


def run(data: Path | None, backbone: Backbone, out: Path, *, progress: Progress | None = None) -> DemoResult:
    """Enrol and recognise, at 1, 5 and 20 shots as far as the pictures go.

    Parameters
    ----------
    data : Path or None
        Folder of classes; None takes photographs and digits out of scikit-image and scikit-learn.
    out : Path
        Folder for `sheet.png`, made where it is missing.
    progress : callable, optional
        Called as ``progress(done, total)``.
    """
    tasks = from_packages() if data is None else [from_folder(data)]
    out.mkdir(parents=True, exist_ok=True)
    steps = sum(len(_shots(task)) for task in tasks)
    rows: list[DemoRow] = []
    answered: list[Answered] = []
    for task in tasks:
        Z, y = _embedded(backbone, task.support)
        test = _embedded(backbone, task.query)
        for shots in _shots(task):
            if progress is not None:
                progress(len(rows), steps)
            accuracy, interval = _accuracy(Z, y, test, shots)
            enrol_ms, answers = _enrolled(task, shots, backbone)
            unknown = float(np.mean([answer.recognition.label is None for answer in answers]))
            latency = float(np.median([answer.recognition.latency_ms for answer in answers]))
            times = enrol_ms, _refit_ms(Z, y, shots), latency
            rows.append(DemoRow(task.name, len(task.support), shots, accuracy, interval, unknown, *times))
        answered += answers[:: max(1, len(answers) * len(tasks) // _SHOWN)]
    if progress is not None:
        progress(steps, steps)
    sheet = out / SHEET
    draw(answered, sheet)
    return DemoResult(rows, sheet)


def _shots(task: Task) -> list[int]:
    most = min(len(pictures) for pictures in task.support.values())
    return [shots for shots in _SHOTS if shots <= most]


def _embedded(backbone: Backbone, pictures: dict[str, list[Any]]) -> tuple[Floats, NDArray[np.str_]]:
    labels = np.repeat(list(pictures), [len(of) for of in pictures.values()])
    return backbone.embed([picture for of in pictures.values() for picture in of]), labels


def _accuracy(Z: Floats, y: NDArray[np.str_], test: tuple[Floats, NDArray[np.str_]], shots: int) -> tuple[float, float]:
    ways = len(np.unique(y))
    queries = min(int(np.sum(test[1] == label)) for label in np.unique(y))
    (row,) = evaluate(Z, y, test=test, ways=ways, shots=[shots], queries=queries, episodes=_EPISODES)
    return row.accuracy, row.interval


def _refit_ms(Z: Floats, y: NDArray[np.str_], shots: int) -> float:
    first = np.concatenate([np.flatnonzero(y == label)[:shots] for label in np.unique(y)])
    times = []
    for _ in range(5):
        started = time.perf_counter()
        FewShotHead().fit(Z[first], y[first])
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def _enrolled(task: Task, shots: int, backbone: Backbone) -> tuple[float, list[Answered]]:
    """Milliseconds to enrol one picture, and what a recognizer then says of each query."""
    support = {label: pictures[:shots] for label, pictures in task.support.items()}
    with (
        tempfile.TemporaryDirectory() as folder,
        Recognizer.create(Path(folder) / "demo.gallery", backbone) as recognizer,
    ):
        started = time.perf_counter()
        results = recognizer.enroll_many(support)
        enrol_ms = 1e3 * (time.perf_counter() - started) / max(1, sum(result.added for result in results))
        return enrol_ms, [
            Answered(picture, label, recognizer.recognize(picture))
            for label, pictures in task.query.items()
            for picture in pictures
        ]
