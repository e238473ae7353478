"""A CUDA device: its primary context, memory and kernels, through PyCUDA.

The primary context is the one that TensorRT and torch use too. It is pushed and popped around each use, so any thread
may call; it is never left current, and `pycuda.autoinit` is not used.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.errors import DeviceError, DeviceMemoryError, MissingDependencyError

__all__ = ["LANES", "Device", "Workspace"]

LANES = 256  # of a block, in every kernel (kernels/simt.cuh)

_log = logging.getLogger("fieldshot")

_ALIGNMENT = 256
_BLOCK_BYTES = 1 << 20
_LARGE_BYTES = 1 << 23  # copied straight from and to the caller's array, without a pinned one in between
_KEPT_BYTES = 1 << 28  # of memory that a workspace holds on to from one use to the next


class Device:
    """A CUDA device in use by this process. Make one a device and process, and keep it.

    Parameters
    ----------
    index : int
        As the driver counts.

    Attributes
    ----------
    name : str
    capability : (int, int)
        Compute capability.
    driver : (int, int)
        The CUDA version that the driver supports.
    multiprocessors, shared_bytes, memory_bytes : int
        Shared memory is what one block may have.

    Raises
    ------
    MissingDependencyError
        Without PyCUDA.
    DeviceError
        Without a driver or such a device.
    """

    def __init__(self, index: int) -> None:
        self.cuda = cuda = _driver()
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise DeviceError(
                f"there must be a CUDA device (got: {error})", hint="run nvidia-smi, or use FIELDSHOT_DEVICE=host"
            ) from error
        if index >= count:
            raise DeviceError(
                f"CUDA device must be one of the {count} there are (got {index})", hint="they count from 0"
            )
        device = cuda.Device(index)
        attribute = cuda.device_attribute
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        version = cuda.get_driver_version()
        self.driver = version // 1000, version % 1000 // 10
        self.multiprocessors: int = device.get_attribute(attribute.MULTIPROCESSOR_COUNT)
        self.shared_bytes: int = device.get_attribute(attribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
        self.memory_bytes: int = device.total_memory()
        self._pid = os.getpid()
        self._context = device.retain_primary_context()
        # Left to its destructor PyCUDA would take the context for one of its own making.
        atexit.register(self._context.detach)
        self._idle: deque[Workspace] = deque()
        self._unused: deque[Any] = deque()  # allocations whose owners are gone
        self._lock = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """The device's context is this thread's, inside.

        Raises
        ------
        DeviceError
            In a process that was forked after the device was taken into use; for what the driver refuses.
        DeviceMemoryError
            When the device's memory runs out.
        """
        if os.getpid() != self._pid:
            raise DeviceError(
                "CUDA must be used in the process that started it (got a fork of it)",
                hint="start processes with the 'spawn' method, or use FIELDSHOT_DEVICE=host in them",
            )
        cuda = self.cuda
        try:
            self._context.push()
        except cuda.Error as error:
            raise self._refused(error) from error
        try:
            yield
        except cuda.MemoryError as error:
            raise DeviceMemoryError(
                f"{self.name} must have memory for this (got: {error})",
                hint="close other programs on it, learn fewer samples at once, or use FIELDSHOT_DEVICE=host",
            ) from error
        except cuda.Error as error:
            raise self._refused(error) from error
        finally:
            cuda.Context.pop()

    def _refused(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"{self.name} must do what it is asked (got: {error})",
            hint="after a failed kernel only a new process can use it again; please report this with its log",
        )

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A stream and memory for one operation, and the context current; other threads get others."""
        with self.current():
            while self._unused:
                self._unused.pop().free()
            try:
                space = self._idle.pop()
            except IndexError:
                space = Workspace(self)
            try:
                yield space
            except BaseException:
                space.close()
                raise
            space.reset()
            self._idle.append(space)

    def allocate(self, size: int) -> Any:
        """Memory of `size` bytes; idle workspaces give theirs up before there is none. Context must be current."""
        try:
            return self.cuda.mem_alloc(size)
        except self.cuda.MemoryError:
            while self._idle:
                self._idle.pop().close()
            return self.cuda.mem_alloc(size)

    def discard(self, allocation: Any) -> None:
        """Free memory at the next operation: where its owner dies, the context may not be current."""
        self._unused.append(allocation)

    def functions(self, image: Path, source: Path, names: Sequence[str], cache: str) -> tuple[dict[str, Any], str]:
        """Load kernels, allowed all the shared memory there is, and say where they came from.

        Parameters
        ----------
        image : Path
            Fat binary; need not exist.
        source : Path
            Compiled by this machine's nvcc where the driver loads no image.
        names : sequence of str
        cache : str
            Name of the file to keep what nvcc made.

        Raises
        ------
        DeviceError
            If neither goes.
        """
        with self.current():
            module, origin = self._module(image, source, cache)
            functions = {name: module.get_function(name) for name in names}
            attribute = self.cuda.function_attribute
            for function in functions.values():
                fixed = function.get_attribute(attribute.SHARED_SIZE_BYTES)
                function.set_attribute(attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, self.shared_bytes - fixed)
            return functions, origin

    def _module(self, image: Path, source: Path, cache: str) -> tuple[Any, str]:
        reason = f"no {image.name}"
        if image.is_file():
            try:
                return self.cuda.module_from_buffer(image.read_bytes()), "from the package"
            except self.cuda.Error as error:
                reason = str(error)
        kept = _cache_folder() / f"{cache}.sm_{self.capability[0]}{self.capability[1]}.cubin"
        if not kept.is_file():
            self._compile(source, kept, reason)
        return self.cuda.module_from_buffer(kept.read_bytes()), f"built here, {kept}"

    def _compile(self, source: Path, target: Path, reason: str) -> None:
        driver = ".".join(map(str, self.driver))
        nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
        if nvcc is None:
            raise DeviceError(
                f"the driver (CUDA {driver}) must load the kernels (got: {reason}), and there is no nvcc to build them",
                hint=f"install a newer driver, or the CUDA toolkit {driver} so that nvcc builds them here",
            )
        _log.warning(
            "building the kernels for %s with %s, once; this takes about a minute: %s", self.name, nvcc, reason
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            built = Path(folder, "kernels.cubin")
            architecture = f"-arch=sm_{self.capability[0]}{self.capability[1]}"
            command = [nvcc, "-std=c++17", "-O3", "-cubin", architecture, "-o", str(built), str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise DeviceError(
                    f"nvcc must build the kernels (got exit code {done.returncode}: {done.stderr.strip()[-2000:]})",
                    hint=f"install the CUDA toolkit {driver}, or use FIELDSHOT_DEVICE=host",
                )
            os.replace(built, target)


class Workspace:
    """A stream, and memory that comes in pieces and goes all at once.

    Parameters
    ----------
    device : Device
        Its context must be current, here and in all methods.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.stream = device.cuda.Stream()
        self._inputs = _Arena(device, self.stream, outgoing=True)
        self._outputs = _Arena(device, self.stream)
        self._scratch = _Arena(device, None)

    def put(self, array: NDArray[Any]) -> int:
        """Address of a copy of an array of one piece; it is there for what `flush` precedes."""
        return self._inputs.put(array)

    def flush(self) -> None:
        """Send off what was put."""
        self._inputs.flush()

    def take(self, size: int) -> int:
        """Address of `size` bytes of memory."""
        return self._scratch.take(size)

    def result(self, size: int) -> int:
        """Address of `size` bytes that `fetch` brings back."""
        return self._outputs.take(size)

    def changed(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array that `fetch` brings back."""
        address = self._outputs.put(array)
        if array.nbytes <= _LARGE_BYTES:
            self._outputs.send(address, array.nbytes)
        return address

    def fetch(self, results: Sequence[tuple[int, NDArray[Any]]]) -> None:
        """Wait, and fill arrays with what is at these addresses: the only synchronisation."""
        fill = self._outputs.fetch(results)
        self.stream.synchronize()
        fill()

    def reset(self) -> None:
        """Take all memory back; what was left on its way must be done."""
        for arena in (self._inputs, self._outputs, self._scratch):
            arena.reset()

    def close(self) -> None:
        """Wait for what is on its way, as far as that goes, and give all memory back."""
        try:
            self.stream.synchronize()
        except self.device.cuda.Error:
            _log.debug("a failed operation was given up", exc_info=True)
        for arena in (self._inputs, self._outputs, self._scratch):
            arena.close()


class _Block:
    """A piece of device memory, its pinned mirror if it has one, and how much is in use and sent off."""

    __slots__ = ("address", "allocation", "mirror", "sent", "used")

    def __init__(self, allocation: Any, mirror: NDArray[np.uint8] | None) -> None:
        self.allocation, self.mirror = allocation, mirror
        self.address = int(allocation)
        self.used = self.sent = 0


class _Arena:
    """Device memory in a few blocks, with pinned mirrors where there is a stream to copy on.

    In an `outgoing` one all that is taken is put and sent; in others most of it belongs to kernels.
    """

    def __init__(self, device: Device, stream: Any, *, outgoing: bool = False) -> None:
        self._device, self._stream, self._outgoing = device, stream, outgoing
        self._blocks: list[_Block] = []  # the last one is in use
        self._large: list[Any] = []
        self._size, self._next = 0, _BLOCK_BYTES

    def take(self, size: int) -> int:
        """Address of `size` bytes."""
        if self._stream is not None and size > _LARGE_BYTES:
            self._large.append(self._device.allocate(size))
            return int(self._large[-1])
        if not self._blocks or self._blocks[-1].used + size > self._size:
            if self._outgoing:
                self.flush()
            self._size = max(size, self._next)
            mirror = None if self._stream is None else self._device.cuda.pagelocked_empty(self._size, np.uint8)
            self._blocks.append(_Block(self._device.allocate(self._size), mirror))
            self._next = 2 * self._size
        block = self._blocks[-1]
        address = block.address + block.used
        block.used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return address

    def put(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array; a large one is sent at once, others by `flush`."""
        address = self.take(array.nbytes)
        if array.nbytes > _LARGE_BYTES:
            self._device.cuda.memcpy_htod_async(address, array, self._stream)
        else:
            block = self._blocks[-1]
            assert block.mirror is not None  # there is a stream
            start = address - block.address
            block.mirror[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        return address

    def flush(self) -> None:
        """Send off what was put into the block in use."""
        if self._blocks and self._blocks[-1].used > self._blocks[-1].sent:
            block = self._blocks[-1]
            self.send(block.address + block.sent, block.used - block.sent)
            block.sent = block.used

    def send(self, address: int, size: int) -> None:
        """Send off part of the block in use."""
        block = self._blocks[-1]
        assert block.mirror is not None  # there is a stream
        start = address - block.address
        self._device.cuda.memcpy_htod_async(address, block.mirror[start : start + size], self._stream)

    def fetch(self, results: Sequence[tuple[int, NDArray[Any]]]) -> Callable[[], None]:
        """Start to bring everything back; once it is there, what is returned fills the arrays."""
        cuda = self._device.cuda
        for block in self._blocks:
            assert block.mirror is not None  # there is a stream
            if block.used:
                cuda.memcpy_dtoh_async(block.mirror[: block.used], block.address, self._stream)
        small = []
        for address, array in results:
            if array.nbytes > _LARGE_BYTES:
                cuda.memcpy_dtoh_async(array, address, self._stream)
            else:
                small.append((address, array))

        def fill() -> None:
            for address, array in small:
                for block in self._blocks:
                    start = address - block.address
                    if block.mirror is not None and 0 <= start < block.used:
                        array.reshape(-1).view(np.uint8)[:] = block.mirror[start : start + array.nbytes]
                        break

        return fill

    def reset(self) -> None:
        """Start anew; more than one block becomes one the next time, and much memory is given back."""
        if len(self._blocks) > 1 or self._large or self._size > _KEPT_BYTES:
            self.close()
        for block in self._blocks:
            block.used = block.sent = 0

    def close(self) -> None:
        """Give all memory back."""
        for block in self._blocks:
            block.allocation.free()
        for allocation in self._large:
            allocation.free()
        self._blocks.clear()
        self._large.clear()
        self._size, self._next = 0, min(self._next, _KEPT_BYTES)


def _driver() -> Any:
    try:
        with warnings.catch_warnings():  # PyCUDA warns of what it then raises
            warnings.simplefilter("ignore")
            import pycuda.driver as cuda
    except ImportError as error:
        if "pycuda" in str(error.name or ""):
            raise MissingDependencyError(
                "PyCUDA must be installed to use CUDA (got none)", hint="pip install 'fieldshot[cuda]'"
            ) from error
        raise DeviceError(
            f"PyCUDA must find a CUDA driver (got: {error})",
            hint="install the NVIDIA driver that PyCUDA was built for, or use FIELDSHOT_DEVICE=host",
        ) from error
    return cuda


def _cache_folder() -> Path:
    home = os.environ.get("FIELDSHOT_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fieldshot")
    return Path(home).expanduser()
