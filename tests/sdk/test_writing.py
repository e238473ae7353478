"""A file is written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fieldshot.writing import replacing


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for old, new in ((None, b"first"), (b"first", b"second")):
        with replacing(path) as file:
            file.write(new)
            assert (path.read_bytes() if path.exists() else None) == old
        assert path.read_bytes() == new
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_the_old_one_is_there_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error)):
        with replacing(tmp_path / "a") as file:
            file.write(b"half")
            raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_the_error_is_told_where_another_program_took_the_new_file_away(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="first"):
        with replacing(tmp_path / "a") as file:
            os.unlink(file.name)
            raise RuntimeError("the first error")


def test_what_takes_its_place_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_size) or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("replaced") or replace(*paths))
    with replacing(tmp_path / "a") as file:
        file.write(b"12345")
    assert done == [5, "replaced"]


def test_who_may_read_it_is_as_of_any_other_file(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            with replacing(tmp_path / "a"):
                pass
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
