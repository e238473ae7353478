"""Clocks: kernels alone by events, whole calls by the wall clock, and what the device could do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fieldshot.device import Device
from fieldshot.ops.cuda import CudaCall

SECONDS = 2.5  # of each side, at most
STALL_S = 0.002  # longer than it takes to launch whatever is timed


class TimedCall(CudaCall):
    """Takes the time from the first kernel to the last between events, in a stream that stands still till all wait.

    The stream is held up by filling memory: without it the time would be that of Python's launches.
    """

    def __enter__(self) -> CudaCall:
        self._started = False
        return super().__enter__()

    def launch(self, kernel: str, tasks: int, shared: int = 0, **fields: int | float | None) -> None:
        timer = self.runner.timer
        if not self._started:
            timer.stall(self.space.stream)
            self.space.flush()
            timer.start.record(self.space.stream)
            self._started = True
        timer.launches += 1
        super().launch(kernel, tasks, shared, **fields)

    def fetch(self) -> list[np.ndarray]:
        timer = self.runner.timer
        timer.end.record(self.space.stream)
        timer.late += timer.start.query()
        arrays = super().fetch()
        timer.taken_ms += timer.start.time_till(timer.end)
        return arrays


class Timer:
    """Events of a device, what it copies in a second, and what the calls of one run added up."""

    def __init__(self, device: Device) -> None:
        self.device, cuda = device, device.cuda
        self._allocations: list[Any] = []
        self.late = 0  # calls whose stream ran before all was launched: their times are too long
        size = min(1 << 28, device.memory_bytes // 16)
        with device.current():
            self.start, self.end, self.stream = cuda.Event(), cuda.Event(), cuda.Stream()
            pinned = cuda.pagelocked_empty(size, np.uint8)
            into, of = self.allocate(size), self.allocate(size)
            self.buffer = into
            self.copy_rate = 2 * size / self._seconds(lambda: cuda.memcpy_dtod_async(into, of, size, self.stream))
            self.link_rate = size / self._seconds(lambda: cuda.memcpy_htod_async(into, pinned, self.stream))
        self.size = size
        # As many lanes as each multiprocessor has, a multiplication and an addition each, at the clock it may reach.
        lanes = 64 if device.capability[0] == 7 or device.capability == (8, 0) else 128
        clock = cuda.Device(0).get_attribute(cuda.device_attribute.CLOCK_RATE) * 1e3
        self.float_rate = 2.0 * lanes * device.multiprocessors * clock
        self.reset()

    def reset(self) -> None:
        self.taken_ms, self.launches = 0.0, 0

    def allocate(self, size: int) -> int:
        """Memory until `close`; the context must be current."""
        self._allocations.append(self.device.allocate(size))
        return int(self._allocations[-1])

    def close(self) -> None:
        with self.device.current():
            for allocation in self._allocations:
                allocation.free()

    def stall(self, stream: Any) -> None:
        """Keep a stream busy for a while."""
        for _ in range(int(STALL_S * self.copy_rate / self.size) + 1):
            self.device.cuda.memset_d8_async(self.buffer, 1, self.size, stream)

    def _seconds(self, copy: Callable[[], object]) -> float:
        times = []
        for _ in range(12):
            self.start.record(self.stream)
            copy()
            self.end.record(self.stream)
            self.end.synchronize()
            times.append(self.start.time_till(self.end) / 1e3)
        return float(np.median(times[2:]))


class Floor(NamedTuple):
    """Least bytes read and written on the device, least bytes over the link, least float operations."""

    bytes: float
    link: float
    operations: float


class Case(NamedTuple):
    """Work to time: sides by name, and what it takes at least."""

    name: str
    sides: dict[str, Callable[[], object]]
    floor: Floor


def in_turn(
    sides: dict[str, Callable[[], object]], runs: int, dropped: Callable[[str, Exception], None]
) -> dict[str, list[float]]:
    """Milliseconds of each side; they take turns, so that a slow moment of the machine hits them all.

    A side that returns a float has timed itself. Each stops after so many runs, or so many seconds and three runs;
    one that fails is dropped.
    """
    times: dict[str, list[float]] = {}
    for name, side in sides.items():
        start = time.perf_counter()
        try:
            for _ in range(max(3, runs // 10)):
                side()
                if time.perf_counter() - start > SECONDS / 2:
                    break
            times[name] = []
        except Exception as error:
            dropped(name, error)
    spent = dict.fromkeys(times, 0.0)
    while going := [
        name for name in times if len(times[name]) < runs and (spent[name] < SECONDS or len(times[name]) < 3)
    ]:
        for name in going:
            start = time.perf_counter()
            own = sides[name]()
            taken = time.perf_counter() - start
            times[name].append(own if isinstance(own, float) else 1e3 * taken)
            spent[name] += taken
    return times


def timed(case: Case, timer: Timer, results: Any, runs: int) -> dict[str, Any]:
    """Time a case, show it, and give its figures."""
    floor = case.floor

    def dropped(name: str, error: Exception) -> None:
        what = f"latency of {case.name}, {name}"
        if name.startswith("fieldshot"):
            results.fail(what, repr(error))
        else:
            results.skip(what, repr(error)[:300])

    timer.late = 0
    times = in_turn(case.sides, runs, dropped)
    late, device_ms = timer.late, 1e3 * max(floor.bytes / timer.copy_rate, floor.operations / timer.float_rate)
    link_ms = 1e3 * floor.link / timer.link_rate
    print(
        f"\n{case.name}. Floor: {floor.bytes / 1e6:.4g} MB, {floor.operations / 1e6:.4g} MFLOP on the device: "
        f"{device_ms:.4f} ms; {floor.link / 1e6:.4g} MB over the link: {link_ms:.4f} ms. Launches of a run: "
        f"{timer.launches}" + (f"; the stream did not wait in {late} calls" if late else "") + "\n"
    )
    rows = [
        {"side": name, "median_ms": float(np.median(ms)), "p95_ms": float(np.percentile(ms, 95)), "runs": len(ms)}
        for name, ms in times.items()
    ]
    results.table(
        ["side", "median ms", "p95 ms", "runs"],
        [[row["side"], f"{row['median_ms']:.4f}", f"{row['p95_ms']:.4f}", row["runs"]] for row in rows],
    )
    return {
        "case": case.name,
        "floor": {**floor._asdict(), "device_ms": device_ms, "link_ms": link_ms},
        "launches": timer.launches,
        "late": late,
        "sides": rows,
    }
