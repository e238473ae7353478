"""The operations on this machine's CPU: the kernels as compiled by g++, one lane a block, SIMD inside."""

from __future__ import annotations

import ctypes
import math
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import DeviceError
from fieldshot.images import InPlace
from fieldshot.ops import sources
from fieldshot.ops.interface import Classifier
from fieldshot.ops.kernels import KernelOps
from fieldshot.system import cores

__all__ = ["HostOps", "HostRunner", "address_of", "libraries", "library"]

# The matrix of the one-launch fit stays in the second-level cache up to about 128 samples; past that blocks win.
_SHARED_BYTES = 8 * 128 * 129
_ALIGNMENT = 64  # bytes
# Of scratch that a thread keeps: enough for a fit in one launch, and then as much as its calls need, up to the second.
# Memory that is new takes as long to get as a tenth of a fit of a thousand samples.
_ROOM_BYTES, _MOST_ROOM_BYTES = 1 << 19, 1 << 25


class HostOps(KernelOps):
    """`fieldshot.ops.Ops` on the CPU.

    Raises
    ------
    DeviceError
        If there is no build of the kernels that this CPU runs.
    """

    def __init__(self) -> None:
        super().__init__(HostRunner(library(), "host", threads=cores()))


def libraries() -> list[Path]:
    """The builds that this CPU runs, those for wider vectors later."""
    import platform

    machine = platform.machine()
    path = sources.built(f"host-{machine}", "so")
    if not path.is_file():
        raise DeviceError(
            f"the CPU kernels must be built for {machine} (got no {path.name})",
            hint="install g++ and install fieldshot again, or leave the device at auto: NumPy does the same, slower",
        )
    levels = range(3, _load(path).fieldshot_cpu_level() + 1)  # of x86-64
    wide = (sources.built(f"host-{machine}-v{level}", "so") for level in levels)
    return [path, *(wider for wider in wide if wider.is_file())]


@cache
def library() -> ctypes.CDLL:
    """The build for the widest vectors that this CPU has."""
    return _load(libraries()[-1])


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"the CPU kernels must load (got: {error})", hint="install fieldshot again on this machine"
        ) from error


class HostRunner:
    """Runs kernels of a library in this process, on the calling thread.

    Parameters
    ----------
    library : ctypes.CDLL
        With a function ``fieldshot_<kernel>(params, first, last, blocks, shared_bytes)`` for each kernel.
    name : str
    blocks : int
        At most so many blocks a launch.
    warps : int
        Of a block in that library.
    threads : int
        That may call at once and finish sooner by it.
    """

    shared_bytes = _SHARED_BYTES

    def __init__(self, library: ctypes.CDLL, name: str, *, blocks: int = 1, warps: int = 1, threads: int = 1) -> None:
        self.library, self.name, self.blocks, self.warps, self.threads = library, name, blocks, warps, threads
        self.about = f"CPU kernels, {Path(library._name).name.partition('.')[0]}"
        self.room = _Room()
        self._functions: dict[str, tuple[Any, sources.Layout]] = {}

    def slices(self, samples: int, tiles: int) -> int:
        """A slice a block, of 512 samples at least."""
        return min(self.blocks, max(1, samples // 512))

    def call(self) -> HostCall:
        """Start an operation."""
        return HostCall(self)

    def load(self, classifier: Classifier) -> _Held:
        """Keep the arrays, which lie where the kernels read them."""
        return _Held(classifier)

    def function(self, kernel: str) -> tuple[Any, sources.Layout]:
        """Entry point of a kernel and its struct."""
        found = self._functions.get(kernel)
        if found is None:
            entry = getattr(self.library, f"fieldshot_{kernel}")
            entry.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_size_t]
            found = self._functions[kernel] = entry, sources.struct_of(kernel)
        return found


class _Room(threading.local):
    """Memory that a thread's calls use one after the other."""

    def __init__(self) -> None:
        self.grow(_ROOM_BYTES)

    def grow(self, size: int) -> None:
        self.array, self.size = np.empty(size + _ALIGNMENT, np.uint8), size
        self.address = _aligned(self.array)


def address_of(array: NDArray[Any]) -> int:
    """Where an array begins."""
    if array.flags.writeable and array.size:
        # A third of the time of what serves the others. (NumPy's stubs do not say that an array is a buffer.)
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    return int(array.__array_interface__["data"][0])


def _aligned(array: NDArray[Any]) -> int:
    """Where an array's first whole vector begins: vectors that lie across two lines of the cache take twice as long."""
    return -(-address_of(array) // _ALIGNMENT) * _ALIGNMENT


@cache
def _itemsize(dtype: type) -> int:
    return np.dtype(dtype).itemsize


class _Held:
    """The arrays of a classifier, and where they are."""

    def __init__(self, classifier: Classifier) -> None:
        self.arrays = [np.ascontiguousarray(array) for array in classifier[:3]]
        self.addresses = tuple(map(address_of, self.arrays))


class HostCall:
    """`fieldshot.ops.runner.Call` in this process's own memory."""

    def __init__(self, runner: HostRunner) -> None:
        self.runner = runner
        self._room = runner.room
        self._used = 0
        self._held: list[object] = []
        self._outputs: list[NDArray[Any]] = []

    def __enter__(self) -> HostCall:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._held.clear()
        if self._room.size < self._used <= _MOST_ROOM_BYTES:
            self._room.grow(self._used)

    def put(self, array: NDArray[Any] | None) -> int | None:
        """Address of the array itself, if it lies in one piece."""
        if array is None:
            return None
        array = np.ascontiguousarray(array)
        self._held.append(array)
        return address_of(array)

    def put_pixels(self, pixels: InPlace) -> tuple[int, int, int]:
        """Address of the pixels themselves, and the bytes from row to row and from pixel to pixel."""
        self._held.append(pixels)
        return pixels.address, pixels.row_bytes, pixels.pixel_bytes

    def held(self, loaded: _Held) -> tuple[int, ...]:
        """Addresses of what `Runner.load` keeps."""
        return loaded.addresses

    def scratch(self, dtype: type, *shape: int) -> int:
        """Address of memory that is gone after the call."""
        size = math.prod(shape) * _itemsize(dtype)
        start, self._used = self._used, self._used + -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._used <= self._room.size:
            return self._room.address + start
        more = np.empty(size + _ALIGNMENT, np.uint8)
        self._held.append(more)
        return _aligned(more)

    def out(self, dtype: type, *shape: int) -> int:
        """Address of an array that `fetch` gives."""
        array: NDArray[Any] = np.empty(shape, dtype)
        self._outputs.append(array)
        return address_of(array)

    def inout(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array that kernels may change and `fetch` gives."""
        array = array.copy()
        self._outputs.append(array)
        return address_of(array)

    def launch(self, kernel: str, tasks: int, shared: int = 0, **fields: int | float | None) -> None:
        """Run a kernel."""
        entry, struct = self.runner.function(kernel)
        blocks = min(tasks, self.runner.blocks)
        if entry(struct.of(fields), 0, blocks, blocks, shared):
            raise DeviceError(f"kernel {kernel} must run without faults (got: {self._report()})")

    def _report(self) -> str:
        report = self.runner.library.fieldshot_check_report
        report.restype = ctypes.c_char_p
        return str(report().decode())

    def fetch(self) -> list[NDArray[Any]]:
        """Give what `out` and `inout` named, in their order."""
        return self._outputs
