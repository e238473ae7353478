"""A CUDA device: its primary context, memory and kernels, through PyCUDA.

The primary context is the one that TensorRT and torch use too. It is pushed and popped around each use, so any thread
may call; it is never left current, and `pycuda.autoinit` is not used.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from fieldshot.device.loading import load_module
from fieldshot.device.memory import Workspace
from fieldshot.errors import DeviceError, DeviceMemoryError, MissingDependencyError

__all__ = ["LANES", "Device"]

_T = TypeVar("_T")

LANES = 256  # of a block, in every kernel (kernels/simt.cuh)


class Closeable(Protocol):
    """What holds something of a device and gives it back."""

    def close(self) -> None:
        """Give it back."""
        ...


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
            self._context = device.retain_primary_context()
        except cuda.Error as error:
            raise DeviceError(
                f"there must be a CUDA device that can be used (got: {error})",
                hint="run nvidia-smi, close other programs on it, or use FIELDSHOT_DEVICE=host",
            ) from error
        self._pid = os.getpid()
        # Left to its destructor PyCUDA would take the context for one of its own making. A fork too must let go of it,
        # or what is left in it would be freed there, which ends in an abort.
        atexit.register(self._end)
        self._users: WeakSet[Closeable] = WeakSet()
        self.alone = threading.Lock()  # what disturbs a capture, or is disturbed by one, takes turns with it
        self._idle: deque[Workspace] = deque()
        self._unused: deque[Any] = deque()  # allocations whose owners are gone
        self._free_bytes = self._read_free_bytes()

    @property
    def about(self) -> str:
        """What it is, in words for a person."""
        major, minor = self.capability
        return f"{self.name}, sm_{major}{minor}, driver for CUDA {self.driver[0]}.{self.driver[1]}"

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the process that took the device into use."""
        return os.getpid() != self._pid

    @property
    def held_bytes(self) -> int:
        """Memory of the device that was taken since this process took it into use; its context is not in it.

        The driver tells what is free and not who took it: what other processes take meanwhile is in it.
        """
        return self._free_bytes - self._read_free_bytes()

    def _read_free_bytes(self) -> int:
        with self.current():
            return int(self.cuda.mem_get_info()[0])

    def closes(self, user: Closeable) -> None:
        """Have something that lives in the device's context closed before it ends with the process."""
        self._users.add(user)

    def _end(self) -> None:
        if not self.forked:
            for user in list(self._users):
                with suppress(Exception):  # after a failed kernel each one raises
                    user.close()
        self._context.detach()

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
        if self.forked:
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
            for allocation in _taken(self._unused):
                allocation.free()
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
            for space in _taken(self._idle):
                space.close()
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
            module, origin = load_module(self, image, source, cache)
            functions = {name: module.get_function(name) for name in names}
            attribute = self.cuda.function_attribute
            for function in functions.values():
                fixed = function.get_attribute(attribute.SHARED_SIZE_BYTES)
                function.set_attribute(attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, self.shared_bytes - fixed)
            return functions, origin


def _taken(pool: deque[_T]) -> Iterator[_T]:
    """All that is in a pool, taken out one by one; other threads may take from it too."""
    with suppress(IndexError):
        while True:
            yield pool.pop()


def _driver() -> Any:
    try:
        with warnings.catch_warnings():  # PyCUDA warns of what it then raises
            warnings.simplefilter("ignore")
            import pycuda.driver as cuda
    except ImportError as error:
        if "pycuda" in str(error.name or ""):
            raise MissingDependencyError(
                "PyCUDA must be installed to use CUDA (got none)",
                hint="pip install pycuda, with the CUDA toolkit's nvcc on PATH",
            ) from error
        raise DeviceError(
            f"PyCUDA must find a CUDA driver (got: {error})",
            hint="install the NVIDIA driver that PyCUDA was built for, or use FIELDSHOT_DEVICE=host",
        ) from error
    return cuda
