"""Pictures to verify with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldshot.errors import ExportError, MissingFileError
from fieldshot_export import pictures


def write(folder: Path, n: int, size: tuple[int, int] = (60, 40)) -> None:
    for i in range(n):
        Image.fromarray(pictures.dead_leaves(size[::-1], seed=i)).save(folder / f"{i}.png")


def test_dead_leaves_are_seeded_and_differ() -> None:
    a, b = pictures.dead_leaves((40, 60), seed=1), pictures.dead_leaves((40, 60), seed=1)
    assert a.shape == (40, 60, 3)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal(a, b)
    assert np.abs(a.astype(int) - pictures.dead_leaves((40, 60), seed=2)).mean() > 10


def test_dead_leaves_have_the_spectrum_of_photographs() -> None:
    """Power falls with about the square of the frequency, as in natural images; in noise it would not fall."""
    slopes = []
    for seed in range(8):
        grey = pictures.dead_leaves((128, 128), seed=seed).mean(axis=2)
        power = np.abs(np.fft.fft2((grey - grey.mean()) * np.hanning(128)[:, None] * np.hanning(128))) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
        band = (frequency > 0.03) & (frequency < 0.3)
        slopes.append(np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0])
    assert -3.5 < np.mean(slopes) < -1.5


def test_procedural_pictures_have_several_shapes() -> None:
    chosen = pictures.collect((32, 48))
    assert len({picture.shape for picture in chosen.verify}) == len(chosen.verify) == 4
    assert "procedural" in chosen.description
    assert sum(1 for _ in chosen.statistics()) == pictures.STATISTICS_PROCEDURAL_COUNT


def test_own_pictures_are_a_seeded_sample(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    write(tmp_path / "class", 12)
    first, again = pictures.collect((32, 32), tmp_path), pictures.collect((32, 32), tmp_path)
    other = pictures.collect((32, 32), tmp_path, seed=1)
    assert len(first.verify) == 8
    assert len(first.others) == 12
    assert all(np.array_equal(a, b) for a, b in zip(first.verify, again.verify, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first.verify, other.verify, strict=True))
    assert len(list(first.statistics())) == 12


def test_large_pictures_are_reduced_and_long_ones_cut(tmp_path: Path) -> None:
    write(tmp_path, 2, (400, 300))
    Image.new("RGB", (900, 30), "teal").save(tmp_path / "long.png")
    shapes = {picture.shape for picture in pictures.collect((32, 32), tmp_path).verify}
    assert shapes == {(48, 64, 3), (30, 96, 3)}


def test_unreadable_pictures_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 3)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    chosen = pictures.collect((32, 32), tmp_path)
    assert len(chosen.verify) == 3
    assert len(list(chosen.statistics())) == 3


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ExportError, match=r"at least 2 pictures that can be read \(got 1 of 2\)"):
        pictures.collect((32, 32), tmp_path)
    with pytest.raises(MissingFileError, match="folder of pictures must exist"):
        pictures.collect((32, 32), tmp_path / "absent")
