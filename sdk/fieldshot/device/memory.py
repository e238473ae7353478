"""Memory of a device for one operation: pinned on the way, and back in the pool afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fieldshot.device.graph import Graphs
from fieldshot.device.work import Stopwatch

if TYPE_CHECKING:
    from fieldshot.device.device import Device

__all__ = ["Workspace"]

_log = logging.getLogger("fieldshot")

_ALIGNMENT = 256
_BLOCK_BYTES = 1 << 20
_LARGE_BYTES = 1 << 23  # copied straight from and to the caller's array, without a pinned one in between
_KEPT_BYTES = 1 << 28  # of memory that a workspace holds on to from one use to the next


class Workspace:
    """A stream, and memory that comes in pieces and goes all at once.

    Parameters
    ----------
    device : Device
        Its context must be current, here and in all methods.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        # CU_STREAM_NON_BLOCKING: work on the default stream, such as other libraries start, would wait for one that
        # blocks, and be refused while it is captured.
        self.stream = device.cuda.Stream(1)
        self.kept: dict[object, Any] = {}  # what others keep with it, given up when it is
        self._inputs = _Arena(device, self.stream, outgoing=True)
        self._outputs = _Arena(device, self.stream)
        self._scratch = _Arena(device, None)
        self._graphs = Graphs(self.stream, device.alone)
        self._watch = Stopwatch(device.cuda, self.stream)

    def put(self, array: NDArray[Any]) -> int:
        """Address of a copy of an array, in one piece; it is there for what `flush` precedes."""
        if array.nbytes > _LARGE_BYTES:  # it goes at once
            self._watch.start()
        return self._inputs.put(array)

    def flush(self) -> None:
        """Send off what was put, and then the work that needs it."""
        self._watch.start()
        self._inputs.flush()

    def take(self, size: int) -> int:
        """Address of `size` bytes of memory."""
        return self._scratch.take(size)

    def result(self, size: int) -> int:
        """Address of `size` bytes that `fetch` brings back."""
        return self._outputs.take(size)

    def changed(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array that `fetch` brings back."""
        self._watch.start()
        address = self._outputs.put(array)
        if array.nbytes <= _LARGE_BYTES:
            self._outputs.send(address, array.nbytes)
        return address

    def fetch(self, results: Sequence[tuple[int, NDArray[Any]]]) -> None:
        """Wait, and fill arrays with what is at these addresses: the only synchronisation."""
        self._outputs.bring(results)
        self._watch.stop()
        self._outputs.fill(results)

    def repeat(self, key: object, work: Callable[[], object], results: Sequence[tuple[int, NDArray[Any]]]) -> None:
        """Do work between `flush` and `fetch`; what comes again with the same key and memory is launched as one graph.

        Parameters
        ----------
        key : hashable
            Of equal keys the work is the same.
        work : callable
            Starts kernels on the stream, and nothing else.
        results : sequence of (int, ndarray)
            As in `fetch`.
        """
        self._watch.start()
        sent = self._inputs.sent

        def all_of_it() -> None:
            self._inputs.flush(sent)
            work()
            self._outputs.bring(results)

        if any(array.nbytes > _LARGE_BYTES for _, array in results):
            all_of_it()  # straight into the caller's arrays, which are others the next time
        else:
            self._graphs.run((key, self._inputs.places(), self._outputs.places()), all_of_it)
        self._watch.stop()
        self._outputs.fill(results)

    def reset(self) -> None:
        """Take all memory back; what was left on its way must be done."""
        changed = [arena.reset() for arena in (self._inputs, self._outputs, self._scratch)]
        if any(changed):
            self._graphs.close()  # other memory may come to lie at the same addresses

    def close(self) -> None:
        """Wait for what is on its way, as far as that goes, and give all memory back."""
        try:
            self.stream.synchronize()
        except self.device.cuda.Error:
            _log.debug("a failed operation was given up", exc_info=True)
        self.kept.clear()
        self._graphs.close()
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
        self._sources: list[NDArray[Any]] = []
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
            self._next = min(2 * self._size, _KEPT_BYTES)
        block = self._blocks[-1]
        address = block.address + block.used
        block.used += -(-size // _ALIGNMENT) * _ALIGNMENT
        return address

    def put(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array; a large one is sent at once, others by `flush`."""
        address = self.take(array.nbytes)
        if array.nbytes > _LARGE_BYTES:
            array = np.ascontiguousarray(array)
            self._sources.append(array)  # where a GPU reads the caller's own memory it may not have done so yet
            self._device.cuda.memcpy_htod_async(address, array, self._stream)
        else:
            block = self._blocks[-1]
            assert block.mirror is not None  # there is a stream
            start = address - block.address
            block.mirror[start : start + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        return address

    @property
    def sent(self) -> int:
        """How much of the block in use was sent off."""
        return self._blocks[-1].sent if self._blocks else 0

    def flush(self, sent: int | None = None) -> None:
        """Send off what was put into the block in use, from `sent` on if that is stated."""
        sent = self.sent if sent is None else sent
        if self._blocks and self._blocks[-1].used > sent:
            block = self._blocks[-1]
            self.send(block.address + sent, block.used - sent)
            block.sent = block.used

    def send(self, address: int, size: int) -> None:
        """Send off part of the block in use."""
        block = self._blocks[-1]
        assert block.mirror is not None  # there is a stream
        start = address - block.address
        self._device.cuda.memcpy_htod_async(address, block.mirror[start : start + size], self._stream)

    def bring(self, results: Sequence[tuple[int, NDArray[Any]]]) -> None:
        """Start to bring everything back, large arrays to where they belong."""
        cuda = self._device.cuda
        for block in self._blocks:
            assert block.mirror is not None  # there is a stream
            if block.used:
                cuda.memcpy_dtoh_async(block.mirror[: block.used], block.address, self._stream)
        for address, array in results:
            if array.nbytes > _LARGE_BYTES:
                cuda.memcpy_dtoh_async(array, address, self._stream)

    def fill(self, results: Sequence[tuple[int, NDArray[Any]]]) -> None:
        """Fill the other arrays with what was brought."""
        for address, array in results:
            for block in self._blocks if array.nbytes <= _LARGE_BYTES else ():
                start = address - block.address
                if block.mirror is not None and 0 <= start < block.used:
                    array.reshape(-1).view(np.uint8)[:] = block.mirror[start : start + array.nbytes]
                    break

    def places(self) -> tuple[tuple[int, int, int, int], ...]:
        """From where to where everything is copied."""
        return tuple(
            (block.address, block.mirror.ctypes.data, block.sent, block.used)
            for block in self._blocks
            if block.mirror is not None
        )

    def reset(self) -> bool:
        """Start anew; whether in other memory: more than one block becomes one, and much is given back."""
        anew = len(self._blocks) > 1 or bool(self._large) or self._size > _KEPT_BYTES
        if anew:
            self.close()
        for block in self._blocks:
            block.used = block.sent = 0
        self._sources.clear()
        return anew

    def close(self) -> None:
        """Give all memory back, as far as that goes."""
        for allocation in [*(block.allocation for block in self._blocks), *self._large]:
            try:
                allocation.free()
            except self._device.cuda.Error:
                _log.debug("memory of a failed operation was not given back", exc_info=True)
        self._blocks.clear()
        self._large.clear()
        self._sources.clear()
        self._size, self._next = 0, min(self._next, _KEPT_BYTES)
