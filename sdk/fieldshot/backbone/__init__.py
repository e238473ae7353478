"""The frozen network: pictures in, embeddings out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fieldshot.backbone.bundle import Bundle
from fieldshot.backbone.choice import create
from fieldshot.backbone.embedding import check_batch_size, embedded, embedded_alone
from fieldshot.backbone.engine import Engine
from fieldshot.backbone.handover import Handover
from fieldshot.backbone.views import MOST, check_budget, check_views
from fieldshot.errors import BundleError
from fieldshot.images import Picture, Preprocessing, as_items, decode
from fieldshot.ops import Pending
from fieldshot.ops.pictures import prepare, prepared_by

__all__ = ["Backbone", "Bundle", "as_items"]

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, "int | None"], object]
Item = TypeVar("Item")

_LOG = logging.getLogger("fieldshot")
_DEFAULT = Path(__file__).with_name("default.fieldshot")


class Backbone:
    """A frozen network, ready to run; make one with ``Backbone.default`` or ``Backbone.load``.

    Attributes
    ----------
    bundle : Bundle
        Where it comes from.
    path : Path or None
        File or folder of the bundle; None for the embedded one.
    views : int
        So many views of each picture are embedded, and their embeddings averaged (docs/views.md).
    """

    def __init__(self, bundle: Bundle, engine: Engine | Handover, *, path: Path | None, views: int = 1) -> None:
        self.bundle = bundle
        self.path = path
        self.views = check_views(views)
        self._runs = engine

    @classmethod
    def default(
        cls,
        *,
        engine: str = "auto",
        threads: int | None = None,
        views: int = 1,
        precision: str = "float32",
        progress: Progress | None = None,
    ) -> Backbone:
        """Load the backbone that comes with fieldshot; parameters and errors as in ``load``."""
        if not _DEFAULT.exists():
            raise BundleError(
                "the embedded backbone must lie in the package (got none)",
                hint="reinstall fieldshot, or pass a bundle of your own to Backbone.load",
            )
        bundle = Bundle.open(_DEFAULT)
        return cls(bundle, create(engine, bundle, threads, precision, _shares(progress)), path=None, views=views)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        engine: str = "auto",
        *,
        threads: int | None = None,
        views: int = 1,
        precision: str = "float32",
        progress: Progress | None = None,
    ) -> Backbone:
        """Load a backbone from a bundle and check that it gives the embeddings that the bundle states.

        Parameters
        ----------
        path : str or os.PathLike
            The bundle, a zip file or a folder.
        engine : {"auto", "onnxruntime", "tensorrt"}
            What runs the network. ``tensorrt`` builds a plan for this very device first, once: that may take minutes.
            ``auto`` takes the fastest there is: where TensorRT can be used ONNX Runtime serves until the plan is built,
            and hands over then.
        threads : int, optional
            Threads of one run on the CPU, and of those that prepare pictures; left out, as many as the machine offers.
        views : {1, 2, 3}
            Views of each picture to average over: more are more accurate, and take as many times as long.
        precision : {"float32", "float16", "int8"}
            Which of the bundle's networks runs. Embeddings of different precisions are of different contracts. Where
            TensorRT does not reproduce the bundle's embeddings in the one that was asked for, ``tensorrt`` takes the
            next safer one, with a warning in the log, and ``precision`` and ``info`` say so.
        progress : callable, optional
            Called as ``progress(percent, 100)`` while a plan is built; what it raises ends that. With it ``auto`` waits
            for the plan too.

        Raises
        ------
        MissingFileError
            If there is nothing at ``path``.
        BundleError
            If the bundle is damaged, unsafe or of a newer format, or has no network in that precision.
        EngineError
            If the engine cannot run the network, or gives other embeddings.
        MissingDependencyError, DeviceError
            If ``tensorrt`` was asked for and it, PyCUDA or a CUDA device is not there.
        OptionError
            If ``engine``, ``threads``, ``views`` or ``precision`` is none of these.
        """
        bundle = Bundle.open(path)
        return cls(bundle, create(engine, bundle, threads, precision, _shares(progress)), path=bundle.path, views=views)

    def __repr__(self) -> str:
        return f"Backbone(name={self.name!r}, dim={self.dim}, engine={self.engine!r}, contract={self.contract!r})"

    @property
    def _engine(self) -> Engine:
        """What serves at this moment: read it once for all that belongs together."""
        return self._runs.engine if isinstance(self._runs, Handover) else self._runs

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.bundle.name

    @property
    def dim(self) -> int:
        """Dimension D of the embeddings."""
        return self.bundle.dim

    @property
    def engine(self) -> str:
        """What runs the network."""
        return self._engine.name

    @property
    def precision(self) -> str:
        """Arithmetic that the embeddings are computed in: "float32", "float16" or "int8"."""
        return self._engine.precision

    @property
    def runs(self) -> str:
        """Engine and precision in two words: "onnxruntime float32"."""
        engine = self._engine
        return f"{engine.name} {engine.precision}"

    @property
    def contract(self) -> str:
        """Digest of weights, preprocessing and precision: only embeddings of equal contracts may be compared."""
        digest = self.bundle.contract(self._engine.precision)
        return digest if self.views == 1 else f"{digest}-{self.views}-views"

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network must be fed."""
        return self.bundle.preprocessing

    @property
    def feature_mean(self) -> Floats | None:
        """Mean embedding at export, of shape (D,); None where the bundle does not state it."""
        return self.bundle.feature_mean

    def info(self) -> dict[str, Any]:
        """What this backbone is and what runs it, in words and numbers that JSON can hold."""
        engine = self._engine
        sent = engine.pending is not None and self.views == 1
        return {
            "name": self.name,
            "dim": self.dim,
            "contract": self.contract,
            "path": None if self.path is None else str(self.path),
            "licence": self.bundle.manifest["licence"],
            "source": self.bundle.manifest["source"],
            "preprocessing": self.preprocessing.to_json(),
            "precisions": list(self.bundle.precisions),
            "views": self.views,
            "pictures": f"prepared by {'kernels on the device' if sent else prepared_by(self.preprocessing)}",
            "engine": {**engine.info(), "passed over": engine.passed_over or "nothing"},
        }

    def with_views(self, views: int) -> Backbone:
        """The same network, on so many views of each picture."""
        return Backbone(self.bundle, self._runs, path=self.path, views=views)

    def settled(self) -> Backbone:
        """The same, and run for good by the engine that runs it now, whatever a plan that is being built becomes."""
        if isinstance(self._runs, Handover):
            return Backbone(self.bundle, self._engine, path=self.path, views=self.views)
        return self

    def views_within(self, budget_ms: float) -> int:
        """The most views that embed a picture in so many milliseconds here, decoding left out; 1 at least.

        It is measured on the spot, as the median of five pictures. Where not even one view fits, the log says so.

        Raises
        ------
        OptionError
            If ``budget_ms`` is not a finite number above 0.
        """
        budget_ms = check_budget(budget_ms)
        for views in range(MOST, 0, -1):
            took_ms = self.with_views(views)._takes_ms()
            if took_ms <= budget_ms:
                return views
        _LOG.warning(
            "one view of a picture takes %.1f ms to embed here, more than the budget of %g ms", took_ms, budget_ms
        )
        return 1

    def _takes_ms(self) -> float:
        """Milliseconds that a picture takes to embed, decoding left out."""
        picture, times = np.zeros((*self.preprocessing.size, 3), np.uint8), []
        self.embed([picture])
        for _ in range(5):
            start = perf_counter()
            self.embed([picture])
            times.append(perf_counter() - start)
        return 1e3 * sorted(times)[2]

    def preprocess(self, image: object) -> Floats:
        """Turn a picture into the input of the network: to the bit what ``preprocessing.apply`` gives, only sooner.

        Parameters
        ----------
        image : str or os.PathLike or PIL.Image.Image or ndarray
            A file, a Pillow image, or a uint8 RGB array of shape (H, W, 3).

        Returns
        -------
        ndarray of shape (3, height, width), dtype float32

        Raises
        ------
        PictureError
            If it cannot be read, or is so long and narrow that covering the size would take too many pixels.
        MissingFileError
            If there is no such file.
        """
        inputs = np.empty((3, *self.preprocessing.size), np.float32)
        prepare(decode(image), self.preprocessing, inputs)
        return inputs

    def run(self, inputs: Floats) -> Floats:
        """Run the network alone: inputs (N, 3, height, width) that are preprocessed already -> (N, D), float32."""
        return self._engine.run(inputs)

    def embed(self, images: object, *, batch_size: int = 32, progress: Progress | None = None) -> Floats:
        """Turn pictures into embeddings; may be called from several threads at once.

        Parameters
        ----------
        images : iterable of pictures, or one picture
            Paths, PIL images or uint8 RGB arrays of shape (H, W, 3), also mixed; a generator is taken as it goes. One
            path, image or array is a single picture, and an array of shape (N, H, W, 3) is N of them.
        batch_size : int
            Most pictures in one run of the network; the engine may find fewer quicker.
        progress : callable, optional
            Called as ``progress(done, total)`` after each batch; total is None for a generator.

        Returns
        -------
        ndarray of shape (N, D), dtype float32
            In the order of the pictures.

        Raises
        ------
        PictureError
            For the first picture that cannot be read, by its name, or its number from 0.
        MissingFileError
            If there is no such file.
        OptionError
            If ``batch_size`` is not above 0.
        """
        return self.embed_with(as_items(images), decode, batch_size=batch_size, progress=progress)

    def embed_alone(self, picture: Picture) -> Floats | Pending:
        """Turn a picture into its embedding, soonest, or leave it to the device that runs the network.

        Parameters
        ----------
        picture : PIL.Image.Image or ndarray
            What ``fieldshot.images.decode`` returns.

        Returns
        -------
        ndarray of shape (1, D), dtype float32, or Pending
            The latter, to be computed, for a head on that device to answer it without a wait in between.

        Raises
        ------
        PictureError
            If it is so long and narrow that covering the size would take too many pixels.
        """
        return embedded_alone(self._engine, self.preprocessing, picture, views=self.views)

    def embed_with(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Picture],
        *,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> Floats:
        """Turn items into embeddings like ``embed``, with one's own way to read a picture.

        Parameters
        ----------
        items : iterable
            Anything that ``read`` takes.
        read : callable
            ``read(item)`` returns what ``fieldshot.images.read`` or ``decode`` does; called in worker threads.
        batch_size, progress
            As in ``embed``.

        Returns
        -------
        ndarray of shape (N, D), dtype float32
            In the order of the items.
        """
        total = len(items) if isinstance(items, Sized) else None
        if total == 1:
            check_batch_size(batch_size)
            made = self.embed_alone(read(next(iter(items))))
            embedding = made.fetch() if isinstance(made, Pending) else made
            if progress is not None:
                progress(1, 1)
            return embedding
        parts = [np.empty((0, self.dim), np.float32)]
        done = 0
        with closing(self.stream(items, read, batch_size=batch_size)) as stream:
            for part in stream:
                parts.append(part)
                done += len(part)
                if progress is not None:
                    progress(done, total)
        return np.concatenate(parts)

    def stream(
        self, items: Iterable[Item], read: Callable[[Item], Picture], *, batch_size: int = 32
    ) -> Generator[Floats, None, None]:
        """Turn items into embeddings as ``embed_with``, given out batch by batch.

        Yields
        ------
        ndarray of shape (n, D), dtype float32
            In the order of the items; close the generator to end its threads early.
        """
        check_batch_size(batch_size)
        return embedded(self._engine, self.preprocessing, items, read, views=self.views, batch_size=batch_size)


def _shares(progress: Progress | None) -> Callable[[float], object] | None:
    return None if progress is None else lambda share: progress(round(100 * share), 100)
