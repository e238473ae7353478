"""How far a gallery can be trusted: what its own pictures would have been answered, had they not been enrolled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldshot.gallery import Gallery, Snapshot
from fieldshot.recognizer.model import Answer, Model

__all__ = ["Doubt", "LabelReport", "Report", "examined"]

_PARTS = 10  # of a label's pictures, left out in turn; so many fits are made
_FEW = 5  # pictures of a label; with fewer it is seldom well told from others
# Probability of its own label, at most, of a doubtful picture. Of 5 % wrong labels at 20 shots this finds twice as many
# as a bound of 90 % on the confidence in another label, with as few right ones among them.
_UNLIKELY = 0.02
_POOR = 0.8  # share of pictures recognised below which a label needs care
_MOST_DOUBTS = 20


@dataclass(frozen=True)
class LabelReport:
    """What became of a label's pictures when they were left out.

    Attributes
    ----------
    label : str
    pictures, negatives : int
        Enrolled, and rejected for it.
    left_out : int
        Pictures that were left out and asked about: all, or 0 where there is but one.
    recognized, unknown : int
        How many of those got the label, and none.
    taken_for : dict of str to int
        How many got each other label, the most first.
    """

    label: str
    pictures: int
    negatives: int
    left_out: int
    recognized: int
    unknown: int
    taken_for: dict[str, int]


@dataclass(frozen=True)
class Doubt:
    """A picture that looks as if it were enrolled under the wrong label.

    Attributes
    ----------
    label, source : str
        What it is enrolled as, and where it came from.
    looks_like : str
        The most probable label.
    probability, confidence : float
        Of its label, and of what it looks like.
    """

    label: str
    source: str
    looks_like: str
    probability: float
    confidence: float


@dataclass(frozen=True)
class Report:
    """The health of a gallery.

    Attributes
    ----------
    version : int
        Of the gallery.
    labels : tuple of LabelReport
        Sorted by label.
    doubts : tuple of Doubt
        The worst first, twenty at most; of labels of five pictures or more.
    advice : tuple of str
        What would help, in words; empty where nothing is to be done.
    """

    version: int
    labels: tuple[LabelReport, ...]
    doubts: tuple[Doubt, ...]
    advice: tuple[str, ...]


def examined(gallery: Gallery, model: Model, progress: Callable[[int, int | None], object] | None = None) -> Report:
    """Leave out a part of each label's pictures at a time, and ask what they show.

    Parameters
    ----------
    gallery : Gallery
    model : Model
        Heads are fitted with its settings.
    progress : callable, optional
        Called as ``progress(done, total)`` after each fit.

    Raises
    ------
    FieldshotError
        There are not two labels to choose from yet.
    """
    snapshot = gallery.snapshot(sources=True)
    model.advanced(snapshot).check()
    parts, pictures = _parts(snapshot)
    answers: dict[int, Answer] = {}
    total = int(parts.max(initial=-1)) + 1
    for part in range(total):
        out = parts == part
        got = model.advanced(_without(snapshot, out)).answers(snapshot.embeddings[out])
        answers.update(zip(out.nonzero()[0].tolist(), got, strict=True))
        if progress is not None:
            progress(part + 1, total)
    labels = tuple(_of_labels(snapshot, pictures, answers))
    doubts = tuple(_doubts(snapshot, pictures, answers))
    return Report(snapshot.version, labels, doubts, tuple(_advice(labels, doubts)))


def _parts(snapshot: Snapshot) -> tuple[NDArray[np.intp], Counter[str]]:
    """Which part each sample (N,) is of, -1 where it always stays: negatives, and lone pictures; pictures by label."""
    pictures: Counter[str] = Counter()
    parts = np.full(len(snapshot.labels), -1)
    for row in (~snapshot.negative).nonzero()[0].tolist():
        parts[row] = pictures[snapshot.labels[row]] % _PARTS
        pictures[snapshot.labels[row]] += 1
    return np.where([pictures[label] > 1 for label in snapshot.labels], parts, -1), pictures


def _without(snapshot: Snapshot, out: NDArray[np.bool_]) -> Snapshot:
    labels = [label for label, gone in zip(snapshot.labels, out.tolist(), strict=True) if not gone]
    return Snapshot(0, snapshot.version, labels, snapshot.negative[~out], snapshot.embeddings[~out], 0)


def _of_labels(snapshot: Snapshot, pictures: Counter[str], answers: dict[int, Answer]) -> Iterator[LabelReport]:
    stored = Counter(snapshot.labels)
    got: dict[str, Counter[str | None]] = {label: Counter() for label in sorted(stored)}
    for row, answer in answers.items():
        got[snapshot.labels[row]][answer.label] += 1
    for label, counts in got.items():
        others = {other: count for other, count in counts.most_common() if other is not None and other != label}
        own = pictures[label], stored[label] - pictures[label]
        yield LabelReport(label, *own, counts.total(), counts[label], counts[None], others)


def _doubts(snapshot: Snapshot, pictures: Counter[str], answers: dict[int, Answer]) -> list[Doubt]:
    doubts = []
    for row, answer in answers.items():
        label, looks_like = snapshot.labels[row], next(iter(answer.scores))
        if looks_like != label and answer.scores[label] <= _UNLIKELY and pictures[label] >= _FEW:
            doubts.append(Doubt(label, snapshot.sources[row], looks_like, answer.scores[label], answer.confidence))
    return sorted(doubts, key=lambda doubt: doubt.probability)[:_MOST_DOUBTS]


def _advice(labels: Sequence[LabelReport], doubts: Sequence[Doubt]) -> Iterator[str]:
    few = [f"{report.label!r} ({report.pictures})" for report in labels if report.pictures < _FEW]
    if few:
        yield f"enrol more pictures, {_FEW} or more a label, of {', '.join(few)}"
    for report in labels:
        if report.pictures < _FEW or report.recognized >= _POOR * report.left_out:
            continue
        of = f"of {report.left_out} pictures of {report.label!r}"
        other, taken = next(iter(report.taken_for.items()), ("", 0))
        if taken >= report.unknown:
            yield f"{taken} {of} are taken for {other!r}: enrol more of both that show what tells them apart"
        else:
            yield f"{report.unknown} {of} would be unknown: enrol more, from all sides and in any light that will occur"
    if doubts:
        yield "look at the doubtful pictures: one under the wrong label does harm, and is taken from it by a rejection"
