"""Which CUDA device is meant, and the one object that stands for it in this process."""

from __future__ import annotations

import ctypes
import os
import re
import threading

from fieldshot.device.device import Device

__all__ = ["asked_index", "device_count", "find_device", "held_bytes"]

_lock = threading.Lock()
_devices: dict[int, Device] = {}


def asked_index() -> int | None:
    """Number of the CUDA device that FIELDSHOT_DEVICE allows, the first if it is unset; None where it names no GPU."""
    asked = os.environ.get("FIELDSHOT_DEVICE") or "auto"
    found = re.fullmatch(r"auto|cuda(?::(\d+))?", asked)
    return None if found is None else int(found[1] or 0)


def device_count() -> int:
    """How many CUDA devices the driver has, asked without PyCUDA; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def find_device(index: int) -> Device:
    """A device, the same object each time; errors as for `Device`."""
    with _lock:
        if index not in _devices:
            _devices[index] = Device(index)
        return _devices[index]


def held_bytes() -> int:
    """`Device.held_bytes` of all devices that this process uses; 0 where it uses none."""
    with _lock:
        return sum(device.held_bytes for device in _devices.values())
