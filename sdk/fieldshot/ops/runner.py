"""One build of the kernels: how numbers get to its memory and back, and how a kernel is started."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from fieldshot.images import InPlace
from fieldshot.ops.interface import Classifier

__all__ = ["Call", "Runner"]


class Call(Protocol):
    """One operation under way: its arrays and launches. Addresses hold until its `with` block ends."""

    def __enter__(self) -> Call: ...

    def __exit__(self, *raised: Any) -> bool | None: ...

    def put(self, array: NDArray[Any] | None) -> int | None:
        """Address of a copy of the array, or of itself, for kernels to read."""
        ...

    def put_pixels(self, pixels: InPlace) -> tuple[int, int, int]:
        """Address of the like of the pixels, and the bytes from row to row and from pixel to pixel."""
        ...

    def held(self, loaded: Any) -> tuple[int, ...]:
        """Addresses of weights, bias and prototypes that `Runner.load` keeps."""
        ...

    def scratch(self, dtype: type, *shape: int) -> int:
        """Address of memory that is gone after the call."""
        ...

    def out(self, dtype: type, *shape: int) -> int:
        """Address of an array that `fetch` gives."""
        ...

    def inout(self, array: NDArray[Any]) -> int:
        """Address of a copy of the array that kernels may change and `fetch` gives."""
        ...

    def launch(self, kernel: str, tasks: int, shared: int = 0, **fields: int | float | None) -> None:
        """Start a kernel that deals `tasks` to its blocks, with `shared` bytes of shared memory."""
        ...

    def fetch(self) -> list[NDArray[Any]]:
        """Wait, and give what `out` and `inout` named, in their order."""
        ...


class Runner(Protocol):
    """One build of the kernels.

    about : what runs, in words for a person.
    threads : that may call at once and finish sooner by it.
    shared_bytes : what a block may have of shared memory.
    warps : rows that a block of a row-wise kernel works on at once.
    """

    name: str
    about: str
    threads: int
    shared_bytes: int
    warps: int

    def slices(self, samples: int, tiles: int) -> int:
        """Into how many slices a sum over samples is split, beside so many tiles, for work enough."""
        ...

    def call(self) -> Call:
        """Start an operation."""
        ...

    def load(self, classifier: Classifier) -> Any:
        """Keep a classifier's arrays for as long as what is returned lives; it is for `Call.held`."""
        ...
