"""Cached embeddings: used while nothing changed, made anew when anything did or is damaged, never in the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bundles import write_tiny_bundle
from fieldshot.backbone import Backbone
from fieldshot.errors import PictureError
from fieldshot.evaluation import cache
from fieldshot.images import find_classes


class Counted:
    """A backbone that counts what it embeds."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.dim, self.contract = backbone, backbone.dim, backbone.contract
        self.count = 0

    def embed(self, pictures: list[Path], progress: object = None) -> object:
        self.count += len(pictures)
        return self.backbone.embed(pictures, progress=progress)


@pytest.fixture
def counted(backbone):
    return Counted(backbone)


def embedded(counted, folder, place):
    """Embeddings of a folder of classes, and how many pictures the network saw for it."""
    before = counted.count
    paths = [path for of in find_classes(folder).values() for path in of]
    Z = cache.embed(counted, paths, folder, cache=place)
    np.testing.assert_array_equal(Z, counted.backbone.embed(paths))
    assert Z.dtype == np.float32
    return counted.count - before


def test_a_second_time_nothing_is_embedded(counted, pictures, tmp_path):
    assert embedded(counted, pictures, tmp_path / "deep/cache") == 6
    assert embedded(counted, pictures, tmp_path / "deep/cache") == 0
    moved = shutil.move(pictures, tmp_path / "elsewhere")
    assert embedded(counted, Path(moved), tmp_path / "deep/cache") == 0
    assert len(os.listdir(tmp_path / "deep/cache")) == 1
    assert embedded(counted, Path(moved), None) == 6


def test_whatever_changes_is_embedded_anew(counted, pictures, tmp_path):
    place = tmp_path / "cache"
    embedded(counted, pictures, place)
    shutil.copy(pictures / "leaf/0.png", pictures / "leaf/1.png")  # another content
    assert embedded(counted, pictures, place) == 6
    (pictures / "leaf/2.png").rename(pictures / "rust/9.png")  # another class
    assert embedded(counted, pictures, place) == 6
    (pictures / "rust/9.png").unlink()
    assert embedded(counted, pictures, place) == 5
    other = Counted(Backbone.load(write_tiny_bundle(tmp_path / "other.fieldshot", seed=1)))
    assert embedded(other, pictures, place) == 5
    assert embedded(counted, pictures, place) == embedded(other, pictures, place) == 0


def test_a_damaged_file_is_made_anew(counted, pictures, tmp_path, caplog):
    place = tmp_path / "cache"
    embedded(counted, pictures, place)
    (file,) = place.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    damages = [b"", b"no archive", whole[:100], whole[:-30], bytes(flipped)]
    for damage in damages:
        file.write_bytes(damage)
        assert embedded(counted, pictures, place) == 6
        assert embedded(counted, pictures, place) == 0
    wrong = [{"other": np.zeros(3)}, {"embeddings": np.zeros((5, 16), np.float32)}, {"embeddings": np.zeros((6, 16))}]
    wrong.append({"embeddings": np.array([{}] * 6, dtype=object)})  # would need pickle
    for arrays in wrong:
        np.savez(file, **arrays)
        assert embedded(counted, pictures, place) == 6
    assert caplog.text.count("are made anew") == len(damages) + len(wrong)
    assert os.listdir(place) == [file.name]


def test_a_cache_that_cannot_be_written_is_a_warning(counted, pictures, tmp_path, caplog):
    (tmp_path / "file").touch()
    assert embedded(counted, pictures, tmp_path / "file" / "cache") == 6
    assert "cannot be cached" in caplog.text


def test_a_torn_write_leaves_nothing(counted, pictures, tmp_path, monkeypatch, caplog):
    def torn(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", torn)
        assert embedded(counted, pictures, tmp_path / "cache") == 6
    assert "No space left" in caplog.text
    assert os.listdir(tmp_path / "cache") == []


def test_a_picture_that_cannot_be_read_is_named(counted, pictures, tmp_path):
    (pictures / "leaf/1.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"leaf/1\.png"):
        embedded(counted, pictures, tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        cache.embed(counted, [pictures / "gone.png"], pictures, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "fieldshot"
    monkeypatch.setenv("HOME", "/home/somebody")
    for passed_over in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", passed_over)
        assert cache.default_folder() == Path("/home/somebody/.cache/fieldshot")
