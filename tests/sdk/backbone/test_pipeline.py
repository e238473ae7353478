"""The pipeline: every item once, in order, in bounded memory, and an end to all threads."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshot.backbone.pipeline import outputs

SHAPE = (1, 2, 2)


def fill(batch: list[int]) -> np.ndarray:
    for item in batch:
        if item < 0:
            raise ValueError(f"item {item}")
    return np.array(batch, float).reshape(-1, 1, 1, 1) * np.ones(SHAPE)


def double(inputs: np.ndarray) -> np.ndarray:
    return 2 * inputs[:, 0, 0, :1]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fieldshot")]


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 70), batch_size=st.integers(1, 40), workers=st.integers(1, 4))
def test_every_item_once_in_order(count: int, batch_size: int, workers: int) -> None:
    got = list(outputs(iter(range(count)), fill, double, batch_size=batch_size, workers=workers))
    assert [len(batch) for batch in got] == [batch_size] * (count // batch_size) + [count % batch_size] * (
        count % batch_size > 0
    )
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 1)), *got])[:, 0], 2 * np.arange(count))
    assert not threads()


def test_items_are_taken_as_they_go() -> None:
    taken: list[int] = []
    items = (taken.append(i) or i for i in range(900))
    for done, _ in enumerate(outputs(items, fill, double, batch_size=9, workers=2)):
        assert len(taken) <= 9 * (done + 6)


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 60), bad=st.lists(st.integers(0, 59), min_size=1), batch_size=st.integers(1, 20))
def test_the_first_error_in_order_is_raised(count: int, bad: list[int], batch_size: int) -> None:
    items = [-1 - i if i in bad else i for i in range(count)]
    wrong = [item for item in items if item < 0]
    if wrong:
        with pytest.raises(ValueError, match=rf"^item {wrong[0]}$"):
            list(outputs(items, fill, double, batch_size=batch_size, workers=3))
    else:
        assert sum(map(len, outputs(items, fill, double, batch_size=batch_size, workers=3))) == count
    assert not threads()


def test_an_error_of_the_network_is_raised() -> None:
    def fail(inputs: np.ndarray) -> np.ndarray:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(outputs(range(30), fill, fail, batch_size=2, workers=3))
    assert not threads()


def test_closing_early_ends_the_threads() -> None:
    with closing(outputs(range(1000), fill, double, batch_size=2, workers=2)) as stream:
        next(stream)
        assert threads()
    assert not threads()


@pytest.mark.parametrize(("prepare_s", "run_s", "most"), [(0.0005, 0.02, 1), (0.02, 0.0005, 4)])
def test_as_many_prepare_at_once_as_the_stages_ask_for(prepare_s: float, run_s: float, most: int) -> None:
    now, peaks, lock = 0, [], threading.Lock()

    def prepare(batch: list[int]) -> np.ndarray:
        nonlocal now
        with lock:
            now += 1
            peaks.append(now)
        time.sleep(prepare_s)
        with lock:
            now -= 1
        return fill(batch)

    def run(inputs: np.ndarray) -> np.ndarray:
        time.sleep(run_s)
        return double(inputs)

    list(outputs(range(80), prepare, run, batch_size=1, workers=4))
    assert max(peaks) == most
