"""The check machine catches each planted fault of tests/machine/faults.cu, and lets its sound twin pass."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import check_build
from check_build import Kind, build, explain, memory_environment

FAULTS = Path(__file__).resolve().parents[1] / "machine" / "faults.cu"
LANES = 256

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the check machine")


class Params(ctypes.Structure):
    _fields_ = (
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("N", ctypes.c_int),
        ("faulty", ctypes.c_int),
    )


class Machine:
    """Runs kernels of the race build on arrays whose ends it declares."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self.lib = ctypes.CDLL(str(library))
        self.lib.fieldshot_check_report.restype = ctypes.c_char_p

    def __call__(
        self,
        kernel: str,
        faulty: bool,
        *,
        N: int = LANES,
        seed: int = 0,
        blocks: int = 1,
        last: int | None = None,
        shared: int = 0,
        input: np.ndarray | None = None,
        output: int = LANES,
        regions: bool = True,
    ) -> tuple[np.ndarray, str]:
        if input is None:
            input = np.random.default_rng(0).standard_normal(LANES).astype(np.float32)
        # Room behind the output, which no region covers.
        room = np.zeros(output + LANES, np.float32)
        self.lib.fieldshot_check_regions_clear()
        if regions:
            self.lib.fieldshot_check_region(ctypes.c_void_p(input.ctypes.data), ctypes.c_size_t(input.nbytes))
            self.lib.fieldshot_check_region(ctypes.c_void_p(room.ctypes.data), ctypes.c_size_t(4 * output))
        self.lib.fieldshot_check_seed(ctypes.c_ulonglong(seed))
        params = Params(input.ctypes.data, room.ctypes.data, N, faulty)
        launch = getattr(self.lib, f"fieldshot_{kernel}")
        faults = launch(ctypes.byref(params), 0, blocks if last is None else last, blocks, ctypes.c_size_t(shared))
        report = explain(self.lib.fieldshot_check_report().decode(), self.library)
        assert (faults > 0) == bool(report)
        assert not room[output:].any()
        return room[:output], report

    def catches(self, kernel: str, *words: str, seeds: int = 3, **how: object) -> str:
        """The fault is found under every seed, and its twin passes under every seed with one and the same result."""
        results = set()
        for seed in range(seeds):
            _, report = self(kernel, True, seed=seed, **how)
            for word in (*words, kernel):
                assert word in report, report
            result, sound = self(kernel, False, seed=seed, **how)
            assert sound == ""
            results.add(result.tobytes())
        assert len(results) == 1
        return report


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("check")


@pytest.fixture(scope="module")
def machine(built: Path) -> Machine:
    return Machine(build([FAULTS], built, "race"))


def test_removed_barrier(machine: Machine) -> None:
    machine.catches("removed_barrier", "race in", "with no barrier between, at shared array", "faults.cu:")
    panels = np.ones(2 * LANES, np.float32)
    machine.catches("removed_second_barrier", "race in", "at shared memory + 0x", shared=1024, N=512, input=panels)


def test_a_shuffle_is_no_barrier(machine: Machine) -> None:
    machine.catches("shuffle_for_barrier", "race in", "with no barrier between")


def test_atomic_updates_beside_plain_reads(machine: Machine) -> None:
    report = machine.catches("atomic_beside_plain", "race in", "with no barrier between")
    assert "reads what lane" in report or "updates atomically what lane" in report


def test_memory_behind_an_array(machine: Machine) -> None:
    machine.catches("global_off_by_one", "out of bounds in", "writes 4 bytes at region 1 + 0x400 (of 0x400 bytes)")
    machine.catches("global_read_off_by_one", "out of bounds in", "reads 4 bytes at region 0 + 0x400 (of 0x400 bytes)")


def test_without_regions_all_memory_may_be_touched(machine: Machine) -> None:
    _, report = machine("global_read_off_by_one", True, N=LANES - 1, regions=False)
    assert report == ""


def test_memory_behind_shared_memory(machine: Machine) -> None:
    for N in (LANES, 1, 301):  # 301: no multiple of what shared memory is aligned to
        words = ("out of bounds in", f"shared memory + {4 * N:#x} (of {4 * N:#x} bytes)")
        numbers = np.ones(N, np.float32)
        machine.catches("shared_off_by_one", *words, N=N, shared=4 * N, output=N, input=numbers)
    machine.catches("static_shared_off_by_one", "out of bounds in", "shared array", "+ 0x400 (of 0x400 bytes)")


def test_stack_of_another_lane(machine: Machine) -> None:
    machine.catches("other_stack", "out of bounds in", "the stack of lane")


def test_result_that_depends_on_the_order_of_lanes(machine: Machine) -> None:
    results: dict[bool, set[bytes]] = {True: set(), False: set()}
    for faulty, found in results.items():
        for seed in range(8):
            result, report = machine("order_of_lanes", faulty, seed=seed)
            assert report == ""
            found.add(result.tobytes())
    assert len(results[False]) == 1
    assert len(results[True]) > 1


def test_wrong_mask(machine: Machine) -> None:
    machine.catches("wrong_mask", "shuffle with a wrong mask in", "mask 0x0000ffff")
    machine.catches("missing_lanes", "shuffle with a wrong mask in", "have returned", "mask 0xffffffff")
    machine.catches("half_warp", "shuffle with a wrong mask in", "mask 0x0000ffff")


def test_divergent_barrier(machine: Machine) -> None:
    report = machine.catches("returned_before_barrier", "divergent barrier in")
    assert "block 0: lanes 100-255 have returned; lanes 0-99 wait at the barrier " in report
    report = machine.catches("barrier_in_branch", "divergent barrier in")
    assert report.count("wait at the barrier") == 2
    report = machine.catches("barrier_beside_shuffle", "divergent barrier in", "wait at the barrier")


def test_blocks_of_one_launch_touch_one_word(machine: Machine) -> None:
    machine.catches("two_blocks_write", "race in", "of block", "wrote, in the same launch, at region 1 + 0x0", blocks=5)
    machine.catches("block_reads_block", "race in", "of block", "in the same launch", blocks=5)
    words = ("race in", "of block", "in the same launch")
    machine.catches("block_writes_what_blocks_read", *words, blocks=3, seeds=12)


def test_blocks_of_two_launches_may_touch_one_word(machine: Machine) -> None:
    for _ in range(2):
        _, report = machine("two_blocks_write", True, blocks=5, last=1)
        assert report == ""


def test_uninitialised_shared_memory_is_nan(machine: Machine) -> None:
    for seed in range(5):  # whichever block comes first, its numbers are gone when the next one starts
        faulty, report = machine("uninitialised_shared", True, seed=seed, blocks=3, shared=1024, output=3 * LANES)
        assert report == ""
        assert np.isnan(faulty[LANES:]).all()
        assert not np.isnan(faulty[:LANES]).any()
        sound, report = machine("uninitialised_shared", False, seed=seed, blocks=3, shared=1024, output=3 * LANES)
        assert report == ""
        assert not np.isnan(sound).any()


def test_bytes_of_a_word(machine: Machine) -> None:
    machine.catches("bytes", "race in", "wrote")


def test_copied_struct(machine: Machine) -> None:
    machine.catches("copied_struct", "race in", "with no barrier between")


def test_one_line_of_code_is_one_fault(machine: Machine) -> None:
    _, report = machine("removed_barrier", True)
    assert report.count("\n") <= 2  # lanes that wrote late, lanes that read early


def test_one_seed_is_one_order(machine: Machine) -> None:
    first, again = (machine("order_of_lanes", True, seed=5)[0].tobytes() for _ in range(2))
    assert first == again


def test_more_shared_memory_than_there_is(machine: Machine) -> None:
    assert machine("removed_barrier", False, shared=227 * 1024)[1] == ""
    assert "bytes of shared memory" in machine("removed_barrier", False, shared=227 * 1024 + 1)[1]


def test_sound_patterns_give_no_alarm(machine: Machine) -> None:
    blocks, N = 4, 5 * LANES
    data = np.random.default_rng(1).standard_normal((blocks, N)).astype(np.float32)
    panels = data.astype(np.float64).reshape(blocks, -1, LANES)
    sums = sum(np.roll(panels, -k, axis=2) for k in range(4)).sum(axis=1) * np.tile([1, 2, 3, 4], LANES // 4)
    expected = sums.sum(axis=1) + sums.max(axis=1) + (sums**2).sum(axis=1)
    results = set()
    for seed in range(10):
        result, report = machine(
            "double_buffer", False, seed=seed, input=data, N=N, blocks=blocks, output=blocks, shared=2 * 4 * LANES
        )
        assert report == ""
        np.testing.assert_allclose(result, expected, rtol=1e-6)
        results.add(result.tobytes())
    assert len(results) == 1


def test_threads_take_turns(machine: Machine) -> None:
    machine.lib.fieldshot_check_regions_clear()
    input, outputs = np.ones(LANES, np.float32), np.zeros((8, LANES), np.float32)

    def launch(output: np.ndarray) -> int:
        params = Params(input.ctypes.data, output.ctypes.data, LANES, False)
        return machine.lib.fieldshot_shuffles(ctypes.byref(params), 0, 1, 1, ctypes.c_size_t(0))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(launch, outputs)) == [0] * 8
    assert (outputs == 1).all()


@pytest.mark.parametrize(
    ("kernel", "N", "seconds"),
    [
        ("barriers", 300, 0.3),
        ("shuffles", 300, 0.3),
        ("accesses", 2000, 0.3),  # a million
    ],
)
def test_speed(machine: Machine, kernel: str, N: int, seconds: float) -> None:
    took = []
    for _ in range(5):  # the best one: other processes are not the machine's fault
        began = time.perf_counter()
        _, report = machine(kernel, False, N=N, shared=1024)
        took.append(time.perf_counter() - began)
        assert report == ""
    assert min(took) < seconds


# A child process that loads the memory build: its arrays end where malloc's do. One launch for each digit of `faulty`.
CHILD = """
import ctypes, sys
library, kernel, faulty, seed, N, shared = sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
libc, lib = ctypes.CDLL(None), ctypes.CDLL(library)
libc.malloc.restype = ctypes.c_void_p
lib.fieldshot_check_report.restype = ctypes.c_char_p
class Params(ctypes.Structure):
    _fields_ = [("input", ctypes.c_void_p), ("output", ctypes.c_void_p), ("N", ctypes.c_int), ("faulty", ctypes.c_int)]
arrays = [libc.malloc(ctypes.c_size_t(4 * N)) for _ in range(2)]
for array in arrays:
    (ctypes.c_float * N).from_address(array)[:] = [i / 2 for i in range(N)]
lib.fieldshot_check_seed(ctypes.c_ulonglong(seed))
for digit in faulty:
    params = Params(*arrays, N, int(digit))
    faults = getattr(lib, "fieldshot_" + kernel)(ctypes.byref(params), 0, 1, 1, ctypes.c_size_t(shared))
    print(faults, lib.fieldshot_check_report().decode().strip())
"""


@pytest.fixture(scope="module")
def memory(built: Path) -> Path:
    return build([FAULTS], built, "memory")


def child(library: Path, kernel: str, faulty: str, *, seed: int = 0, shared: int = 0) -> tuple[int, str]:
    command = [sys.executable, "-c", CHILD, *map(str, (library, kernel, faulty, seed, LANES, shared))]
    done = subprocess.run(command, env=memory_environment(), capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kernel", "words", "shared"),
    [
        ("global_off_by_one", "AddressSanitizer: heap-buffer-overflow", 0),
        ("global_read_off_by_one", "AddressSanitizer: heap-buffer-overflow", 0),
        ("shared_off_by_one", "AddressSanitizer: use-after-poison", 4 * LANES),
        ("static_shared_off_by_one", "AddressSanitizer: use-after-poison", 0),
        ("signed_overflow", "runtime error: signed integer overflow", 0),
        ("misaligned", "runtime error: load of misaligned address", 0),
    ],
)
def test_memory_build(memory: Path, kernel: str, words: str, shared: int) -> None:
    code, output = child(memory, kernel, "1", shared=shared)
    assert code != 0
    assert words in output
    assert "faults.cu:" in output
    for seed in range(2):
        assert child(memory, kernel, "00", seed=seed, shared=shared) == (0, "0 \n0 \n")


def test_memory_build_of_sound_patterns(memory: Path) -> None:
    for seed in range(3):
        assert child(memory, "double_buffer", "00", seed=seed, shared=2 * 4 * LANES) == (0, "0 \n0 \n")


@pytest.mark.parametrize(
    ("kernel", "words"),
    [("barrier_in_branch", "divergent barrier"), ("missing_lanes", "shuffle with a wrong mask")],
)
def test_memory_build_goes_on_after_a_launch_given_up(memory: Path, kernel: str, words: str) -> None:
    code, output = child(memory, kernel, "1010")
    assert code == 0
    assert [words in line for line in output.splitlines()] == [True, False, True, False]


@pytest.mark.parametrize("kind", ["race", "memory"])
def test_a_library_is_built_once(built: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build([FAULTS], built, kind)
    monkeypatch.setattr(check_build, "ThreadPoolExecutor", None)
    assert build([FAULTS], built, kind) == first
