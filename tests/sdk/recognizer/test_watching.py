"""A camera: the newest frame wins, and whatever goes wrong is told where the answers are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fieldshot import Recognizer
from fieldshot.errors import OptionError, PictureError
from fieldshot.recognizer.watching import newest


def double(frame: int) -> int:
    return 2 * frame


def test_a_slow_camera_loses_nothing() -> None:
    answered = threading.Event()
    answered.set()

    def camera() -> Iterator[int]:
        for frame in range(5):
            answered.wait(10)
            answered.clear()
            yield frame

    def answer(frame: int) -> int:
        answered.set()
        return double(frame)

    assert list(newest(camera(), answer, waiting=1, timeout_s=10)) == [(n, 2 * n) for n in range(5)]


@pytest.mark.parametrize("waiting", [1, 3])
def test_of_a_quick_camera_the_newest_frames_are_answered(waiting: int) -> None:
    started, all_taken = threading.Event(), threading.Event()

    def camera() -> Iterator[int]:
        yield 0
        started.wait(10)
        yield from range(1, 100)
        all_taken.set()

    def answer(frame: int) -> int:
        started.set()
        all_taken.wait(10)
        return double(frame)

    got = [frame for frame, _ in newest(camera(), answer, waiting=waiting, timeout_s=10)]
    assert got == [0, *range(100 - waiting, 100)]


def test_a_camera_that_stops() -> None:
    closed = threading.Event()

    def camera() -> Iterator[int]:
        yield 1
        closed.wait(10)

    stream = newest(camera(), double, waiting=1, timeout_s=0.05)
    assert next(stream) == (1, 2)
    with pytest.raises(PictureError, match=r"a frame must come within 0\.05 s .*Hint: look whether the camera"):
        next(stream)
    closed.set()


def test_a_camera_that_fails_is_told_after_what_it_gave() -> None:
    def camera() -> Iterator[int]:
        yield 1
        raise OSError("the cable is out")

    got = []
    with pytest.raises(OSError, match="the cable is out"):
        for frame, _ in newest(camera(), double, waiting=1, timeout_s=10):
            got.append(frame)
    assert got == [1]


def test_closed_early_it_takes_no_more() -> None:
    taken = []

    def camera() -> Iterator[int]:
        for frame in range(10_000):
            taken.append(frame)
            time.sleep(0.001)
            yield frame

    stream = newest(camera(), double, waiting=1, timeout_s=10)
    next(stream)
    stream.close()
    time.sleep(0.05)
    count = len(taken)
    time.sleep(0.05)
    assert len(taken) == count < 10_000


def test_closed_before_it_was_asked_it_takes_none() -> None:
    taken = []
    camera = (taken.append(frame) or frame for frame in range(10))
    newest(camera, double, waiting=1, timeout_s=10).close()
    time.sleep(0.05)
    assert taken == []


def test_no_frames() -> None:
    assert list(newest([], double, waiting=1, timeout_s=1)) == []


@pytest.mark.parametrize(
    "options",
    [{"waiting": 0}, {"waiting": True}, *({"timeout_s": bad} for bad in (0, float("nan"), float("inf"), "2", True))],
)
def test_what_is_no_number_of_frames_or_seconds(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="must be"):
        newest([], double, **{"waiting": 1, "timeout_s": None, **options})  # type: ignore[arg-type]


def test_a_recognizer_watches(tiny_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dark, light = rng.integers(0, 60, (3, 32, 32, 3), np.uint8), rng.integers(200, 256, (3, 32, 32, 3), np.uint8)
    with Recognizer.create(tmp_path / "g.gallery", tiny_bundle, engine="onnxruntime") as recognizer:
        recognizer.enroll("dark", dark)
        recognizer.enroll("light", light)
        answered = list(recognizer.watch([light[0]], timeout_s=30))
        ((frame, recognition),) = answered
        assert frame is not None and np.array_equal(frame, light[0])
        assert (recognition.label, recognition.engine) == ("light", "onnxruntime float32")
        with pytest.raises(PictureError):
            list(recognizer.watch([np.zeros((0, 0, 3), np.uint8)]))


@pytest.mark.parametrize("frames", ["photo.jpg", Path("photo.jpg"), np.zeros((4, 4, 3), np.uint8), None, 7])
def test_what_is_no_camera(frames: object) -> None:
    with pytest.raises(
        OptionError, match=r"frames must be an iterable of pictures \(got \w+\)\. Hint: write a generator"
    ):
        newest(frames, double, waiting=1, timeout_s=None)  # type: ignore[arg-type]


def test_a_camera_may_use_one_array_for_all_frames() -> None:
    taken = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        frame = np.zeros(3, np.uint8)
        yield frame
        frame[:] = 9
        taken.set()

    def answer(frame: np.ndarray) -> int:
        taken.wait(10)
        return int(frame[0])

    ((frame, found),) = newest(camera(), answer, waiting=1, timeout_s=10)
    assert found == frame[0] == 0


def test_frames_that_are_no_pictures_are_left_out_where_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    def answer(frame: int) -> int:
        if frame == 1:
            raise PictureError("frame 1 is cut off")
        return double(frame)

    def slow() -> Iterator[int]:
        for frame in range(3):
            time.sleep(0.05)
            yield frame

    got = list(newest(slow(), answer, waiting=3, timeout_s=10, skip_unreadable=True))
    assert got == [(0, 0), (2, 4)]
    assert "a frame is left out: frame 1 is cut off" in caplog.text
    with pytest.raises(PictureError, match="frame 1"):
        list(newest(slow(), answer, waiting=3, timeout_s=10))


def test_a_camera_can_be_watched_again() -> None:
    camera = iter(range(10_000))
    frames = (time.sleep(0.005) or frame for frame in camera)
    for _ in range(3):
        stream = newest(frames, double, waiting=1, timeout_s=10)
        next(stream)
        stream.close()
