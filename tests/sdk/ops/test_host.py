"""Memory of operations on the CPU."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from fieldshot import FewShotHead
from fieldshot.ops import host


@pytest.fixture
def runner() -> host.HostRunner:
    return host.HostRunner(host.library(), "host")


def used(runner: host.HostRunner, *sizes: int) -> list[int]:
    with runner.call() as call:
        return [call.scratch(np.uint8, size) for size in sizes]


def test_a_thread_keeps_the_scratch_memory_that_its_calls_need(runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_MOST_ROOM_BYTES", 3 << 20)
    first = runner.room.address
    assert used(runner, 1000)[0] == first
    assert used(runner, 1 << 20, 1 << 20)[0] != first
    grown = runner.room.address
    assert used(runner, 1 << 20, 1 << 20) == [grown, grown + (1 << 20)]
    used(runner, 1 << 23)  # more than is kept
    assert (runner.room.address, runner.room.size) == (grown, 2 << 20)


def test_scratch_memory_begins_with_a_line_of_the_cache_and_does_not_overlap(runner) -> None:
    sizes = [3, 100, 1 << 20, 7, 1 << 16]
    for _ in range(2):  # with little room, and with enough
        starts = used(runner, *sizes)
        assert all(start % 64 == 0 for start in starts)
        ordered = sorted(zip(starts, sizes, strict=True))
        assert all(a + size <= b for (a, size), (b, _) in pairwise(ordered))


def test_threads_do_not_share_scratch_memory(runner) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(runner.room.address))
    thread.start()
    thread.join()
    assert found != [runner.room.address]


def test_a_fit_does_not_depend_on_what_lay_in_its_memory() -> None:
    rng = np.random.default_rng(0)
    Z, y = rng.gamma(2.0, size=(150, 160)).astype(np.float32), np.repeat(np.arange(3), 50)
    room = FewShotHead(device="host").fit(Z, y)._ops().runner.room
    fits = []
    for byte in (0x00, 0xFF):
        room.array[:] = byte
        fits.append(FewShotHead(device="host").fit(Z, y).decision_function(Z))
    np.testing.assert_array_equal(*fits)
