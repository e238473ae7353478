"""The operations on a CUDA device: the kernels as compiled by nvcc, launched through PyCUDA."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fieldshot.device import LANES, Device, Workspace, find_device
from fieldshot.errors import DeviceError
from fieldshot.images import InPlace
from fieldshot.ops import sources
from fieldshot.ops.interface import Classifier
from fieldshot.ops.kernels import KernelOps

__all__ = ["CudaOps", "CudaRunner"]

_WARP = 32


class CudaOps(KernelOps):
    """`fieldshot.ops.Ops` on a CUDA device.

    Parameters
    ----------
    index : int
        Which device.

    Raises
    ------
    MissingDependencyError, DeviceError
        As for `Device`, and where the kernels do not load.
    """

    runner: CudaRunner

    def __init__(self, index: int = 0) -> None:
        super().__init__(CudaRunner(find_device(index)))


class CudaRunner:
    """`fieldshot.ops.runner.Runner` on a device; each operation has a stream of its own and waits once, at its end."""

    warps = LANES // _WARP
    threads = 1  # another could copy while one computes, but that it pays has to be measured on a GPU first

    def __init__(self, device: Device) -> None:
        self.device = device
        self.name = "cuda"
        self.shared_bytes = device.shared_bytes - 1024  # the fixed shared memory of `fit`, generously
        # A block has 256 lanes; eight of them fill a multiprocessor, and more than that wait their turn.
        self.blocks = 8 * device.multiprocessors
        image, source = sources.built("cuda", "fatbin"), sources.FOLDER / "all.cu"
        names = sources.kernels()
        self.functions, origin = device.functions(image, source, list(names), f"kernels.{sources.digest()}")
        self.about = f"{device.about}, kernels {origin}"
        self.structs = {name: sources.struct_of(name) for name in names}

    def slices(self, samples: int, tiles: int) -> int:
        """Enough blocks to fill the device twice, each with a thousand samples at least."""
        return max(1, min(2 * self.blocks // 8 // tiles, samples // 1024))

    def call(self) -> CudaCall:
        """Start an operation."""
        return CudaCall(self)

    def repeated(self) -> RepeatedCall:
        """Start an operation that comes again and again on the same shapes."""
        return RepeatedCall(self)

    def load(self, classifier: Classifier) -> _Held:
        """Keep the arrays, to go to the device when they are first used."""
        return _Held(self.device, classifier)


class _Held:
    """A classifier that is copied to the device when first used, and freed there with this object."""

    def __init__(self, device: Device, classifier: Classifier) -> None:
        self._allocation: Any = None
        self._device, self._lock = device, threading.Lock()
        self._arrays = [np.ascontiguousarray(array) for array in classifier[:3]]
        self._addresses: tuple[int, ...] = ()

    def addresses(self, space: Workspace) -> tuple[int, ...]:
        """Where weights, bias and prototypes are, by the time that work on any stream begins."""
        with self._lock:
            if self._allocation is None:
                sizes = [-(-array.nbytes // LANES) * LANES for array in self._arrays]
                allocation = self._device.allocate(sum(sizes))
                base = int(allocation)
                self._addresses = base, base + sizes[0], base + sizes[0] + sizes[1]
                for address, array in zip(self._addresses, self._arrays, strict=True):
                    self._device.cuda.memcpy_htod_async(address, array, space.stream)
                space.stream.synchronize()
                self._allocation = allocation
        return self._addresses

    def __del__(self) -> None:
        if self._allocation is not None:
            self._device.discard(self._allocation)


class CudaCall:
    """`fieldshot.ops.runner.Call` on a device; `space`, inside its ``with``, is its stream and memory."""

    def __init__(self, runner: CudaRunner) -> None:
        self.runner = runner
        self._workspace = runner.device.workspace()
        self._results: list[tuple[int, NDArray[Any]]] = []

    def __enter__(self) -> CudaCall:
        self.space: Workspace = self._workspace.__enter__()
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        return self._workspace.__exit__(*raised)

    def put(self, array: NDArray[Any] | None) -> int | None:
        """Address of a copy of the array."""
        return None if array is None else self.space.put(array)

    def put_pixels(self, pixels: InPlace) -> tuple[int, int, int]:
        """Address of a copy of the pixels, and the bytes from row to row and from pixel to pixel.

        What lies between the pixels of a row goes along: a row at a time is copied quicker than a pixel at a time.
        """
        width = pixels.pixel_bytes * (pixels.width - 1) + 3
        address = self.put(as_strided(np.asarray(pixels), (pixels.height, width), (pixels.row_bytes, 1)))
        assert address is not None
        return address, width, pixels.pixel_bytes

    def held(self, loaded: _Held) -> tuple[int, ...]:
        """Addresses of what `Runner.load` keeps."""
        return loaded.addresses(self.space)

    def scratch(self, dtype: type, *shape: int) -> int:
        """Address of memory that is gone after the call."""
        return self.space.take(math.prod(shape) * np.dtype(dtype).itemsize)

    def out(self, dtype: type, *shape: int) -> int:
        """Address of an array that `fetch` gives."""
        array: NDArray[Any] = np.empty(shape, dtype)
        self._results.append((self.space.result(array.nbytes), array))
        return self._results[-1][0]

    def inout(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array that kernels may change and `fetch` gives."""
        array = array.copy()
        self._results.append((self.space.changed(array), array))
        return self._results[-1][0]

    def launch(self, kernel: str, tasks: int, shared: int = 0, **fields: int | float | None) -> None:
        """Start a kernel."""
        if shared > self.runner.shared_bytes:
            raise DeviceError(
                f"kernel {kernel} must find {shared} bytes of shared memory a block (got {self.runner.shared_bytes})",
                hint="use FIELDSHOT_DEVICE=host for embeddings of so many dimensions",
            )
        if tasks < 1:
            return  # a grid of nothing is an error to the driver
        params, grid = self.runner.structs[kernel].of(fields), (min(tasks, self.runner.blocks), 1)
        # What PyCUDA's own calls come down to, without their three microseconds.
        start, stream = self.runner.functions[kernel]._launch_kernel, self.space.stream
        self.do((kernel, grid, shared, params), lambda: start(grid, (LANES, 1, 1), params, shared, stream))

    def do(self, key: tuple[object, ...], work: Callable[[], object]) -> None:
        """Start work on the call's stream; of equal keys it is the same."""
        self.space.flush()
        work()

    def fetch(self) -> list[NDArray[Any]]:
        """Wait, and give what `out` and `inout` named, in their order."""
        self.space.fetch(self._results)
        return [array for _, array in self._results]


class RepeatedCall(CudaCall):
    """A call that is made again and again on the same shapes: it starts nothing before `fetch`, and then one graph."""

    def __init__(self, runner: CudaRunner) -> None:
        super().__init__(runner)
        self._keys: list[tuple[object, ...]] = []
        self._work: list[Callable[[], object]] = []

    def do(self, key: tuple[object, ...], work: Callable[[], object]) -> None:
        """Keep work for `fetch`."""
        self._keys.append(key)
        self._work.append(work)

    def fetch(self) -> list[NDArray[Any]]:
        """Do the work, wait, and give what `out` and `inout` named, in their order."""
        self.space.repeat(tuple(self._keys), lambda: [work() for work in self._work], self._results)
        return [array for _, array in self._results]
