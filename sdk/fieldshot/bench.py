"""How long each stage of a recognition takes on this device, warm, one picture at a time."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fieldshot import images
from fieldshot.backbone import Backbone
from fieldshot.errors import OptionError
from fieldshot.head import FewShotHead
from fieldshot.recognizer import Recognizer

__all__ = ["Stage", "run"]

WAYS, SHOTS = 5, 5
DRAWN_SIZE = (480, 640)  # (height, width) in pixels of the pictures that are drawn


@dataclass(frozen=True)
class Stage:
    """Time of one stage: median and 95th percentile in milliseconds over a number of runs."""

    name: str
    median_ms: float
    p95_ms: float
    runs: int


def run(
    backbone: Backbone,
    pictures: Sequence[Path] | None = None,
    *,
    runs: int = 50,
    progress: Callable[[int, int], object] | None = None,
) -> list[Stage]:
    """Time decoding, preprocessing, the network, fitting and predicting of the head, and a whole recognition.

    Parameters
    ----------
    backbone : Backbone
        Network to time.
    pictures : sequence of paths, optional
        Pictures to time with, taken in turn; left out, JPEG files of 640 x 480 pixels are drawn.
    runs : int
        How often each stage runs, after a tenth of that, and at least three, to warm up.
    progress : callable, optional
        Called as ``progress(done, total)`` after each run.

    Returns
    -------
    list of Stage
        ``decode``, ``preprocess``, ``network``, ``head fit`` (5-way 5-shot), ``predict``, and ``recognition``, which
        goes from a file to a label through a gallery.

    Raises
    ------
    OptionError
        If there are no runs or no pictures.
    PictureError
        If a picture cannot be read.
    """
    if runs < 1:
        raise OptionError(f"runs must be above 0 (got {runs})", hint="leave it at 50")
    if pictures is not None and not pictures:
        raise OptionError("pictures must hold at least one (got none)", hint="leave them out to have some drawn")
    with tempfile.TemporaryDirectory() as folder:
        files = _draw(Path(folder)) if pictures is None else list(pictures)
        pixels = [images.read(path) for path in files]
        inputs = [backbone.preprocessing.apply(picture)[np.newaxis] for picture in pixels]
        # The head's time does not depend on what the embeddings say: noise around those of the pictures will do.
        random = np.random.default_rng(0)
        embeddings = backbone.embed(pixels[:1])
        support = embeddings * random.uniform(0.5, 1.5, (WAYS * SHOTS, backbone.dim)).astype(np.float32)
        labels = np.repeat(np.arange(WAYS), SHOTS)
        head = FewShotHead().fit(support, labels)
        with closing(Recognizer.create(Path(folder, "bench.gallery"), backbone=backbone)) as recognizer:
            for label in range(WAYS):
                recognizer.enroll(str(label), _noise(random, SHOTS))
            stages: dict[str, Callable[[int], object]] = {
                "decode": lambda i: images.read(files[i]),
                "preprocess": lambda i: backbone.preprocess(pixels[i]),
                "network": lambda i: backbone.run(inputs[i]),
                f"head fit ({WAYS}-way {SHOTS}-shot)": lambda i: FewShotHead().fit(support, labels),
                "predict": lambda i: head.predict(embeddings),
                "recognition": lambda i: recognizer.recognize(files[i]),
            }
            ticks = itertools.count(1)

            def tick() -> None:
                if progress is not None:
                    progress(next(ticks), runs * len(stages))

            return [_time(name, step, len(files), runs, tick) for name, step in stages.items()]


def _time(name: str, step: Callable[[int], object], count: int, runs: int, tick: Callable[[], None]) -> Stage:
    """Run a step on the pictures 0..count-1 in turn."""
    for i in range(max(3, runs // 10)):
        step(i % count)
    times_ms = np.empty(runs)
    for i in range(runs):
        start_ns = time.perf_counter_ns()
        step(i % count)
        times_ms[i] = (time.perf_counter_ns() - start_ns) / 1e6
        tick()
    return Stage(name, float(np.median(times_ms)), float(np.percentile(times_ms, 95)), runs)


def _noise(random: np.random.Generator, count: int) -> list[images.Pixels]:
    return list(random.integers(0, 256, (count, 64, 64, 3), np.uint8))


def _draw(folder: Path) -> list[Path]:
    """JPEG files as large as those of photographs: blurred noise, which takes about as long to decode."""
    height, width = DRAWN_SIZE
    paths = []
    for number, noise in enumerate(_noise(np.random.default_rng(1), 4)):
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths
