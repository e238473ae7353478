"""Kernels for a device: the image that was shipped, or else one that the device's own nvcc builds, once."""

from __future__ import annotations

import logging
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshot.errors import DeviceError
from fieldshot.system import cache_folder
from fieldshot.writing import replacing

if TYPE_CHECKING:
    from fieldshot.device.device import Device

__all__ = ["load_module"]

_log = logging.getLogger("fieldshot")


def load_module(device: Device, image: Path, source: Path, cache: str) -> tuple[Any, str]:
    """Load a module, and say where it came from; as `Device.functions`. The device's context must be current."""
    reason = f"no {image.name}"
    if image.is_file():
        try:
            return device.cuda.module_from_buffer(image.read_bytes()), "from the package"
        except device.cuda.MemoryError:
            raise
        except device.cuda.Error as error:
            reason = str(error)
    kept = cache_folder() / f"{cache}.sm_{device.capability[0]}{device.capability[1]}.cubin"
    if kept.is_file():
        try:
            return device.cuda.module_from_buffer(kept.read_bytes()), f"built here, {kept}"
        except device.cuda.Error as error:  # damaged, or of a driver before
            reason = str(error)
    _compile(device, source, kept, reason)
    return device.cuda.module_from_buffer(kept.read_bytes()), f"built here, {kept}"


def _compile(device: Device, source: Path, target: Path, reason: str) -> None:
    driver = ".".join(map(str, device.driver))
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        raise DeviceError(
            f"the driver (CUDA {driver}) must load the kernels (got: {reason}), and there is no nvcc to build them",
            hint=f"install a newer driver, or the CUDA toolkit {driver} so that nvcc builds them here",
        )
    _log.warning("building the kernels for %s with %s, once; this takes about a minute: %s", device.name, nvcc, reason)
    with ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            built = stack.enter_context(replacing(target))
        except OSError as error:
            raise DeviceError(
                f"kernels must be kept in {target.parent} once they are built (got: {error.strerror})",
                hint="name another folder in FIELDSHOT_CACHE",
            ) from error
        architecture = f"-arch=sm_{device.capability[0]}{device.capability[1]}"
        command = [nvcc, "-std=c++17", "-O3", "-cubin", architecture, "-o", built.name, str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise DeviceError(
                f"nvcc must build the kernels (got exit code {done.returncode}: {done.stderr.strip()[-2000:]})",
                hint=f"install the CUDA toolkit {driver}, or use FIELDSHOT_DEVICE=host",
            )
