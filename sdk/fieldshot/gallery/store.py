"""Gallery: every operation is one transaction, and what was read is one version."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from numbers import Integral
from pathlib import Path
from types import TracebackType

import numpy as np

from fieldshot.errors import GalleryError, LabelError, OptionError, PictureError
from fieldshot.gallery import database
from fieldshot.gallery.samples import Operation, Sample, Snapshot, checked_blobs, clean_label

__all__ = ["Gallery"]

_CHUNK = 500  # values in one IN (...); old SQLites allow 999
_NET = "SELECT sample_id FROM change WHERE version > ? GROUP BY sample_id HAVING sum(delta)"


class Gallery:
    """An open gallery file; `Gallery.create` or `Gallery.open` gives one.

    Any thread may call. One connection reads and one writes, each behind its own lock: so a writer that
    waits for the disk holds up no reader, and threads that come and go leave no connections behind.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float = 10.0) -> None:
        self.path = Path(path).absolute()
        self._timeout_s = timeout_s
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._connections: tuple[sqlite3.Connection, ...] = ()  # one to read, one to write
        self._stamp: int | None = None
        self._version = 0
        self._connect()
        with self._read() as db:
            self.meta: dict[str, str] = dict(db.execute("SELECT key, value FROM meta"))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        contract: str,
        dim: int,
        keep_pictures: bool = False,
        **meta: str,
    ) -> Gallery:
        """Make a new gallery file, whole or not at all, and open it.

        Parameters
        ----------
        path : path
            Must not exist.
        contract : str
            Digest of the backbone whose embeddings it will hold.
        dim : int
            D, the length of an embedding.
        keep_pictures : bool
            Whether the original pictures are meant to be stored too.
        **meta : str
            Anything else to remember, given back by `meta`.

        Raises
        ------
        GalleryError
            Something is at `path` already, or the folder cannot be written.
        MissingFileError
            The folder does not exist.
        """
        facts = {"contract": contract, "dim": str(dim), "keep_pictures": str(int(keep_pictures)), **meta}
        database.create(Path(path).absolute(), {**facts, "created": _iso(time.time())})
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, timeout_s: float = 10.0) -> Gallery:
        """Open a gallery file, for reading only where it cannot be written.

        Raises
        ------
        MissingFileError
            Nothing is at `path`.
        GalleryError
            It is no gallery, is damaged, comes from a newer fieldshot, or may not be read.
        """
        return cls(path, timeout_s=timeout_s)

    @property
    def contract(self) -> str:
        """Digest of the backbone whose embeddings the gallery holds."""
        return self.meta["contract"]

    @property
    def dim(self) -> int:
        """D, the length of an embedding."""
        return int(self.meta["dim"])

    @property
    def keep_pictures(self) -> bool:
        """Whether the original pictures are stored too."""
        return self.meta["keep_pictures"] == "1"

    def version(self) -> int:
        """Give the version of the last operation, 0 for none; microseconds when nothing has changed."""
        # Asked at each recognition, so without `_read`: a generator or two take longer than SQLite.
        try:
            with self._reading:
                db = self._reader()
                (stamp,) = db.execute("PRAGMA data_version").fetchone()
                if stamp != self._stamp:
                    self._version = _last_version(db)
                    self._stamp = stamp
                return self._version
        except sqlite3.Error as error:
            raise database.in_words(error, self.path) from error

    def snapshot(self, since: int = 0, *, sources: bool = False) -> Snapshot:
        """Read one consistent version: everything, or what changed since an earlier version; on demand with sources."""
        with self._read() as db:
            db.execute("BEGIN")
            try:
                version = _last_version(db)
                removed = 0
                if since:
                    (removed,) = db.execute(f"SELECT count(*) FROM ({_NET} < 0)", (since,)).fetchone()
                # From the start: in the order of the file, which no index has.
                chosen = f"sample WHERE id IN ({_NET} > 0)" if since else "sample NOT INDEXED WHERE live = 1"
                bound = (since,) if since else ()
                (count,) = db.execute(f"SELECT count(*) FROM {chosen}", bound).fetchone()
                labels: list[str] = []
                origins: list[str] = []
                negative = np.empty(count, bool)
                embeddings = np.empty((count, self.dim), np.float32)
                columns = f"label, negative, embedding, {'source' if sources else 'NULL'}"
                rows = db.execute(f"SELECT {columns} FROM {chosen} ORDER BY id", bound)
                for row, (label, is_negative, blob, source) in enumerate(rows):
                    labels.append(label)
                    if sources:
                        origins.append(source)
                    negative[row] = is_negative
                    embeddings[row] = np.frombuffer(blob, "<f4")
            finally:
                db.execute("ROLLBACK")
        return Snapshot(since, version, labels, negative, embeddings, removed, origins)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Count (pictures, negatives) per label, sorted by label."""
        counts: dict[str, tuple[int, int]] = {}
        with self._read() as db:
            for label, negative, count in db.execute(
                "SELECT label, negative, count(*) FROM sample WHERE live = 1 GROUP BY label, negative"
            ):
                pictures, negatives = counts.get(label, (0, 0))
                counts[label] = (pictures, count) if negative else (count, negatives)
        return counts

    def history(self, *, first: int = 1) -> list[Operation]:
        """List all operations from version `first` on, oldest first."""
        with self._read() as db:
            rows = db.execute(
                "SELECT version, kind, label, target, added, removed, time, EXISTS (SELECT 1 FROM operation u"
                " WHERE u.kind = 'undo' AND u.target = o.version) FROM operation o"
                " WHERE version >= ? ORDER BY version",
                (first,),
            ).fetchall()
        return [Operation(v, k, name, t, a, r, _iso(s), bool(u)) for v, k, name, t, a, r, s, u in rows]

    def operation(self, version: int) -> Operation:
        """The operation that made a version, whatever others have done since."""
        return self.history(first=version)[0]

    def enroll(self, label: str, samples: Sequence[Sample]) -> tuple[int, int]:
        """Store pictures of a label; durable when it returns.

        A picture that the label has already, or that comes twice, is skipped. One that was rejected, for this
        label or another, is a negative no more: the last word counts.

        Returns
        -------
        version : int
            Of this operation; the current one where all pictures were duplicates.
        added : int
            How many were new.

        Raises
        ------
        LabelError
            The label is not allowed, or a picture is enrolled under another label.
        EmbeddingError
            An embedding has the wrong dimension or is not finite.
        GalleryError
            The gallery cannot be written.
        """
        return self._store("enroll", clean_label(label), samples, negative=False)

    def reject(self, label: str, samples: Sequence[Sample]) -> tuple[int, int]:
        """Store pictures of what a label is not; as `enroll`, and the label must be enrolled.

        A picture that is enrolled under this very label is taken from it in the same operation. One that is enrolled
        under another label is skipped: that says already that it is not this.
        """
        return self._store("reject", clean_label(label), samples, negative=True)

    def forget(self, label: str, sources: Iterable[str] | None = None) -> int:
        """Retire all pictures and negatives of a label, or only those from these sources; returns the new version.

        Raises
        ------
        LabelError
            The label is not enrolled.
        PictureError
            It has nothing from one of the sources.
        """
        label, named = clean_label(label), None if sources is None else set(sources)
        with self._write() as db:
            found = db.execute("SELECT id, source FROM sample WHERE live = 1 AND label = ?", (label,)).fetchall()
            if not found:
                raise _unknown(db, label)
            missing = (named or set()) - {source for _, source in found}
            if missing:
                raise PictureError(
                    f"picture must be enrolled as {label!r} or rejected for it (got {min(missing)})",
                    hint="name it as it was named then; the report names doubtful ones",
                )
            gone = [number for number, source in found if named is None or source in named]
            return _record(db, "forget", label, None, [], gone)

    def undo(self) -> int:
        """Revert the last operation that is not undone yet; returns the new version.

        Raises
        ------
        GalleryError
            There is nothing to undo.
        """
        with self._write() as db:
            (target,) = db.execute(
                "SELECT max(version) FROM operation WHERE kind != 'undo'"
                " AND version NOT IN (SELECT target FROM operation WHERE kind = 'undo')"
            ).fetchone()
            if target is None:
                raise GalleryError(
                    "gallery must hold an operation to undo (got none left)",
                    hint="a rollback restores any version that the history lists",
                )
            # Everything after the target is undone already, so its inverse restores what was before it.
            changes = db.execute("SELECT sample_id, delta FROM change WHERE version = ?", (target,)).fetchall()
            return _revert(db, "undo", target, changes)

    def rollback(self, version: int) -> int:
        """Restore exactly what lived at `version` (0: nothing), also forward again; returns the new version.

        Raises
        ------
        OptionError
            It is no whole number.
        GalleryError
            There is no such version.
        """
        if not isinstance(version, Integral) or isinstance(version, bool):
            raise OptionError(
                f"version must be a whole number (got {version!r})", hint="the history lists all versions"
            )
        version = int(version)
        with self._write() as db:
            last = _last_version(db)
            if not 0 <= version <= last:
                raise GalleryError(
                    f"version must be 0 to {last} (got {version})", hint="the history lists all versions"
                )
            changes = db.execute(
                "SELECT sample_id, sum(delta) FROM change WHERE version > ? GROUP BY sample_id HAVING sum(delta) != 0",
                (version,),
            ).fetchall()
            return _revert(db, "rollback", version, changes)

    def close(self) -> None:
        """Close the file; what was stored is safe already."""
        with self._writing, self._reading:
            for connection in self._connections:
                connection.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _store(self, kind: str, label: str, samples: Sequence[Sample], *, negative: bool) -> tuple[int, int]:
        blobs = checked_blobs(samples, self.dim)
        with self._write() as db:
            if (
                negative
                and not db.execute("SELECT 1 FROM sample WHERE live = 1 AND label = ? LIMIT 1", (label,)).fetchone()
            ):
                raise _unknown(db, label)
            known: set[bytes] = set()
            moved: list[int] = []
            for number, digest, other, was_negative, source in _live(db, [s.hash for s in samples]):
                own, rejected = other == label, bool(was_negative)
                if own and rejected == negative:
                    known.add(digest)
                elif own or (rejected and not negative):
                    moved.append(number)
                elif negative and not rejected:
                    known.add(digest)  # what is something else is not this
                elif not negative:
                    again = next(s.source for s in samples if s.hash == digest)
                    raise LabelError(
                        f"picture must have one label (got {again} for {label!r},"
                        f" which is enrolled as {other!r} from {source})",
                        hint=f"take it from {other!r} first: forget its file under that label, or undo its enrolment",
                    )
            first: int = db.execute("SELECT coalesce(max(id), 0) + 1 FROM sample").fetchone()[0]
            now = time.time()
            rows: list[tuple[object, ...]] = []
            pictures: list[tuple[int, bytes]] = []
            for sample, blob in zip(samples, blobs, strict=True):
                if sample.hash in known:
                    continue
                known.add(sample.hash)
                number = first + len(rows)
                rows.append((number, label, negative, 0, sample.hash, sample.source, now, blob))
                if sample.picture is not None:
                    pictures.append((number, sample.picture))
            if not rows:
                return _last_version(db), 0
            db.executemany("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.executemany("INSERT INTO picture VALUES (?, ?)", pictures)
            return _record(db, kind, label, None, range(first, first + len(rows)), moved), len(rows)

    def _connect(self) -> None:
        self._seen = self._look()
        reader, frozen = database.connect(self.path, self._timeout_s)
        writer = reader if frozen else database.connect(self.path, self._timeout_s)[0]
        for old in self._connections:
            old.close()
        self._connections = (reader, writer)
        self._frozen = frozen
        self._stamp = None

    def _look(self) -> tuple[int, ...]:
        state = os.stat(self.path) if os.path.exists(self.path) else os.stat_result((0,) * 10)
        return state.st_ino, state.st_size, state.st_mtime_ns, database.unlogged(self.path)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, database.translated(self.path):
            yield self._reader()

    def _reader(self) -> sqlite3.Connection:
        # A frozen connection sees nothing of what others write: when the file has changed, open it anew.
        if self._frozen and self._look() != self._seen:
            self._connect()
        return self._connections[0]

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._writing, database.translated(self.path):
            if self._frozen:  # by now the disk may have room, or the folder be writable
                with self._reading:
                    self._connect()
            db = self._connections[1]
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")


def _last_version(db: sqlite3.Connection) -> int:
    version: int = db.execute("SELECT coalesce(max(version), 0) FROM operation").fetchone()[0]
    return version


def _live(db: sqlite3.Connection, hashes: Sequence[bytes]) -> Iterator[tuple[int, bytes, str, int, str]]:
    for start in range(0, len(hashes), _CHUNK):
        chunk = hashes[start : start + _CHUNK]
        marks = ",".join("?" * len(chunk))
        yield from db.execute(
            f"SELECT id, hash, label, negative, source FROM sample WHERE live = 1 AND hash IN ({marks})",
            chunk,
        )


def _unknown(db: sqlite3.Connection, label: str) -> LabelError:
    labels = [x for (x,) in db.execute("SELECT DISTINCT label FROM sample WHERE live = 1 LIMIT 10")]
    known = ", ".join(repr(x) for x in labels) or "no label yet"
    return LabelError(f"label must be enrolled (got {label!r})", hint=f"the gallery knows {known}")


def _revert(db: sqlite3.Connection, kind: str, target: int, changes: Iterable[tuple[int, int]]) -> int:
    added = [number for number, delta in changes if delta < 0]
    removed = [number for number, delta in changes if delta > 0]
    return _record(db, kind, None, target, added, removed)


def _record(
    db: sqlite3.Connection,
    kind: str,
    label: str | None,
    target: int | None,
    added: Sequence[int],
    removed: Sequence[int],
) -> int:
    version = _last_version(db) + 1
    db.execute(
        "INSERT INTO operation VALUES (?, ?, ?, ?, ?, ?, ?)",
        (version, kind, label, target, len(added), len(removed), time.time()),
    )
    for delta, numbers in ((-1, removed), (1, added)):
        db.executemany("INSERT INTO change VALUES (?, ?, ?)", ((version, n, delta) for n in numbers))
        db.executemany("UPDATE sample SET live = ? WHERE id = ?", ((delta > 0, n) for n in numbers))
    return version


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
