"""The file: made whole or not at all, never overwritten, read where it cannot be written, safe when full."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fieldshot.errors import GalleryError, MissingFileError
from fieldshot.gallery import Gallery, Sample, database


def sample(number: int, picture: bytes | None = None) -> Sample:
    return Sample(f"{number}".encode(), np.full(3, number, np.float32), f"picture {number}", picture)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed gallery with one operation."""
    with Gallery.create(tmp_path / "site.gallery", contract="c", dim=3, name="net") as gallery:
        gallery.enroll("bolt", [sample(1)])
        return gallery.path


def test_create_remembers_what_it_is_for(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "a?b#c% d.gallery", contract="c", dim=3, name="net") as gallery:
        assert (gallery.contract, gallery.dim, gallery.keep_pictures) == ("c", 3, False)
        assert gallery.meta["name"] == "net"
        assert gallery.version() == 0
        assert gallery.snapshot().embeddings.shape == (0, 3)
    assert os.listdir(tmp_path) == ["a?b#c% d.gallery"]


def test_create_never_overwrites(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    (tmp_path / "empty").touch()
    (tmp_path / "broken link").symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path / "empty", tmp_path / "broken link", tmp_path):
        with pytest.raises(GalleryError, match="must be free"):
            Gallery.create(taken, contract="c", dim=3)
    assert path.read_bytes() == before


def test_create_does_not_take_over_the_log_of_an_earlier_gallery(tmp_path: Path) -> None:
    (tmp_path / "a-wal").write_bytes(b"x")
    with pytest.raises(GalleryError, match="a-wal, the rest of an earlier gallery"):
        Gallery.create(tmp_path / "a", contract="c", dim=3)


def test_create_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: object, target: object) -> None:
        raise PermissionError("FAT has no hard links")

    monkeypatch.setattr(os, "link", link)
    Gallery.create(tmp_path / "a", contract="c", dim=3).close()
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"must exist .*Hint: make it first"):
        Gallery.create(tmp_path / "no" / "a", contract="c", dim=3)
    with pytest.raises(MissingFileError, match=r"gallery must exist .*create"):
        Gallery.open(tmp_path / "no")


def test_create_in_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(GalleryError, match=r"must be writable .*Hint: give"):
        Gallery.create(tmp_path / "a", contract="c", dim=3)
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork, from Python 3.12 on
def test_a_kill_during_create_leaves_a_good_gallery_or_none(tmp_path: Path) -> None:
    def start_making(path: Path) -> int:
        child = os.fork()
        if child == 0:
            try:
                Gallery.create(path, contract="c", dim=3)
            finally:
                os._exit(0)
        return child

    start = time.perf_counter()  # in a child too: a fork of a process with much memory is slow
    os.waitpid(start_making(tmp_path / "whole"), 0)
    takes_s = time.perf_counter() - start
    good = 0
    for trial in range(40):
        path = tmp_path / str(trial)
        child = start_making(path)
        time.sleep(trial / 40 * 3 * takes_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            gallery = Gallery.open(path)
        except MissingFileError:
            continue
        good += 1
        with gallery:
            assert gallery.enroll("bolt", [sample(1)]) == (1, 1)
    assert 0 < good < 40


@pytest.mark.parametrize("content", [b"", b"not a gallery", b"SQLite format 3\0" + b"\0" * 200])
def test_a_file_that_is_no_gallery(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(GalleryError, match="must be a fieldshot gallery"):
        Gallery.open(path)
    assert path.read_bytes() == content


def test_the_database_of_another_program(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "contacts.db")
    db.execute("CREATE TABLE contact (name TEXT)")
    db.close()
    with pytest.raises(GalleryError, match="must be a fieldshot gallery"):
        Gallery.open(tmp_path / "contacts.db")


def test_a_folder_is_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="must be a file"):
        Gallery.open(tmp_path)


def test_a_damaged_gallery(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = os.urandom(len(content) - 4096 * 2)
    path.write_bytes(content)
    with pytest.raises(GalleryError, match=r"undamaged.*Hint: restore"), Gallery.open(path) as gallery:
        gallery.snapshot()


def test_a_newer_schema_is_refused_and_an_older_one_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("CREATE TABLE extra (x)",)))
        with Gallery.open(path) as gallery:
            assert gallery.snapshot().labels == ["bolt"]
        with Gallery.open(path) as gallery:
            assert gallery.version() == 1
    with pytest.raises(GalleryError, match=r"schema 1 or older \(got 2\).*Hint: .*upgrade"):
        Gallery.open(path)


def test_a_copy_in_another_journal_mode_comes_back_to_ours(path: Path, tmp_path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    db.close()
    with Gallery.open(tmp_path / "copy") as gallery:
        assert gallery.enroll("nut", [sample(2)]) == (2, 1)
        assert (tmp_path / "copy-wal").exists()


# --- a full disk


def check_still_good(path: Path) -> None:
    with Gallery.open(path) as gallery:
        assert gallery.version() == 1
        assert gallery.snapshot().labels == ["bolt"]
        assert gallery.enroll("nut", [sample(2)]) == (2, 1)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("SELECT count(*) FROM sample").fetchone() == (2,)  # nothing half written
    db.close()


def test_a_full_file_leaves_the_last_operation(path: Path) -> None:
    with Gallery.open(path) as gallery:
        for connection in gallery._connections:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(GalleryError, match=r"must have room.*Hint: free some space"):
            gallery.enroll("nut", [sample(2, b"x" * 100_000)])
        assert gallery.version() == 1
    check_still_good(path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork, from Python 3.12 on
@pytest.mark.parametrize("room", [0, 60_000, 150_000])
def test_a_disk_that_fills_up_while_writing(path: Path, room: int) -> None:
    child = os.fork()
    if child == 0:  # the limit holds for the whole process and cannot be taken back
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            gallery = Gallery.open(path)
            limit = max(path.stat().st_size, room)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            for _ in range(2):
                try:
                    gallery.enroll("nut", [sample(2, os.urandom(300_000))])
                except GalleryError as error:
                    status = 0 if "disk" in str(error) and gallery.snapshot().labels == ["bolt"] else 2
            gallery.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check_still_good(path)


def test_a_full_file_system(tmp_path: Path) -> None:
    """On a real, tiny file system: full while writing, and full before opening."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        path = mount / "site.gallery"
        with Gallery.create(path, contract="c", dim=3) as gallery:
            gallery.enroll("bolt", [sample(1)])
            with pytest.raises(GalleryError, match="disk"):
                gallery.enroll("nut", [sample(2, os.urandom(600_000))])
            assert gallery.snapshot().labels == ["bolt"]
        fill(mount / "ballast")
        with Gallery.open(path) as gallery:
            assert gallery.snapshot().labels == ["bolt"]
            with pytest.raises(GalleryError, match=r"Hint: "):
                gallery.enroll("nut", [sample(2, os.urandom(100_000))])
            os.unlink(mount / "ballast")
            assert gallery.enroll("nut", [sample(2)]) == (2, 1)  # without opening it again
            assert sorted(gallery.counts()) == ["bolt", "nut"]
    finally:
        subprocess.run(["umount", mount], check=True)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


# --- read only, as a user who may not write

# Everything is imported first: Python itself may lie where only root can read (pathlib needs urllib later).
AS_NOBODY = """
import os, sys, urllib.parse
from fieldshot.errors import GalleryError
from fieldshot.gallery import Gallery
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
with Gallery.open(sys.argv[1]) as gallery:
    print(gallery.version(), gallery.snapshot().labels, flush=True)
    try:
        gallery.forget("bolt")
    except GalleryError as error:
        print(error, flush=True)
    sys.stdin.readline()
    print(gallery.version(), gallery.snapshot().labels, flush=True)
"""


@pytest.mark.parametrize("folder_mode", [0o777, 0o555])
@pytest.mark.parametrize("owner_has_it_open", [False, True])
def test_a_read_only_gallery_reads_and_says_how_to_write(folder_mode: int, owner_has_it_open: bool) -> None:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="fieldshot-readonly-"))  # pytest's own folders are closed to others
    path = folder / "site.gallery"
    gallery = Gallery.create(path, contract="c", dim=3)
    gallery.enroll("bolt", [sample(1)])
    if not owner_has_it_open:
        gallery.close()
    path.chmod(0o444)
    folder.chmod(folder_mode)
    try:
        with subprocess.Popen(
            [sys.executable, "-c", AS_NOBODY, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as reader:
            assert reader.stdin is not None and reader.stdout is not None
            assert reader.stdout.readline() == "1 ['bolt']\n"
            refusal = reader.stdout.readline()
            assert "must be writable" in refusal and "Hint: give your user write permission" in refusal
            later = "1 ['bolt']\n"
            if os.geteuid() == 0:  # another user, who may write, goes on: the reader must see it
                gallery.close()
                with Gallery.open(path) as gallery:
                    gallery.enroll("nut", [sample(2)])
                later = "2 ['bolt', 'nut']\n"
            print(file=reader.stdin, flush=True)
            assert reader.stdout.readline() == later
        assert reader.returncode == 0
    finally:
        gallery.close()
        folder.chmod(0o755)
        shutil.rmtree(folder)
