"""How far a gallery can be trusted: what pictures whose label is known are answered, and what would help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldshot.backbone import Backbone
from fieldshot.gallery import Gallery, Snapshot, clean_label
from fieldshot.recognizer.intake import Progress, embedded
from fieldshot.recognizer.model import Answer, Model

__all__ = ["Doubt", "LabelReport", "Report", "examined", "judged"]

_PARTS = 10  # of a label's pictures, left out in turn; so many fits are made
_FEW = 5  # pictures of a label; with fewer it is seldom well told from others
_GOOD = 0.8  # share of a label's pictures recognized from which on nothing need be done
# Probability of its own label, at most, of a doubtful picture. Of 5 % wrong labels at 20 shots this finds twice as many
# as a bound of 90 % on the confidence in another label, with as few right ones among them.
_UNLIKELY = 0.02
_MOST_DOUBTS = 20


@dataclass(frozen=True)
class LabelReport:
    """What the pictures of a label were answered.

    Attributes
    ----------
    label : str
    pictures, negatives : int
        Enrolled, and rejected for it.
    asked : int
        Pictures that were asked about. Of its own all, or none where it has but one.
    recognized, unknown : int
        How many of those got the label, and none.
    taken_for : dict of str to int
        How many got each other label, the most first.
    """

    label: str
    pictures: int
    negatives: int
    asked: int
    recognized: int
    unknown: int
    taken_for: dict[str, int]


@dataclass(frozen=True)
class Doubt:
    """A picture that looks as if it had the wrong label.

    Attributes
    ----------
    label, source : str
        What it is said to be, and where it came from.
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
    """How far a gallery can be trusted.

    Attributes
    ----------
    version : int
        Of the gallery.
    labels : tuple of LabelReport
        Sorted by label.
    doubts : tuple of Doubt
        The worst first, twenty at most; only of labels of five pictures or more, for fewer do not say what is odd.
    advice : tuple of str
        What would help, in words, the most urgent first; empty where nothing is to be done.
    """

    version: int
    labels: tuple[LabelReport, ...]
    doubts: tuple[Doubt, ...]
    advice: tuple[str, ...]


class _Asked(NamedTuple):
    """A picture whose label is known, and what it was answered."""

    label: str
    source: str
    answer: Answer


def examined(gallery: Gallery, model: Model, progress: Progress | None = None) -> Report:
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
    parts = _parts(snapshot)
    asked: list[_Asked] = []
    total = int(parts.max(initial=-1)) + 1
    if total == 0:
        model.advanced(snapshot).check()
    for part in range(total):
        out = parts == part
        rest = model.advanced(_without(snapshot, out))
        rest.check()
        answers = rest.answers(snapshot.embeddings[out])
        for row, answer in zip(out.nonzero()[0].tolist(), answers, strict=True):
            asked.append(_Asked(snapshot.labels[row], snapshot.sources[row], answer))
        if progress is not None:
            progress(part + 1, total)
    stored = Counter(zip(snapshot.labels, snapshot.negative.tolist(), strict=True))
    counts = {label: (stored[label, False], stored[label, True]) for label in snapshot.labels}
    return _reported(snapshot.version, counts, asked)


def judged(
    gallery: Gallery, model: Model, backbone: Backbone, pictures: Mapping[str, object], progress: Progress | None = None
) -> Report:
    """Ask what pictures of known labels show, which may be labels that were never enrolled.

    Parameters
    ----------
    gallery : Gallery
    model : Model
        What answers.
    backbone : Backbone
    pictures : mapping of label to pictures
    progress : callable, optional
        Called as ``progress(done, total)`` after each batch.

    Raises
    ------
    PictureError, MissingFileError
        A picture cannot be read.
    FieldshotError
        There are not two labels to choose from yet.
    """
    model.check()
    classes = [(clean_label(label), images) for label, images in pictures.items()]
    asked: list[_Asked] = []
    for batch in embedded(backbone, classes, keep_pictures=False, skip_unreadable=False, progress=progress):
        answers = model.answers(np.stack([sample.embedding for sample in batch.samples]))
        asked += [_Asked(batch.label, s.source, answer) for s, answer in zip(batch.samples, answers, strict=True)]
    return _reported(model.version, gallery.counts(), asked)


def _parts(snapshot: Snapshot) -> NDArray[np.intp]:
    """Which part each sample (N,) is of; -1 where it always stays: negatives, and lone pictures."""
    pictures: Counter[str] = Counter()
    parts = np.full(len(snapshot.labels), -1)
    for row in (~snapshot.negative).nonzero()[0].tolist():
        parts[row] = pictures[snapshot.labels[row]] % _PARTS
        pictures[snapshot.labels[row]] += 1
    return np.where([pictures[label] > 1 for label in snapshot.labels], parts, -1)


def _without(snapshot: Snapshot, out: NDArray[np.bool_]) -> Snapshot:
    labels = [label for label, gone in zip(snapshot.labels, out.tolist(), strict=True) if not gone]
    return Snapshot(0, snapshot.version, labels, snapshot.negative[~out], snapshot.embeddings[~out], 0)


def _reported(version: int, counts: Mapping[str, tuple[int, int]], asked: Sequence[_Asked]) -> Report:
    got: dict[str, Counter[str | None]] = {label: Counter() for label in sorted({*counts, *(a.label for a in asked)})}
    for label, _, answer in asked:
        got[label][answer.label] += 1
    labels = []
    for label, answered in got.items():
        others = {other: count for other, count in answered.most_common() if other is not None and other != label}
        stored = counts.get(label, (0, 0))
        labels.append(LabelReport(label, *stored, answered.total(), answered[label], answered[None], others))
    doubts = sorted(_doubts(labels, asked), key=lambda doubt: doubt.probability)[:_MOST_DOUBTS]
    return Report(version, tuple(labels), tuple(doubts), tuple(_advice(labels, doubts)))


def _doubts(labels: Sequence[LabelReport], asked: Sequence[_Asked]) -> Iterator[Doubt]:
    pictures = {of.label: of.pictures for of in labels}
    for label, source, answer in asked:
        probability, looks_like = answer.scores.get(label, 1.0), next(iter(answer.scores))
        if looks_like != label and probability <= _UNLIKELY and pictures[label] >= _FEW:
            yield Doubt(label, source, looks_like, probability, answer.confidence)


def _advice(labels: Sequence[LabelReport], doubts: Sequence[Doubt]) -> Iterator[str]:
    if doubts:
        yield "look at the doubtful pictures: a wrong label does harm; forget takes a picture out, to be enrolled anew"
    few = [f"{of.label!r} ({of.pictures})" for of in labels if 0 < of.pictures < _FEW]
    if few:
        yield f"enrol more pictures, {_FEW} of a label at least: of {', '.join(few)}"
    for of in sorted(labels, key=lambda of: of.recognized / max(of.asked, 1)):
        other, taken = next(iter(of.taken_for.items()), ("", 0))
        got = f"{of.recognized} of {of.asked} pictures of {of.label!r} are recognized"
        if of.asked < _FEW or of.recognized + (of.unknown if of.pictures == 0 else 0) >= _GOOD * of.asked:
            continue
        if of.pictures == 0:
            yield f"{of.label!r} is not enrolled, and {of.unknown} of {of.asked} are unknown: reject some of the others"
        elif taken >= of.unknown:
            yield f"{got}, {taken} are taken for {other!r}: enrol more of both that show what tells them apart"
        else:
            yield f"{got}, {of.unknown} are unknown: enrol more, from all sides and in any light that will occur"
