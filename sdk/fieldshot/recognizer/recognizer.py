"""Recognizer: pictures and labels in, answers out, everything durable in one gallery file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import Any

from fieldshot import images as pictures
from fieldshot.backbone import Backbone
from fieldshot.errors import OptionError
from fieldshot.gallery import Gallery, Operation, clean_label
from fieldshot.ops import find_ops
from fieldshot.recognizer.intake import Batch, Progress, embedded, source_of
from fieldshot.recognizer.model import Answer, Model, Recognition
from fieldshot.recognizer.opening import (
    backbone_facts,
    check_contract,
    find_backbone,
    load_backbone,
    precision_of_gallery,
    views_of_gallery,
)
from fieldshot.recognizer.report import Report, examined, judged
from fieldshot.recognizer.watching import newest

__all__ = ["EnrollResult", "Recognizer"]


@dataclass(frozen=True)
class EnrollResult:
    """What became of the pictures of one label.

    Attributes
    ----------
    label : str
        In its stored form.
    added, duplicates : int
        New pictures, and those that the label had already. Of a rejection also those that are enrolled under another.
    version : int
        Of the gallery after it.
    unreadable : tuple of str
        Pictures that could not be read and were skipped.
    removed : int
        Pictures that a rejection took from the label, or rejections that an enrolment took back.
    """

    label: str
    added: int
    duplicates: int
    version: int
    unreadable: tuple[str, ...] = ()
    removed: int = 0


class Recognizer:
    """A gallery, its backbone and the head fitted on it; make one with `create` or `open`.

    Any thread may call anything at any time. A recognition sees one version of the gallery from start to
    end. Operations of other processes are noticed at the next recognition; while one thread fits a new
    head, the others answer from the version before.
    """

    def __init__(
        self,
        gallery: Gallery,
        backbone: Backbone,
        *,
        false_accept_rate: float | None = None,
        device: str | None = None,
    ) -> None:
        find_ops(device)  # here, before anything is embedded that could then not be learned
        check_contract(gallery, backbone)
        number = isinstance(false_accept_rate, Real) and not isinstance(false_accept_rate, bool)
        if false_accept_rate is not None and not (number and 0 < false_accept_rate < 1):
            raise OptionError(
                f"false_accept_rate must be between 0 and 1 (got {false_accept_rate!r})", hint="0.05 is 5 %"
            )
        self.gallery = gallery
        self.backbone = backbone
        self._fitting = threading.Lock()
        self._model = Model(-1, (), None, false_accept_rate, device)  # older than any version; fitted when first needed

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        backbone: Backbone | str | os.PathLike[str] | None = None,
        *,
        keep_pictures: bool = False,
        budget_ms: float | None = None,
        engine: str = "auto",
        threads: int | None = None,
        false_accept_rate: float | None = None,
        device: str | None = None,
        precision: str = "float32",
        progress: Progress | None = None,
    ) -> Recognizer:
        """Make a new, empty gallery.

        Parameters
        ----------
        path : path
            The gallery file; must not exist.
        backbone : Backbone or path, optional
            What turns pictures into embeddings; the embedded one if left out.
        keep_pictures : bool
            Store the original pictures too, so that another backbone can embed them later.
        budget_ms : float, optional
            Milliseconds that a picture may take to embed on this device. Where there is time for two or three views
            of it, their embeddings are averaged, which is more accurate (docs/views.md); the gallery keeps to that
            number wherever it is opened, and waits for a TensorRT plan, so that what will serve is measured. Where
            there is not even time for one, the log says so. Left out, a backbone's own number of views, one unless
            stated.
        engine, threads, precision, progress
            As for `Backbone.load`; the gallery keeps to the precision wherever it is opened.
        false_accept_rate : float, optional
            As for `FewShotHead`: stated, it makes "unknown" as strict as that, at the price of refusing more
            of the known.
        device : str, optional
            Where its heads compute, as for `FewShotHead`.

        Raises
        ------
        GalleryError
            Something is at `path` already, or its folder cannot be written.
        MissingFileError, BundleError, EngineError, OptionError
            As for `Backbone.load`; OptionError also where `budget_ms` is not a finite number above 0.
        """
        find_ops(device)  # before there is a file
        if budget_ms is not None and progress is None:
            progress = _unwatched
        loaded = load_backbone(backbone, engine=engine, threads=threads, precision=precision, progress=progress)
        if budget_ms is not None:
            loaded = loaded.with_views(loaded.views_within(budget_ms))
        gallery = Gallery.create(
            path,
            contract=loaded.contract,
            dim=loaded.dim,
            keep_pictures=keep_pictures,
            **backbone_facts(loaded),
        )
        return cls(gallery, loaded, false_accept_rate=false_accept_rate, device=device)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        backbone: Backbone | str | os.PathLike[str] | None = None,
        engine: str = "auto",
        threads: int | None = None,
        false_accept_rate: float | None = None,
        device: str | None = None,
        progress: Progress | None = None,
    ) -> Recognizer:
        """Open a gallery, with the backbone it was made with.

        Parameters
        ----------
        path : path
            The gallery file.
        backbone : Backbone or path, optional
            Where the bundle is now, if it has moved.
        engine, threads, progress
            As for `Backbone.load`.
        false_accept_rate : float, optional
            As for `FewShotHead`: stated, it makes "unknown" as strict as that, at the price of refusing more
            of the known.

        Raises
        ------
        MissingFileError
            The gallery or its bundle is not there.
        GalleryError
            The file is no gallery, is damaged, or comes from a newer fieldshot.
        ContractError
            The backbone gives other embeddings than the gallery holds.
        """
        gallery = Gallery.open(path)
        try:
            options = {
                "engine": engine,
                "threads": threads,
                "precision": precision_of_gallery(gallery),
                "progress": progress,
            }
            loaded = find_backbone(gallery, **options) if backbone is None else load_backbone(backbone, **options)
            loaded = loaded.with_views(views_of_gallery(gallery))
            recognizer = cls(gallery, loaded, false_accept_rate=false_accept_rate, device=device)
            recognizer._refresh()  # here, so that the first recognition does not wait for the head
            return recognizer
        except BaseException:
            gallery.close()
            raise

    def enroll(
        self, label: str, images: object, *, skip_unreadable: bool = False, progress: Progress | None = None
    ) -> EnrollResult:
        """Add pictures of a label, one or many; durable when it returns.

        A picture that was rejected before, for this label or another, is rejected no more: the last word counts.

        Parameters
        ----------
        label : str
            1 to 200 characters of any script.
        images : picture or iterable of pictures
            Paths, PIL images or uint8 arrays of shape (H, W, 3).
        skip_unreadable : bool
            Leave out pictures that cannot be read, and list them in the result.
        progress : callable, optional
            Called as ``progress(done, total)``.

        Raises
        ------
        PictureError, MissingFileError
            A picture cannot be read; nothing of this label was written.
        LabelError
            The label is not allowed, or a picture is enrolled under another label.
        GalleryError
            The gallery cannot be written; nothing of this label was.
        """
        return self._take("enroll", [(label, images)], skip_unreadable, progress)[0]

    def enroll_many(
        self,
        classes: Mapping[str, object],
        *,
        skip_unreadable: bool = False,
        progress: Progress | None = None,
    ) -> list[EnrollResult]:
        """Add pictures of several labels, as `enroll` for each, in one stream through the network.

        Each label is one operation, durable as soon as its pictures are embedded: an error later on
        leaves the labels before it enrolled.
        """
        return self._take("enroll", classes.items(), skip_unreadable, progress)

    def enroll_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        skip_unreadable: bool = False,
        progress: Progress | None = None,
    ) -> list[EnrollResult]:
        """Add a folder of classes, as `enroll_many`: one sub-folder of pictures a label, named by it."""
        return self.enroll_many(pictures.find_classes(folder), skip_unreadable=skip_unreadable, progress=progress)

    def reject(
        self, label: str, images: object, *, skip_unreadable: bool = False, progress: Progress | None = None
    ) -> EnrollResult:
        """Say that pictures do not show a label: what looks more like them will not get it any more, but be unknown.

        A picture that is enrolled under this very label is taken from it in the same operation. One that is enrolled
        under another label is skipped, for that says it already; to correct an answer, enrol the picture rightly.
        Parameters and errors as in `enroll`; the label must be enrolled.
        """
        return self._take("reject", [(label, images)], skip_unreadable, progress)[0]

    def forget(
        self, label: str, sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None
    ) -> Operation:
        """Take out all pictures and negatives of a label, or some of them, as if they had never been there.

        Parameters
        ----------
        label : str
        sources : path or iterable of paths, optional
            Only the pictures that were enrolled from these, named as they were then; the files may be gone.

        Raises
        ------
        LabelError
            It is not enrolled.
        PictureError
            It has nothing from one of the sources.
        """
        if isinstance(sources, (str, os.PathLike)):
            sources = [sources]
        named = None if sources is None else list(map(source_of, sources))
        return self._done(self.gallery.forget(label, named))

    def undo(self) -> Operation:
        """Revert the last operation that is not undone yet; GalleryError if there is none."""
        return self._done(self.gallery.undo())

    def rollback(self, version: int) -> Operation:
        """Restore any version, earlier or later, 0 being empty; GalleryError if there is none such."""
        return self._done(self.gallery.rollback(version))

    def history(self) -> list[Operation]:
        """List all operations, oldest first."""
        return self.gallery.history()

    def recognize(self, image: object) -> Recognition:
        """Say what a picture shows.

        Parameters
        ----------
        image : path, PIL image or uint8 array of shape (H, W, 3)

        Raises
        ------
        PictureError, MissingFileError
            The picture cannot be read.
        FieldshotError
            There are not two labels to choose from yet.
        """
        start = time.perf_counter()
        model, backbone = self._current(), self.backbone.settled()
        model.check()
        (answer,) = model.answers(backbone.embed_alone(pictures.decode(image)))
        return _recognition(answer, model, backbone, time.perf_counter() - start)

    def recognize_batch(self, images: object, *, progress: Progress | None = None) -> list[Recognition]:
        """Say what each of many pictures shows, all by the same version; as `recognize`."""
        start = time.perf_counter()
        model, backbone = self._current(), self.backbone.settled()
        model.check()
        embeddings = backbone.embed(images, progress=progress)
        answers = model.answers(embeddings) if len(embeddings) else []
        each_s = (time.perf_counter() - start) / max(len(answers), 1)
        return [_recognition(answer, model, backbone, each_s) for answer in answers]

    def watch(
        self,
        frames: Iterable[Any],
        *,
        waiting: int = 1,
        timeout_s: float | None = None,
        skip_unreadable: bool = False,
    ) -> Generator[tuple[Any, Recognition], None, None]:
        """Answer the frames of a camera that does not wait: whenever one is answered, the newest is next.

        Parameters
        ----------
        frames : iterable of pictures
            Taken in a thread of its own as they come, for instance from a generator that reads a camera; arrays are
            copied, so that it may read all into one. Closed or left early, the thread ends with the frame after: a
            camera that never gives one keeps it, and its generator cannot be watched again.
        waiting : int
            Most frames that wait for their turn; where more come, the oldest give way.
        timeout_s : float, optional
            Most seconds to wait for a frame.
        skip_unreadable : bool
            Log frames that are no pictures, and go on.

        Yields
        ------
        (frame, Recognition)
            In the order of the frames, until they end. Close the generator to stop before.

        Raises
        ------
        OptionError
            ``waiting`` or ``timeout_s`` is not above 0, or ``frames`` is one picture.
        PictureError
            A frame is no picture, or none came for ``timeout_s``.
        FieldshotError
            There are not two labels to choose from yet.
        """
        return newest(frames, self.recognize, waiting=waiting, timeout_s=timeout_s, skip_unreadable=skip_unreadable)

    def report(self, pictures: Mapping[str, object] | None = None, *, progress: Progress | None = None) -> Report:
        """Say how far each label can be trusted, and what would help.

        Parameters
        ----------
        pictures : mapping of label to pictures, optional
            What to ask about, best taken on another day. Left out, the gallery's own: a tenth of each label's at a time
            is left out, which takes as long as ten fits, and says only how pictures like these would be answered.
        progress : callable, optional
            Called as ``progress(done, total)``.

        Raises
        ------
        PictureError, MissingFileError
            A picture cannot be read.
        FieldshotError
            There are not two labels to choose from yet.
        """
        if pictures is None:
            return examined(self.gallery, self._current(), progress)
        return judged(self.gallery, self._current(), self.backbone, pictures, progress)

    def info(self) -> dict[str, Any]:
        """Describe gallery, backbone and head in words and numbers that JSON can hold."""
        counts = self.gallery.counts()
        head = self._current().head
        open_set = {} if head is None else asdict(head.open_set_)
        return {
            "path": str(self.gallery.path),
            "version": self.gallery.version(),
            "created": self.gallery.meta["created"],
            "keep_pictures": self.gallery.keep_pictures,
            "size_bytes": sum(os.path.getsize(file) for file in _files(self.gallery.path) if os.path.exists(file)),
            "contract": self.gallery.contract,
            "engine": self.backbone.engine,
            "backbone": self.backbone.info(),
            "classes": {label: {"pictures": p, "negatives": n} for label, (p, n) in counts.items()},
            "samples": sum(p + n for p, n in counts.values()),
            "open_set": {key: None if value != value else value for key, value in open_set.items()},
        }

    def close(self) -> None:
        """Close the gallery; what was stored is safe already."""
        self.gallery.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(
        self,
        kind: str,
        classes: Iterable[tuple[str, object]],
        skip_unreadable: bool,
        progress: Progress | None,
    ) -> list[EnrollResult]:
        classes = [(clean_label(label), images) for label, images in classes]
        failed = threading.Event()

        def store(batch: Batch) -> EnrollResult | None:
            if failed.is_set():
                return None  # operations come in order: none after one that failed
            try:
                write = self.gallery.reject if kind == "reject" else self.gallery.enroll
                version, added = write(batch.label, batch.samples)
            except BaseException:
                failed.set()
                raise
            removed = self.gallery.operation(version).removed if added else 0
            duplicates = len(batch.samples) - added
            return EnrollResult(batch.label, added, duplicates, version, tuple(batch.unreadable), removed)

        results: list[Future[EnrollResult | None]] = []
        stream = embedded(
            self.backbone,
            classes,
            keep_pictures=self.gallery.keep_pictures,
            skip_unreadable=skip_unreadable,
            progress=progress,
        )
        # The disk syncs one class while the network is busy with the next.
        with ThreadPoolExecutor(1, thread_name_prefix="fieldshot-store") as storing, closing(stream):
            for batch in stream:
                results.append(storing.submit(store, batch))
                if failed.is_set():
                    break
        stored = [result for result in (future.result() for future in results) if result is not None]
        self._refresh()
        return stored

    def _done(self, version: int) -> Operation:
        self._refresh()
        return self.gallery.operation(version)

    def _current(self) -> Model:
        # Who finds another thread fitting answers from the version before, rather than wait.
        if self._fitting.acquire(blocking=self._model.version < 0):
            try:
                self._advance()
            finally:
                self._fitting.release()
        return self._model

    def _refresh(self) -> None:
        with self._fitting:
            self._advance()

    def _advance(self) -> None:
        """Fit the head of the gallery's version, if it is not there yet."""
        model = self._model
        if self.gallery.version() != model.version:
            snapshot = self.gallery.snapshot(max(model.version, 0))
            if snapshot.removed:
                snapshot = self.gallery.snapshot()
            self._model = model.advanced(snapshot)


def _recognition(answer: Answer, model: Model, backbone: Backbone, seconds: float) -> Recognition:
    label, confidence, scores = answer
    return Recognition(label, confidence, scores, 1e3 * seconds, label is not None, model.version, backbone.runs)


def _unwatched(done: int, total: int | None) -> None:
    """Wait like one who watches."""


def _files(gallery: Path) -> list[str]:
    return [f"{gallery}{ending}" for ending in ("", "-wal")]
