"""Batches: every item once, in order, in memory that is used again, and an end to all threads."""

from __future__ import annotations

import threading
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldshot.backbone.batches import batches

SHAPE = (1, 2, 2)


def fill(item: int, out: np.ndarray) -> None:
    if item < 0:
        raise ValueError(f"item {item}")
    out[:] = item


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fieldshot")]


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 70), batch_size=st.integers(1, 40), workers=st.integers(1, 4))
def test_every_item_once_in_order(count: int, batch_size: int, workers: int) -> None:
    got = [batch.copy() for batch in batches(iter(range(count)), fill, SHAPE, batch_size=batch_size, workers=workers)]
    assert [len(batch) for batch in got] == [batch_size] * (count // batch_size) + [count % batch_size] * (
        count % batch_size > 0
    )
    values = np.concatenate([np.empty((0, *SHAPE)), *got])
    np.testing.assert_array_equal(values, np.broadcast_to(np.arange(count).reshape(-1, 1, 1, 1), (count, *SHAPE)))
    assert not threads()


def test_two_buffers_serve_all_batches() -> None:
    seen = {batch.__array_interface__["data"][0] for batch in batches(range(90), fill, SHAPE, batch_size=9, workers=2)}
    assert len(seen) == 2


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 60), bad=st.lists(st.integers(0, 59), min_size=1), batch_size=st.integers(1, 20))
def test_the_first_error_in_order_is_raised(count: int, bad: list[int], batch_size: int) -> None:
    items = [-1 - i if i in bad else i for i in range(count)]
    wrong = [item for item in items if item < 0]
    if wrong:
        with pytest.raises(ValueError, match=rf"^item {wrong[0]}$"):
            list(batches(items, fill, SHAPE, batch_size=batch_size, workers=3))
    else:
        assert sum(map(len, batches(items, fill, SHAPE, batch_size=batch_size, workers=3))) == count
    assert not threads()


def test_closing_early_ends_the_threads() -> None:
    with closing(batches(range(1000), fill, SHAPE, batch_size=2, workers=2)) as inputs:
        next(inputs)
        assert threads()
    assert not threads()
