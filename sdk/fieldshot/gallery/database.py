"""The SQLite file under a gallery: made whole or not at all, opened as well as it allows, errors in words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fieldshot.errors import GalleryError, MissingFileError

__all__ = ["MIGRATIONS", "connect", "create", "in_words", "migrate", "translated", "unlogged"]

APPLICATION_ID = 0x66736C74  # "fslt", at offset 68 of the file: what `file` and we know a gallery by

# Schema n is MIGRATIONS[:n] applied to an empty file. Published entries never change: append a new one.
# Pictures stand apart from samples, so that switching `live` never rewrites megabytes of blobs.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE sample (
            id INTEGER PRIMARY KEY,
            label TEXT NOT NULL,
            negative INTEGER NOT NULL,   -- 1: a picture of what the label is not
            live INTEGER NOT NULL,       -- 1 where the deltas of the sample sum to 1
            hash BLOB NOT NULL,          -- SHA-256 of shape and decoded pixels
            source TEXT NOT NULL,
            added REAL NOT NULL,         -- seconds since 1970
            embedding BLOB NOT NULL)     -- D float32, little endian""",
        "CREATE TABLE picture (sample_id INTEGER PRIMARY KEY REFERENCES sample, data BLOB NOT NULL)",
        """CREATE TABLE operation (
            version INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            label TEXT,
            target INTEGER,              -- the version that an undo reverts or a rollback restores
            added INTEGER NOT NULL,
            removed INTEGER NOT NULL,
            time REAL NOT NULL)""",
        """CREATE TABLE change (
            version INTEGER NOT NULL REFERENCES operation,
            sample_id INTEGER NOT NULL REFERENCES sample,
            delta INTEGER NOT NULL,
            PRIMARY KEY (version, sample_id)) WITHOUT ROWID""",
        "CREATE INDEX live_hash ON sample (hash) WHERE live = 1",
        "CREATE INDEX live_label ON sample (label, negative) WHERE live = 1",
    ),
)

# What SQLite says (the codes themselves reach Python only from 3.11 on): what to say, how to mend it.
_WORDS = (
    (
        "disk is full",
        "disk must have room for the gallery (got no space left)",
        "free some space and repeat; nothing of this operation was written, all earlier ones are safe",
    ),
    (
        "disk i/o error",
        "gallery must be on a disk that can be read and written (got an I/O error)",
        "check the free space and the health of the disk, then repeat; all completed operations are safe",
    ),
    (
        "locked",
        "gallery must be free to write (got a lock held by another program)",
        "wait until the other program has finished writing, or close it, then repeat",
    ),
    (
        "readonly",
        "gallery must be writable (got a read-only file or folder)",
        "give your user write permission on the file and its folder, or copy the gallery elsewhere",
    ),
    (
        "not a database",
        "file must be a fieldshot gallery (got something else)",
        "check the path; a new gallery is made by `fieldshot enroll` or Recognizer.create",
    ),
    (
        "malformed",
        "gallery must be undamaged (got a damaged file)",
        "restore it from a backup; a copy taken while a program was writing must include the -wal file",
    ),
    (
        "unable to open",
        "gallery must be readable together with its -wal file (got no access)",
        "give your user read permission on the files, and write permission on their folder",
    ),
    (
        "closed database",
        "gallery must be open (got a closed one)",
        "open it again",
    ),
)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn any `sqlite3.Error` of the block into `in_words`."""
    try:
        yield
    except sqlite3.Error as error:
        raise in_words(error, path) from error


def in_words(error: sqlite3.Error, path: Path) -> GalleryError:
    """The GalleryError that says how to mend an error of SQLite."""
    text = str(error).lower()
    for fragment, message, hint in _WORDS:
        if fragment in text:
            return GalleryError(f"{message}: {path}", hint=hint)
    return GalleryError(f"gallery must be usable (got SQLite's {error!r}): {path}")


def unlogged(path: Path) -> bool:
    """Whether everything stands in the main file: no write-ahead log, or an empty one."""
    try:
        return os.stat(f"{path}-wal").st_size == 0
    except FileNotFoundError:
        return True


def create(path: Path, meta: dict[str, str]) -> None:
    """Make an empty gallery at `path`, whole or not at all, never over anything that is there.

    Raises
    ------
    GalleryError
        Something is at `path` already, or the folder cannot be written.
    MissingFileError
        The folder does not exist.
    """
    if not path.parent.is_dir():
        raise MissingFileError(f"folder of the gallery must exist (got {path.parent})", hint="make it first")
    taken = GalleryError(
        f"path of a new gallery must be free (got {path}, which exists)",
        hint="open it with Recognizer.open, or choose another path",
    )
    if os.path.lexists(path):
        raise taken
    if not unlogged(path):  # SQLite would replay it into the new file
        raise GalleryError(
            f"path of a new gallery must be free (got {path}-wal, the rest of an earlier gallery)",
            hint="move it back beside its gallery, or delete it",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise GalleryError(
            f"folder of a new gallery must be writable (got {path.parent})",
            hint="give your user write permission on it, or choose another folder",
        )
    draft = path.parent / f".fieldshot-{os.urandom(6).hex()}.new"
    try:
        with translated(path), closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # nobody sees the draft before the one fsync below
            db.execute("PRAGMA journal_mode = OFF")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            migrate(db)
            db.execute("BEGIN")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode = WAL")
        _sync(draft)
        try:
            os.link(draft, path)  # unlike a rename it never replaces a file that appeared meanwhile
        except FileExistsError:
            raise taken from None
        except OSError:  # a file system without hard links, such as the FAT of an SD card
            os.rename(draft, path)
        _sync(path.parent)
    finally:
        for leftover in (draft, f"{draft}-wal", f"{draft}-shm", f"{draft}-journal"):
            if os.path.lexists(leftover):
                os.unlink(leftover)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    for statements in MIGRATIONS[db.execute("PRAGMA user_version").fetchone()[0] :]:
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")


def connect(path: Path, timeout_s: float) -> tuple[sqlite3.Connection, bool]:
    """Open the gallery at `path`: for writing where possible, else as a file that nobody changes.

    Returns
    -------
    connection : sqlite3.Connection
        In autocommit mode, for any thread (the caller keeps a lock).
    frozen : bool
        True where SQLite could not make its -shm file (read-only folder, full disk) and reads the
        main file alone: such a connection sees no later operation.
    """
    if not os.path.exists(path):
        raise MissingFileError(
            f"gallery must exist (got {path})",
            hint="check the path; a new gallery is made by `fieldshot enroll` or Recognizer.create",
        )
    if os.path.isdir(path):
        raise GalleryError(f"gallery must be a file (got the folder {path})", hint="name the file in it")
    with translated(path):
        try:
            return _attempt(path, "mode=rw", timeout_s), False
        except sqlite3.OperationalError as error:
            denied = ("unable to open", "readonly", "disk i/o error", "disk is full")
            if not unlogged(path) or not any(text in str(error).lower() for text in denied):
                raise
            return _attempt(path, "mode=ro&immutable=1", timeout_s), True


def _attempt(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise sqlite3.DatabaseError("file is not a database of fieldshot")
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        if schema > len(MIGRATIONS):
            raise GalleryError(
                f"gallery must have schema {len(MIGRATIONS)} or older (got {schema}): {path}",
                hint="a newer fieldshot wrote it; upgrade this one",
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        if mode == "mode=rw":  # a copy made with VACUUM INTO is not in this mode any more
            db.execute("PRAGMA journal_mode = WAL")
        if schema < len(MIGRATIONS):
            migrate(db)
    except BaseException:
        db.close()
        raise
    return db
