"""The stages that are timed: what each needs before, and what is one call of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

__all__ = ["STAGES", "UNTIMED", "AbsentError", "Bench", "Stage", "draw"]

WAYS, SHOTS = 5, 5
DIM = 512  # of embeddings that are drawn: that of the embedded backbone
SIZE = (480, 640)  # (height, width) in pixels of the pictures that are drawn


class AbsentError(Exception):
    """A stage that the side does not have; says why."""


class Stage(NamedTuple):
    """One call is ``step(prepare())``; only the step is timed."""

    step: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None


class Bench:
    """What several stages need, each made when it is first asked for.

    Parameters
    ----------
    folder : Path
        For galleries; empty.
    bundle : Path or None
        The backbone; None for the embedded one.
    pictures : sequence of Path
        Taken in turn; who sets ``turn`` decides which is next.
    options : dict
        Engine and precision that were stated.
    gallery : Path
        That a process before made as `recognizer` does, or where there is none yet.
    """

    def __init__(
        self, folder: Path, bundle: Path | None, pictures: Sequence[Path], options: dict[str, str], gallery: Path
    ) -> None:
        self.folder, self.bundle, self.pictures = folder, bundle, list(pictures)
        self.options, self.gallery = options, gallery
        self.random = np.random.default_rng(0)
        self.turn = 0

    @cached_property
    def backbone(self) -> Any:
        """The network."""
        return self.load()

    def load(self, **stated: str) -> Any:
        """The network, in another precision than the others if that is stated."""
        from fieldshot.backbone import Backbone

        options: dict[str, Any] = {**self.options, **stated}
        if "progress" in signature(Backbone.load).parameters:
            options["progress"] = lambda done, total: None  # waits for a TensorRT plan: it is not to be built meanwhile
        return Backbone.default(**options) if self.bundle is None else Backbone.load(self.bundle, **options)

    @cached_property
    def pixels(self) -> list[Any]:
        """The pictures, decoded."""
        from fieldshot import images

        return [images.read(path) for path in self.pictures]

    @cached_property
    def inputs(self) -> list[Any]:
        """The pictures as the network takes them, (1, 3, height, width)."""
        return [self.backbone.preprocessing.apply(picture)[np.newaxis] for picture in self.pixels]

    def support(self, ways: int, shots: int) -> tuple[Any, Any]:
        """Embeddings (N, D) and labels, drawn: times do not depend on what embeddings say."""
        return self.random.random((ways * shots, DIM), np.float32), np.repeat(np.arange(ways), shots)

    def head(self, ways: int = WAYS, shots: int = SHOTS) -> Any:
        """A fitted head."""
        from fieldshot.head import FewShotHead

        return FewShotHead().fit(*self.support(ways, shots))

    def recognizer(self, name: str) -> Any:
        """With as many classes as the head has, of small noise pictures."""
        from fieldshot.recognizer import Recognizer

        path = self.folder / f"{name}.gallery"
        if self.gallery.exists():
            shutil.copy(self.gallery, path)
            return Recognizer.open(path, backbone=self.backbone)
        recognizer = Recognizer.create(path, self.backbone)
        for label in range(WAYS):
            recognizer.enroll(str(label), list(self.random.integers(0, 256, (SHOTS, 64, 64, 3), np.uint8)))
        return recognizer

    def next_of(self, items: Sequence[Any]) -> Any:
        """Items in turn."""
        self.turn += 1
        return items[self.turn % len(items)]


def _decode(bench: Bench) -> Stage:
    from fieldshot import images

    return Stage(lambda _: images.read(bench.next_of(bench.pictures)))


def _preprocess(bench: Bench) -> Stage:
    backbone = bench.backbone
    prepare = getattr(backbone, "preprocess", backbone.preprocessing.apply)  # as versions before had it
    return Stage(lambda _: prepare(bench.next_of(bench.pixels)))


def _network(bench: Bench) -> Stage:
    return Stage(lambda _: bench.backbone.run(bench.next_of(bench.inputs)))


def _network_in(precision: str) -> Callable[[Bench], Stage]:
    def make(bench: Bench) -> Stage:
        from fieldshot.errors import EngineError

        if precision not in bench.backbone.bundle.precisions:
            raise AbsentError(f"the bundle has no network in {precision}")
        try:
            backbone = bench.load(precision=precision)
        except EngineError as error:  # it cannot run that
            raise AbsentError(str(error)) from error
        return Stage(lambda _: backbone.run(bench.next_of(bench.inputs)))

    return make


def _fit(ways: int, shots: int) -> Callable[[Bench], Stage]:
    def make(bench: Bench) -> Stage:
        from fieldshot.head import FewShotHead

        Z, y = bench.support(ways, shots)
        return Stage(lambda _: FewShotHead().fit(Z, y))

    return make


def _partial_fit(bench: Bench) -> Stage:
    Z, y = bench.support(1, 1)
    return Stage(lambda head: head.partial_fit(Z, y + WAYS), bench.head)


def _forget(bench: Bench) -> Stage:
    return Stage(lambda head: head.forget(0), bench.head)


def _adapt(bench: Bench) -> Stage:
    head, (Z, _) = bench.head(), bench.support(WAYS, 15)
    return Stage(lambda _: head.adapt(Z))


def _predict(queries: int) -> Callable[[Bench], Stage]:
    def make(bench: Bench) -> Stage:
        head, (Z, _) = bench.head(), bench.support(queries, 1)
        return Stage(lambda _: head.predict(Z))

    return make


def _recognize(bench: Bench) -> Stage:
    recognizer = bench.recognizer("recognize")
    return Stage(lambda _: recognizer.recognize(bench.next_of(bench.pictures)))


def _enroll(bench: Bench) -> Stage:
    recognizer, enrolled = bench.recognizer("enroll"), False

    def prepare() -> None:
        nonlocal enrolled
        if enrolled:
            recognizer.undo()
        enrolled = True

    return Stage(lambda _: recognizer.enroll("new", bench.pictures), prepare)


def _open(bench: Bench) -> Stage:
    from fieldshot.recognizer import Recognizer

    recognizer = bench.recognizer("open")
    recognizer.close()
    return Stage(lambda _: Recognizer.open(bench.folder / "open.gallery", backbone=bench.backbone).close())


STAGES: dict[str, Callable[[Bench], Stage]] = {
    "decode": _decode,
    "preprocess": _preprocess,
    "network": _network,
    "network-float16": _network_in("float16"),
    "network-int8": _network_in("int8"),
    "fit-5way-5shot": _fit(5, 5),
    "fit-20way-20shot": _fit(20, 20),
    "partial_fit": _partial_fit,
    "forget": _forget,
    "adapt": _adapt,
    "predict": _predict(1),
    "predict-256": _predict(256),
    "recognize": _recognize,
    "enroll": _enroll,
    "open": _open,
}

UNTIMED = {"partial_fit", "forget", "enroll"}  # that change what they work on: before each call it is made anew


def draw(folder: Path, count: int = 4) -> list[Path]:
    """JPEG files as large as those of photographs: blurred noise, which takes about as long to decode."""
    random, (height, width) = np.random.default_rng(1), SIZE
    paths = []
    for number in range(count):
        noise = Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8))
        paths.append(folder / f"{number}.jpg")
        noise.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths
