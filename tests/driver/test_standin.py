"""The stand-in for the driver keeps to what PyCUDA and CUDA expect, and shows what a GPU would hide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from driver_build import COMPILER, build_driver, driver_environment, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

KERNELS = """
#include <cstddef>
#include <cstdio>
struct Scale { const float* in; float* out; int n; float by; };
extern "C" int fieldshot_scale(const Scale* p, int first, int last, int blocks, size_t) {
  for (int block = first; block < last; ++block)
    for (int i = block; i < p->n; i += blocks) p->out[i] = p->by * p->in[i];
  return 0;
}
extern "C" int fieldshot_broken(const void*, int, int, int, size_t) { return 1; }
extern "C" const char* fieldshot_check_report() { return "lane 7 wrote where it may not\\n"; }
static size_t regions, bytes;
extern "C" void fieldshot_check_regions_clear() { regions = bytes = 0; }
extern "C" void fieldshot_check_region(const void*, size_t size) { ++regions, bytes += size; }
extern "C" int fieldshot_regions(size_t* const* out, int, int, int, size_t) {
  return (*out)[0] = regions, (*out)[1] = bytes, 0;
}
"""

PREAMBLE = """
import atexit, ctypes, os, struct, sys, threading
import numpy as np
import pycuda.driver as cuda

driver = ctypes.CDLL("libcuda.so.1")
driver.standin_calls.restype = ctypes.c_long
driver.standin_unsupported.restype = ctypes.c_char_p
FATBIN = b"\\x50\\xed\\x55\\xba" + bytes(60)
BLOCK = (256, 1, 1)

def refused(kind, text, function, *arguments):
    try:
        function(*arguments)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError("not refused")
"""

CONTEXT = """
cuda.init()
context = cuda.Device(0).retain_primary_context()
atexit.register(context.detach)
context.push()
atexit.register(cuda.Context.pop)
stream = cuda.Stream()
module = cuda.module_from_buffer(FATBIN)
scale = module.get_function("scale")

def on_device(values):
    values = np.ascontiguousarray(values)
    memory = cuda.mem_alloc(values.nbytes)
    cuda.memcpy_htod(memory, values)
    return memory

def from_device(memory, count, dtype=np.float32):
    values = np.empty(count, dtype)
    cuda.memcpy_dtoh(values, memory)
    return values

def scale_params(source, out, count, by):
    return struct.pack("PPif", int(source), int(out), count, by)
"""

Run = Callable[..., None]


def compile_kernels(out: Path, *options: str) -> Path:
    source = out.with_suffix(".cpp")
    source.write_text(KERNELS)
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", *options, "-o", out, source], check=True)
    return out


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def kernels(folder: Path) -> Path:
    return compile_kernels(folder / "kernels.so")


@pytest.fixture
def run(folder: Path, kernels: Path) -> Run:
    """Run a script in a Python of its own that has the stand-in; it must succeed, and without complaint."""

    def run(script: str, kernels: Path = kernels, stderr: str = "", **settings: object) -> None:
        command = [sys.executable, "-W", "error", "-c", PREAMBLE + script]
        environment = driver_environment(folder, kernels, **settings)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if (done.returncode, done.stderr) != (0, stderr):
            raise AssertionError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")

    return run


def test_device(run: Run) -> None:
    run("""
cuda.init()
device = cuda.Device(0)
assert cuda.Device.count() == 1
assert device.compute_capability() == (8, 7)
assert device.get_attribute(cuda.device_attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN) == 166912
assert device.get_attributes()[cuda.device_attribute.WARP_SIZE] == 32
assert device.total_memory() == 256 << 20
assert cuda.get_driver_version() == 13000
""")


def test_asynchronous_work_runs_only_when_waited_for(run: Run) -> None:
    run(
        CONTEXT
        + """
source, out = cuda.pagelocked_empty(5, np.float32), cuda.pagelocked_zeros(5, np.float32)
source[:] = range(5)
a, b = cuda.mem_alloc(source.nbytes), cuda.mem_alloc(source.nbytes)
cuda.memcpy_htod_async(a, source, stream)
scale._launch_kernel((2,), BLOCK, scale_params(a, b, 5, 3.0), 0, stream)
cuda.memcpy_dtoh_async(out, b, stream)
assert not out.any()
source[0] = 100  # too early: the copy has not run
assert not stream.is_done()
stream.synchronize()
assert out.tolist() == [300, 3, 6, 9, 12] and stream.is_done()
assert driver.standin_calls(b"cuLaunchKernel") == 1 and driver.standin_calls(b"cuStreamSynchronize") == 1

pageable = np.ones(5, np.float32)
cuda.memcpy_htod_async(a, pageable, stream)
pageable[:] = 0  # in time: the driver keeps a copy of pageable memory
assert from_device(a, 5).tolist() == [1] * 5  # the default stream comes after ours
"""
    )


def test_every_way_to_pass_a_struct(run: Run) -> None:
    run(
        CONTEXT
        + """
class Scale(ctypes.Structure):
    _fields_ = [("source", ctypes.c_void_p), ("out", ctypes.c_void_p), ("n", ctypes.c_int), ("by", ctypes.c_float)]

dtype = np.dtype([("source", np.uintp), ("out", np.uintp), ("n", np.int32), ("by", np.float32)])
a, b = on_device(np.arange(3, dtype=np.float32)), cuda.mem_alloc(12)
prepared = module.get_function("scale").prepare("24s")

def launch(by, ways):
    fields = int(a), int(b), 3, by
    ways[by - 1](scale_params(*fields), Scale(*fields), np.array(fields, dtype))

ways = [
    lambda packed, structure, record: scale._launch_kernel((1,), BLOCK, packed, 0, stream),
    lambda packed, structure, record: scale._launch_kernel((1,), BLOCK, structure, 0, stream),
    lambda packed, structure, record: scale._launch_kernel((1,), BLOCK, record, 0, stream),
    lambda packed, structure, record: scale(record[()], block=BLOCK, grid=(1, 1), stream=stream),
    lambda packed, structure, record: prepared.prepared_async_call((1, 1), BLOCK, stream, packed),
    lambda packed, structure, record: prepared.prepared_async_call((1, 1), BLOCK, stream, bytes(structure)),
]
for by in range(1, len(ways) + 1):
    launch(by, ways)
    stream.synchronize()
    assert from_device(b, 3).tolist() == [0, by, 2 * by]
"""
    )


def test_context_serves_any_thread(run: Run) -> None:
    run(
        CONTEXT
        + """
a = on_device(np.ones(4, np.float32))
out, errors = [], []

def work():
    refused(cuda.LogicError, "invalid device context", cuda.memcpy_dtoh, np.empty(4, np.float32), a)
    context.push()
    try:
        b = cuda.mem_alloc(16)
        scale._launch_kernel((1,), BLOCK, scale_params(a, b, 4, 2.0), 0, stream)
        stream.synchronize()
        out.append(from_device(b, 4).tolist())
        del b  # while the context is current here
    except BaseException as error:
        errors.append(error)
    finally:
        cuda.Context.pop()

for thread in [threading.Thread(target=work) for _ in range(4)]:
    thread.start()
    thread.join()
assert not errors and out == [[2] * 4] * 4
"""
    )


def test_exit_is_clean_whichever_thread_retained_the_context(run: Run) -> None:
    run("""
kept = {}

def work():
    cuda.init()
    context = kept["context"] = cuda.Device(0).retain_primary_context()
    atexit.register(context.detach)  # from then on PyCUDA leaves alone what the context holds
    context.push()
    kept.update(stream=cuda.Stream(), memory=cuda.mem_alloc(9), module=cuda.module_from_buffer(FATBIN))
    kept["pinned"] = cuda.pagelocked_empty(3, np.float32)
    cuda.Context.pop()

thread = threading.Thread(target=work)
thread.start()
thread.join()
""")


def test_memory_is_limited_and_begins_as_nan(run: Run) -> None:
    run(
        CONTEXT
        + """
memory = cuda.mem_alloc(600)
assert np.isnan(from_device(memory, 150)).all()
assert cuda.mem_get_info() == (424, 1024)
refused(cuda.MemoryError, "out of memory", cuda.mem_alloc, 600)
memory.free()
assert cuda.mem_get_info() == (1024, 1024)
memory = cuda.mem_alloc(12)
cuda.memset_d32(memory, 7, 3)
assert from_device(memory, 3, np.int32).tolist() == [7] * 3
refused(cuda.LogicError, "invalid argument", from_device, memory, 4)
refused(cuda.LogicError, "invalid argument", cuda.memcpy_htod, int(memory) + 4, np.zeros(3, np.float32))
assert np.isnan(cuda.pagelocked_empty(3, np.float32)).all()
""",
        memory=1024,
    )


def test_registered_memory_is_as_pinned(run: Run) -> None:
    run(
        CONTEXT
        + """
# PyCUDA's own register_host_memory crashes with NumPy 2: it sets the base of an array that has one.
array = np.arange(4, dtype=np.float32)
address = ctypes.c_void_p(array.ctypes.data)
assert driver.cuMemHostRegister_v2(address, ctypes.c_size_t(16), 0) == 0
assert driver.cuMemHostRegister_v2(address, ctypes.c_size_t(16), 0) == 712
a = on_device(np.zeros(4, np.float32))
cuda.memcpy_dtoh_async(array, a, stream)
assert array.any()
stream.synchronize()
assert not array.any()
assert driver.cuMemHostUnregister(address) == 0
assert driver.cuMemHostUnregister(address) == 713
cuda.memset_d32(a, 1, 4)
cuda.memcpy_dtoh_async(array, a, stream)
assert array.any()  # pageable again: the driver has written it when it returns
"""
    )


def test_faults_are_injected_at_the_nth_call(run: Run) -> None:
    run(
        CONTEXT
        + """
for nth in 2, 3:  # PyCUDA collects garbage and asks once more
    driver.standin_fail(b"cuMemAlloc_v2", nth, 2)
cuda.mem_alloc(1)
refused(cuda.MemoryError, "out of memory", cuda.mem_alloc, 1)
cuda.mem_alloc(1)
assert driver.standin_calls(b"cuMemAlloc_v2") == 4
assert driver.standin_unsupported() == b""
refused(cuda.LogicError, "operation not supported", cuda.Context.get_cache_config)
assert driver.standin_unsupported() == b"cuCtxGetCacheConfig\\n"
"""
    )


def test_failed_launch_spoils_the_context(run: Run) -> None:
    run(
        """
cuda.init()
device = cuda.Device(0)
context = device.retain_primary_context()
context.push()
stream = cuda.Stream()
broken = cuda.module_from_buffer(FATBIN).get_function("broken")
broken._launch_kernel((1,), BLOCK, b"1234", 0, stream)
refused(cuda.LaunchError, "unspecified launch failure", stream.synchronize)
refused(cuda.LaunchError, "unspecified launch failure", cuda.mem_alloc, 1)
context.detach()  # it has the last hold on the primary context: what comes next is a new one
context = device.retain_primary_context()
context.push()
cuda.mem_alloc(1)
cuda.Context.pop()
context.detach()
""",
        stderr="lane 7 wrote where it may not\n",
    )


def test_launches_outside_the_limits_are_refused(run: Run) -> None:
    run(
        CONTEXT
        + """
a = on_device(np.ones(4, np.float32))
params = scale_params(a, a, 4, 1.0)
launch = lambda grid=(1,), block=BLOCK, shared=0: scale._launch_kernel(grid, block, params, shared, stream)
launch(shared=48 << 10)
for wrong in dict(block=(128, 1, 1)), dict(block=(16, 16, 1)), dict(grid=(1, 2)), dict(grid=(0,)), dict(shared=49153):
    refused(cuda.LogicError, "invalid argument", lambda: launch(**wrong))
attribute = cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
scale.set_attribute(attribute, 166912)
launch(shared=166912)
refused(cuda.LogicError, "invalid argument", scale.set_attribute, attribute, 166913)
"""
    )


def test_modules(run: Run, tmp_path: Path) -> None:
    run(
        CONTEXT
        + f"""
for image in b"\\x7fELF" + bytes(60), b"// comment\\n.version 8.0\\n.target sm_75\\n":
    cuda.module_from_buffer(image)
refused(cuda.LogicError, "image is invalid", cuda.module_from_buffer, b"something else")
refused(cuda.LogicError, "symbol not found", module.get_function, "none")
refused(cuda.RuntimeError, "file not found", cuda.module_from_file, {str(tmp_path / "none")!r})
with open({str(tmp_path / "image")!r}, "wb") as file:
    file.write(FATBIN)
cuda.module_from_file(file.name).get_function("scale")
"""
    )


def test_older_driver(run: Run) -> None:
    run(
        """
cuda.init()
assert cuda.get_driver_version() == 12020
context = cuda.Device(0).retain_primary_context()
context.push()
refused(cuda.RuntimeError, "no kernel image", cuda.module_from_buffer, FATBIN)
cuda.module_from_buffer(b".version 8.0")
cuda.Context.pop()
context.detach()
""",
        driver=12020,
        no_image=1,
    )


def test_no_device(run: Run) -> None:
    run('refused(cuda.RuntimeError, "no CUDA-capable device", cuda.init)', devices=0)


def test_child_process_has_no_driver(run: Run) -> None:
    run("""
refused(cuda.LogicError, "initialization error", cuda.Device, 0)
cuda.init()
child = os.fork()
if not child:
    refused(cuda.LogicError, "initialization error", cuda.Device, 0)
    refused(cuda.LogicError, "initialization error", cuda.init)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
cuda.Device(0)
""")


def test_streams_and_events(run: Run) -> None:
    run(
        CONTEXT
        + """
other = cuda.Stream(1)  # CU_STREAM_NON_BLOCKING: the default stream does not wait for it
start, end = cuda.Event(), cuda.Event()
a, b = on_device(np.ones(4, np.float32)), on_device(np.zeros(4, np.float32))
start.record(stream)
scale._launch_kernel((1,), BLOCK, scale_params(a, b, 4, 2.0), 0, stream)
end.record(stream)
other.wait_for_event(end)
scale._launch_kernel((1,), BLOCK, scale_params(b, a, 4, 2.0), 0, other)
assert not end.query()
other.synchronize()
assert end.query() and end.time_since(start) >= 0
assert from_device(a, 4).tolist() == [4] * 4

cuda.memset_d32_async(a, 0, 4, other)
assert from_device(a, 4).tolist() == [4] * 4  # read too early
cuda.Context.synchronize()
assert from_device(a, 4).tolist() == [0] * 4
"""
    )


def test_work_after_a_host_function_waits_for_it(run: Run) -> None:
    """Also where another thread waits for the whole device meanwhile, as whoever frees memory does."""
    run(
        CONTEXT
        + """
import ctypes, threading
driver = ctypes.CDLL("libcuda.so.1")
busy, freed, order = threading.Event(), threading.Event(), []

def frees():
    busy.wait(10)
    context.push()
    cuda.mem_alloc(4).free()
    cuda.Context.pop()
    freed.set()

def first(data):
    busy.set()
    freed.wait(10)
    order.append("first")

kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
functions = kind(first), kind(lambda data: order.append("second"))
for function in functions:
    assert driver.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), function, None) == 0
thread = threading.Thread(target=frees)
thread.start()
stream.synchronize()
thread.join()
assert order == ["first", "second"], order
"""
    )


def test_live_memory_is_declared_to_the_checker(run: Run) -> None:
    run(
        CONTEXT
        + """
out, more, freed = cuda.mem_alloc(16), cuda.mem_alloc(5), cuda.mem_alloc(7)
pinned = cuda.pagelocked_empty(3, np.uint8)
freed.free()
module.get_function("regions")._launch_kernel((1,), BLOCK, struct.pack("P", int(out)), 0, stream)
stream.synchronize()
assert from_device(out, 2, np.uintp).tolist() == [3, 16 + 5 + 3]
"""
    )


def test_address_sanitizer_sees_the_end_of_device_memory(run: Run, folder: Path) -> None:
    kernels = compile_kernels(folder / "checked.so", "-fsanitize=address")
    script = """
a, b = on_device(np.ones(3, np.float32)), cuda.mem_alloc(12)
scale._launch_kernel((1,), BLOCK, scale_params(a, b, {count}, 2.0), 0, stream)
stream.synchronize()
refused(cuda.LogicError, "invalid argument", cuda.mem_alloc, 0)  # PyCUDA's exceptions work
"""
    run(CONTEXT + script.format(count=3), kernels=kernels)
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        run(CONTEXT + script.format(count=4), kernels=kernels)
