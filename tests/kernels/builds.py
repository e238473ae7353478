"""Operations on each build of the kernels, with every output and scratch number poisoned beforehand.

FIELDSHOT_TEST_OPS picks the build: host (default), race, memory (in a process started with `memory_environment()`),
or cuda (in one that has a driver, real or the stand-in). host-0 and host-1 are the host builds for narrower vectors.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np

from check_build import build
from fieldshot.images import InPlace, pixels_in_place
from fieldshot.ops.host import HostCall, HostRunner, libraries, library
from fieldshot.ops.kernels import KernelOps

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ROOT / "build" / "check"


class PoisonedCall(HostCall):
    """Fills memory with 0xFF, which is NaN, and tells a check build what may be touched."""

    def declare(self, array: np.ndarray) -> None:
        if self.runner.checked:
            self.runner.library.fieldshot_check_region(
                ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            )

    def __enter__(self) -> PoisonedCall:
        if self.runner.checked:
            self.runner.library.fieldshot_check_regions_clear()
            for array in self.runner.loaded:
                self.declare(array)
        return self

    def put(self, array: np.ndarray | None) -> int | None:
        address = super().put(array)
        if address is not None:
            self.declare(self._held[-1])
        return address

    def put_pixels(self, pixels: InPlace) -> tuple[int, int, int]:
        """In a check build a copy of just these, so that whatever lies around them is out of bounds."""
        if self.runner.name != "host":
            pixels = pixels_in_place(np.array(pixels))
        self.declare(np.asarray(pixels))
        return super().put_pixels(pixels)

    def scratch(self, dtype: type, *shape: int) -> int:
        self._held.append(np.empty(shape, dtype))
        return self._poisoned(self._held[-1].ctypes.data, self._held[-1])

    def out(self, dtype: type, *shape: int) -> int:
        return self._poisoned(super().out(dtype, *shape), self._outputs[-1])

    def inout(self, array: np.ndarray) -> int:
        address = super().inout(array)
        self.declare(self._outputs[-1])
        return address

    def _poisoned(self, address: int, array: np.ndarray) -> int:
        array.reshape(-1).view(np.uint8)[:] = 0xFF
        self.declare(array)
        return address


class PoisonedRunner(HostRunner):
    """A build in this process; of the check builds, blocks of 256 lanes and several of them."""

    def __init__(self, loaded: ctypes.CDLL, name: str, *, checked: bool, shared_bytes: int, **sizes: int) -> None:
        super().__init__(loaded, name, **sizes)
        self.checked, self.shared_bytes = checked, shared_bytes
        self.loaded: list[np.ndarray] = []

    def call(self) -> PoisonedCall:
        return PoisonedCall(self)

    def load(self, classifier: Any) -> Any:
        held = super().load(classifier)
        self.loaded = held.arrays
        return held


def make(name: str, shared_bytes: int = 8 * 40 * 41) -> Any:
    """Operations on a build; with little shared memory, so that small problems go by blocks too."""
    if name == "cuda":
        from fieldshot.ops.cuda import CudaOps

        return CudaOps()
    if name.startswith("host"):
        loaded = library() if name == "host" else ctypes.CDLL(str(libraries()[int(name[-1])]))
        return KernelOps(PoisonedRunner(loaded, "host", checked=False, shared_bytes=shared_bytes, blocks=2))
    assert name in {"race", "memory"}
    loaded = ctypes.CDLL(str(build([ROOT / "kernels/all.cu"], CHECKED, name)))
    runner = PoisonedRunner(loaded, name, checked=name == "race", shared_bytes=shared_bytes, blocks=3, warps=8)
    return KernelOps(runner)


def asked() -> str:
    return os.environ.get("FIELDSHOT_TEST_OPS", "host")
