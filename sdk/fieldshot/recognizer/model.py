"""The head of one version of the gallery, and how its scores become an answer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import FieldshotError
from fieldshot.gallery import Snapshot
from fieldshot.head import FewShotHead
from fieldshot.ops import Pending

__all__ = ["Answer", "Model", "Recognition"]


@dataclass(frozen=True)
class Recognition:
    """What one picture shows.

    Attributes
    ----------
    label : str or None
        The label; None where the picture shows nothing that was enrolled.
    confidence : float
        Probability of the label, in [0, 1]; where it is None, of the label that came nearest.
    scores : dict of str to float
        Probability of each label, best first. They add up to less than 1 where pictures were rejected:
        the rest is the probability of looking like those.
    latency_ms : float
        From the call to the answer, decoding included; in a batch the mean of it.
    known : bool
        Whether there is a label.
    version : int
        The version of the gallery that answered.
    engine : str
        What ran the network, and in which precision: "onnxruntime float32".
    """

    label: str | None
    confidence: float
    scores: dict[str, float]
    latency_ms: float
    known: bool
    version: int
    engine: str


class Answer(NamedTuple):
    """What the head says of one embedding: the label or None, its probability, and those of all labels."""

    label: str | None
    confidence: float
    scores: dict[str, float]


class Model:
    """A head that nobody changes any more, with the version and the labels it was fitted on.

    The head knows integers: class 2 i is label i, class 2 i + 1 is what label i is not (its negatives).

    Parameters
    ----------
    version : int
        Of the gallery.
    labels : tuple of str
        In the order of their arrival.
    head : FewShotHead or None
        None where the gallery is empty.
    false_accept_rate, device
        Of the heads that it makes.
    """

    def __init__(
        self,
        version: int,
        labels: tuple[str, ...],
        head: FewShotHead | None,
        false_accept_rate: float | None = None,
        device: str | None = None,
    ) -> None:
        self.version = version
        self.false_accept_rate = false_accept_rate
        self.device = device
        self.labels = labels
        self.head = head
        classes = [] if head is None else head.classes_.tolist()
        column = {number: place for place, number in enumerate(classes)}
        self._names = {at: labels[number // 2] for number, at in column.items() if number % 2 == 0}
        # The column of a label's negatives, or its own where it has none: that never outscores it.
        self._negatives = {at: column.get(classes[at] + 1, at) for at in self._names}

    def advanced(self, snapshot: Snapshot) -> Model:
        """Give the model of a later version, from what came since this one (or everything, for `since` 0)."""
        head = None if snapshot.since == 0 else self.head
        labels = {} if head is None else {label: number for number, label in enumerate(self.labels)}
        numbers = [2 * labels.setdefault(label, len(labels)) for label in snapshot.labels]
        if numbers:
            y = np.array(numbers) + snapshot.negative
            # A head swaps its state in whole, so a flat copy leaves the one in use as it is.
            if head is None:
                head = FewShotHead(false_accept_rate=self.false_accept_rate, device=self.device)
            else:
                head = copy.copy(head)
            head = head.partial_fit(snapshot.embeddings, y)
        return Model(snapshot.version, tuple(labels), head, self.false_accept_rate, self.device)

    def check(self) -> None:
        """Refuse to answer where there is nothing to choose from.

        Raises
        ------
        FieldshotError
            Fewer than two labels have pictures, and nothing was rejected.
        """
        if len(self._names) < 2 and all(at == other for at, other in self._negatives.items()):
            got = f"only {next(iter(self._names.values()))!r}" if self._names else "none"
            raise FieldshotError(
                f"gallery must hold pictures of two labels, or of one and what it is not (got {got})",
                hint="enrol another label, or reject pictures of something else",
            )

    def answers(self, embeddings: NDArray[np.float32] | Pending) -> list[Answer]:
        """Decide on embeddings (N, D), also on those that a device has yet to compute.

        The best label is the answer if the embedding reaches the head's threshold for known things and
        the label's own negatives do not score above it. They do not pass the answer on to the next best
        label: that something is no bolt does not make it a nut.
        """
        head = self.head
        assert head is not None  # `check` has seen labels
        logits, chances, _, cosines = head.predict_all(embeddings)
        assert cosines is not None  # `predict_all` asks for them
        rows = zip(logits.tolist(), chances.tolist(), cosines.tolist(), strict=True)
        return [self._answer(*row, head.threshold_) for row in rows]

    def _answer(self, logits: list[float], chances: list[float], cosines: list[float], threshold: float) -> Answer:
        order = sorted(self._names, key=logits.__getitem__, reverse=True)
        best = order[0]
        known = (
            # Not below, rather than above: without a threshold (nan) everything counts as known.
            not max(map(cosines.__getitem__, order)) < threshold
            and logits[self._negatives[best]] <= logits[best]
            and chances[best] * (len(order) + 1) >= 1.0
        )
        scores = {self._names[column]: chances[column] for column in order}
        return Answer(self._names[best] if known else None, chances[best], scores)
