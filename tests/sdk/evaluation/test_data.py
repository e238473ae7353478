"""Folders of classes, official splits, and files of embeddings, with what people get wrong about them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from fieldshot.errors import EmbeddingError, FieldshotError, LabelError, MissingFileError, OptionError, PictureError
from fieldshot.evaluation import data


@pytest.fixture
def split(pictures):
    """The pictures as train, and two of each class as test."""
    folder = pictures.parent / "split"
    for name in ("train", "test"):
        shutil.copytree(pictures, folder / name)
    for label in ("leaf", "rust"):
        (folder / "test" / label / "0.png").unlink()
    return folder


def test_a_folder_of_classes(pictures, backbone):
    found = data.find_pictures(pictures)
    assert found.test is None
    assert found.pool().sizes() == {"leaf": (3, None), "rust": (3, None)}
    embedded = data.embed(found, backbone, cached=None)
    assert embedded.labels.tolist() == ["leaf"] * 3 + ["rust"] * 3
    np.testing.assert_array_equal(embedded.embeddings[4], backbone.embed([pictures / "rust/1.png"])[0])
    assert str(embedded) == "6 pictures in 2 classes"


def test_an_official_split(split, backbone, tmp_path):
    (split / "readme.txt").touch()
    (split / "train/.hidden").mkdir()
    found = data.find_pictures(split)
    assert found.pool().sizes() == {"leaf": (3, 2), "rust": (3, 2)}
    for _ in range(2):  # made, then from the cache
        embedded = data.embed(found, backbone, cached=tmp_path / "cache")
        Z, y = embedded.test
        assert (len(embedded.labels), y.tolist()) == (6, ["leaf", "leaf", "rust", "rust"])
        np.testing.assert_array_equal(Z[3], backbone.embed([split / "test/rust/2.png"])[0])
        assert embedded.pool().sizes() == found.pool().sizes()
    assert str(embedded) == "6 pictures to learn from, 4 to recognise, in 2 classes"


def test_what_lies_beside_a_split_is_named(split, caplog):
    data.find_pictures(split)
    assert not caplog.text
    shutil.copytree(split / "test", split / "val")
    assert data.find_pictures(split).pool().sizes() == {"leaf": (3, 2), "rust": (3, 2)}
    assert "only train and test are measured, val beside them is left out" in caplog.text


def test_sides_with_other_classes_are_named(split):
    (split / "test/rust").rename(split / "test/rost")
    with pytest.raises(OptionError, match=r"same classes .got in one of them only: train/rust, test/rost.*split/test"):
        data.find_pictures(split)


def test_classes_may_be_called_train_and_test(pictures):
    (pictures / "leaf").rename(pictures / "train")
    (pictures / "rust").rename(pictures / "test")
    assert data.find_pictures(pictures).pool().sizes() == {"test": (3, None), "train": (3, None)}
    (pictures / "test").rename(pictures / "bus")
    assert data.find_pictures(pictures).test is None


@pytest.mark.parametrize(("side", "other"), [("train", "test"), ("test", "train")])
def test_one_side_alone_is_no_split(split, side, other):
    shutil.rmtree(split / other)
    message = rf"an official split must .*got such in {side} only.*add those of {other}, or measure \S+/{side} alone"
    with pytest.raises(OptionError, match=message):
        data.find_pictures(split)
    (split / other).mkdir()  # with pictures of nobody knows what
    shutil.copy(split / side / "leaf/1.png", split / other)
    with pytest.raises(OptionError, match=message):
        data.find_pictures(split)
    assert data.find_pictures(split / side).test is None


def test_places_that_hold_no_classes(pictures):
    with pytest.raises(PictureError, match="one sub-folder of pictures for each class"):
        data.find_pictures(pictures / "leaf")
    with pytest.raises(MissingFileError):
        data.find_pictures(pictures / "absent")
    with pytest.raises(OptionError, match=r"0\.png must be a folder of pictures, .* ends in \.npz .*numpy\.savez"):
        data.find_pictures(pictures / "leaf/0.png")


def test_ready_embeddings(tmp_path):
    Z, y = np.arange(12.0).reshape(4, 3), np.array(["a", "a", "b", "b"])
    np.savez(tmp_path / "a.npz", embeddings=Z, labels=y)
    found = data.read_embeddings(tmp_path / "a.npz")
    assert found.embeddings.dtype == np.float32
    assert found.embeddings.tolist() == Z.tolist()
    assert (found.labels.tolist(), found.test) == (y.tolist(), None)
    np.savez_compressed(tmp_path / "b.npz", embeddings=Z, labels=y, test_embeddings=Z[1:], test_labels=y[1:], more=1)
    tested = data.read_embeddings(tmp_path / "b.npz").test
    assert (tested[0].tolist(), tested[1].tolist()) == (Z[1:].tolist(), y[1:].tolist())


Z, Y = np.ones((2, 3)), np.array([0, 1])


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ({"Z": Z, "labels": Y}, OptionError, r"must hold the arrays embeddings, labels .got Z, labels"),
        ({}, OptionError, "got none"),
        ({"embeddings": Z, "labels": Y, "test_labels": Y}, OptionError, "test_embeddings, test_labels .got"),
        ({"embeddings": Z, "labels": np.array([{}, []], dtype=object)}, OptionError, "must be a whole .npz file"),
        ({"embeddings": Z * np.nan, "labels": Y}, EmbeddingError, r"a\.npz: embeddings must be finite"),
        ({"embeddings": Z[0], "labels": Y}, EmbeddingError, "shape .N, D"),
        ({"embeddings": Z, "labels": Y[:1]}, LabelError, "labels must have shape .2,."),
        (
            {"embeddings": Z, "labels": Y, "test_embeddings": Z[:, :2], "test_labels": Y},
            EmbeddingError,
            "shape .N, 3.",
        ),
    ],
)
def test_files_that_hold_something_else(tmp_path, arrays, kind, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(kind, match=message) as caught:
        data.read_embeddings(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("content", [None, b"", b"no archive", "single", "torn"])
def test_files_that_are_no_such_archive(tmp_path, content):
    path = tmp_path / "a.npz"
    if content == "single":
        with path.open("wb") as file:
            np.save(file, Z)
    elif content == "torn":
        np.savez(path, embeddings=Z, labels=Y)
        path.write_bytes(path.read_bytes()[:-40])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(FieldshotError, match=r"a\.npz must") as caught:
        data.read_embeddings(path)
    assert isinstance(caught.value, MissingFileError if content is None else OptionError)
