"""A CUDA device that is missing, old, full, shared, forked or broken: PyCUDA itself, on the stand-in driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import builds
from check_build import build
from driver_build import build_driver, driver_environment, missing, quick_nvcc

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

PREAMBLE = """
import ctypes, logging, os, threading
import numpy as np
from fieldshot import FewShotHead
from fieldshot.errors import DeviceError, DeviceMemoryError

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
rng = np.random.default_rng(0)
y = np.repeat(np.arange(3), 4)
Z = rng.gamma(2.0, size=(3, 40))[y] + rng.normal(size=(12, 40))

def refused(kind, call):
    try:
        call()
    except kind as error:
        print(type(error).__name__, error)
    else:
        raise SystemExit("not refused")

def driver():
    library = ctypes.CDLL("libcuda.so.1")
    library.standin_calls.restype = ctypes.c_long
    return library
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment with the stand-in driver, and an nvcc that needs no time."""
    folder = tmp_path_factory.mktemp("cuda")
    kernels = build([builds.ROOT / "kernels/all.cu"], builds.CHECKED, "race")
    return {
        **driver_environment(build_driver(folder), kernels),
        "PATH": f"{quick_nvcc(folder)}{os.pathsep}{os.environ['PATH']}",
        "FIELDSHOT_CACHE": str(folder / "cache"),
        "FIELDSHOT_DEVICE": "cuda",
    }


def run(program: str, environment: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + program]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, **more})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


UNSHIPPED = """
from fieldshot.ops import choose, sources
sources.built = lambda name, suffix: sources.FOLDER / "none"
print(choose().ops.about)
"""

REFUSED = "refused(DeviceError, lambda: FewShotHead().fit(Z, y))"


def test_no_driver(environment: dict[str, str]) -> None:
    done = run(REFUSED, environment, LD_LIBRARY_PATH="")
    assert "PyCUDA must find a CUDA driver" in done.stdout
    assert "FIELDSHOT_DEVICE=host" in done.stdout


def test_no_driver_is_no_trouble_where_none_was_asked_for(environment: dict[str, str]) -> None:
    program = "from fieldshot.ops import choose; print(choose().ops.name, choose().passed_over)"
    done = run(program, environment, LD_LIBRARY_PATH="", FIELDSHOT_DEVICE="auto")
    assert done.stdout.startswith("host ('cuda: PyCUDA must find a CUDA driver")


def test_no_device(environment: dict[str, str]) -> None:
    done = run(REFUSED, environment, FIELDSHOT_STANDIN_DEVICES="0")
    assert "there must be a CUDA device" in done.stdout


@pytest.mark.parametrize("code", [2, 46])  # no memory for a context; in use by another process alone
def test_a_device_that_gives_no_context(environment: dict[str, str], code: int) -> None:
    program = f"driver().standin_fail(b'cuDevicePrimaryCtxRetain', 1, {code})\n"
    assert "that can be used" in run(program + REFUSED, environment).stdout
    auto = program + "from fieldshot.ops import choose; print(choose().ops.name)"
    assert run(auto, environment, FIELDSHOT_DEVICE="auto").stdout == "host\n"


def test_a_cache_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    program = UNSHIPPED.replace("print(choose()", "refused(DeviceError, lambda: choose()")
    assert "FIELDSHOT_CACHE" in run(program, environment, FIELDSHOT_CACHE=str(tmp_path / "file")).stdout


def test_a_device_that_is_not_there(environment: dict[str, str]) -> None:
    done = run(REFUSED, environment, FIELDSHOT_DEVICE="cuda:7")
    assert "one of the 1 there are (got 7)" in done.stdout


def test_kernels_that_are_not_shipped_are_built_here_once(environment: dict[str, str], tmp_path: Path) -> None:
    first = run(UNSHIPPED, environment, FIELDSHOT_CACHE=str(tmp_path))
    assert "WARNING building the kernels for Stand-in with" in first.stderr
    again = run(UNSHIPPED, environment, FIELDSHOT_CACHE=str(tmp_path))
    assert "building" not in again.stderr
    assert "built here" in again.stdout
    (built,) = tmp_path.glob("kernels.*")
    built.write_bytes(b"damaged")
    assert "building" in run(UNSHIPPED, environment, FIELDSHOT_CACHE=str(tmp_path)).stderr


def test_kernels_that_are_shipped_are_taken(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(bytes.fromhex("50ed55ba") + bytes(60))
    program = UNSHIPPED.replace("sources.FOLDER", f"__import__('pathlib').Path({str(tmp_path)!r})")
    assert "kernels from the package" in run(program, environment, FIELDSHOT_CACHE=str(tmp_path)).stdout


def test_a_driver_that_loads_nothing_and_no_compiler(environment: dict[str, str], tmp_path: Path) -> None:
    hidden = "import fieldshot.device.loading as d; d.shutil.which = lambda *a, **k: None\n" + REFUSED
    done = run(hidden, environment, FIELDSHOT_STANDIN_NO_IMAGE="1", FIELDSHOT_CACHE=str(tmp_path))
    assert "must load the kernels" in done.stdout
    assert "install a newer driver, or the CUDA toolkit" in done.stdout


def test_a_compiler_that_fails(environment: dict[str, str], tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho no such architecture >&2\nexit 3\n")
    nvcc.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    done = run(REFUSED, environment, PATH=path, FIELDSHOT_STANDIN_NO_IMAGE="1", FIELDSHOT_CACHE=str(tmp_path / "cache"))
    assert "exit code 3: no such architecture" in done.stdout


def test_memory_that_runs_out_in_a_fit_leaves_the_old_head_serving(environment: dict[str, str]) -> None:
    run(
        """
head = FewShotHead().fit(Z[:8], y[:8])
before = head.predict_proba(Z)
more = np.repeat(Z, 3000, axis=0)
for _ in range(2):  # PyCUDA asks again after a collection of garbage, fieldshot after emptying its pool
    for nth in range(1, 5):
        driver().standin_fail(b"cuMemAlloc_v2", nth, 2)
    refused(DeviceMemoryError, lambda: head.fit(more, np.repeat(y, 3000)))
    assert head.classes_.tolist() == [0, 1]
    assert (head.predict_proba(Z) == before).all()
head.fit(Z, y)
assert head.classes_.tolist() == [0, 1, 2]
assert (head.predict(Z) == y).all()
""",
        environment,
    )


def test_threads_share_a_head(environment: dict[str, str]) -> None:
    run(
        """
import sys
sys.setswitchinterval(1e-6)
head = FewShotHead().fit(Z, y)
expected, wrong = head.predict_proba(Z), []

def ask():
    for _ in range(30):
        if not np.array_equal(head.predict_proba(Z), expected):
            wrong.append("another answer")

def learn():
    for _ in range(10):
        head.fit(Z, y)

def come_and_go():
    for _ in range(10):
        FewShotHead().fit(Z, y).predict(Z)

threads = [threading.Thread(target=job) for job in (ask, learn, come_and_go, ask, come_and_go)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not wrong
""",
        environment,
    )


def test_a_fork_is_told_so(environment: dict[str, str]) -> None:
    run(
        """
head = FewShotHead().fit(Z, y)
child = os.fork()
if child == 0:
    code = 1
    try:
        head.predict(Z)
    except DeviceError as error:
        host = FewShotHead(device="host").fit(Z, y)
        code = 0 if "fork" in str(error) and (host.predict(Z) == y).all() else 2
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
child = os.fork()
if child == 0:
    raise SystemExit(7)  # which runs what is left to do at the end
assert os.waitpid(child, 0)[1] >> 8 == 7
assert (head.predict(Z) == y).all()
""",
        environment,
    )


def test_a_kernel_that_fails(environment: dict[str, str]) -> None:
    done = run(
        """
head = FewShotHead().fit(Z, y)
driver().standin_fail(b"cuStreamSynchronize", 1, 700)
refused(DeviceError, lambda: head.predict(Z))
""",
        environment,
    )
    assert "only a new process can use it again" in done.stdout


def test_an_operation_waits_once(environment: dict[str, str]) -> None:
    done = run(
        """
head = FewShotHead().fit(Z, y)
head.predict(Z)
count = lambda: driver().standin_calls(b"cuStreamSynchronize")
start = count(); head.predict(Z); predicted = count()
head.fit(Z, y); fitted = count()
print(predicted - start, fitted - predicted)
""",
        environment,
    )
    # A fit is two operations: what is learned is brought back before the head is solved.
    assert done.stdout.split() == ["1", "2"]


def test_nothing_is_said_at_the_end(environment: dict[str, str]) -> None:
    done = run(
        """
logging.disable()
def work():
    for _ in range(3):
        FewShotHead().fit(Z, y).adapt(Z).predict(Z)
thread = threading.Thread(target=work)
thread.start(); thread.join()
work()
""",
        environment,
    )
    assert done.stderr == ""


def test_heads_that_are_gone_give_their_memory_back(environment: dict[str, str]) -> None:
    run(
        """
head = None
for _ in range(60):
    head = FewShotHead().fit(Z, y)
    head.predict(Z)
allocated, freed = (driver().standin_calls(name) for name in (b"cuMemAlloc_v2", b"cuMemFree_v2"))
assert allocated - freed < 12, (allocated, freed)
""",
        environment,
    )


def test_what_a_process_holds_on_a_device(environment: dict[str, str]) -> None:
    run(
        """
from fieldshot.device import find_device, held_bytes
assert held_bytes() == 0
device = find_device(0)
assert device.held_bytes == 0
with device.current():
    memory = device.allocate(1000)
assert held_bytes() == device.held_bytes == 1000
with device.current():
    memory.free()
assert held_bytes() == 0
head = FewShotHead().fit(Z, y)
assert held_bytes() > 4 * Z.size
""",
        environment,
    )


def test_how_long_a_device_works(environment: dict[str, str]) -> None:
    """The stand-in works when it is waited for, so that its time is nearly all of a call's."""
    run(
        """
from time import perf_counter_ns
from fieldshot.device import count_work, worked_ns

def passed(call):
    worked, start = worked_ns(), perf_counter_ns()
    call()
    return worked_ns() - worked, perf_counter_ns() - start

head = FewShotHead()
assert passed(lambda: head.fit(Z, y))[0] == 0
assert driver().standin_calls(b"cuEventRecord") == 0
count_work()
for call in (lambda: head.fit(Z, y), *3 * [lambda: head.predict(Z[:1])]):  # as it is, captured, as a graph
    worked, all_of_it = passed(call)
    assert 0.1 * all_of_it < worked < all_of_it, (worked, all_of_it)
driver().standin_fail(b"cuLaunchKernel", 1, 719)
refused(DeviceError, lambda: FewShotHead().fit(Z, y))
""",
        environment,
    )


PICTURES = """
from fieldshot.images import Preprocessing
from fieldshot.ops import ReferenceOps, find_ops
from fieldshot.ops.preprocessing import launch_preprocess

spec = Preprocessing(size=(16, 24), crop=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
frames = [rng.integers(0, 256, shape).astype(np.uint8) for shape in ((30, 50, 3), (90, 20, 3), (5, 7, 3), (40, 40, 4))]
frames = [frame[..., :3] for frame in frames]
expected = np.stack([spec.apply(frame) for frame in frames])
ops = find_ops()
count = lambda name: driver().standin_calls(name)
"""


def test_pictures_are_sent_at_once_and_waited_for_once(environment: dict[str, str]) -> None:
    done = run(
        PICTURES
        + """
assert np.array_equal(ops.preprocess(frames, spec), expected)
names = (b"cuMemcpyHtoDAsync_v2", b"cuLaunchKernel", b"cuStreamSynchronize")
before = [count(name) for name in names]
ops.preprocess(frames, spec)
print([count(name) - start for name, start in zip(names, before)])
""",
        environment,
    )
    assert done.stdout == "[1, 1, 1]\n"


def test_what_the_network_sees_stays_on_the_device(environment: dict[str, str]) -> None:
    run(
        PICTURES
        + """
N, D = len(frames), expected[0].size
waits = count(b"cuStreamSynchronize")
with ops.runner.call() as call:
    inputs = call.scratch(np.float32, *expected.shape)
    launch_preprocess(call, frames, spec, inputs)
    call.launch("transform", 1, Z=inputs, U=call.out(np.float32, N, D), N=N, D=D)  # for a network
    seen = np.zeros_like(expected)
    ops.runner.device.cuda.memcpy_dtoh_async(seen, inputs, call.space.stream)
    assert count(b"cuStreamSynchronize") == waits
    (U,) = call.fetch()
assert np.array_equal(seen, expected)
wanted, _ = ReferenceOps().absorb(expected.reshape(N, D), np.array([0, N], np.int32))
np.testing.assert_allclose(U, wanted, atol=1e-6)
""",
        environment,
    )


def test_frames_too_large_for_pinned_memory(environment: dict[str, str]) -> None:
    run(
        PICTURES
        + """
import fieldshot.device.memory
fieldshot.device.memory._LARGE_BYTES = 2000
assert np.array_equal(ops.preprocess(frames, spec), expected)
frames[0] = frames[0][:, ::-1]
assert np.array_equal(ops.preprocess(frames, spec)[0], spec.apply(frames[0]))
""",
        environment,
    )


def test_threads_preprocess_at_once(environment: dict[str, str]) -> None:
    run(
        PICTURES
        + """
wrong = []
def work(frame, inputs):
    for _ in range(10):
        if not np.array_equal(ops.preprocess([frame], spec)[0], inputs):
            wrong.append("another input")
threads = [threading.Thread(target=work, args=both) for both in zip(frames, expected)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not wrong
""",
        environment,
    )
