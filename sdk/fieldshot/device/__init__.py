"""A CUDA device: its primary context, memory and kernels, through PyCUDA."""

from fieldshot.device.device import LANES, Device
from fieldshot.device.memory import Workspace
from fieldshot.device.selection import asked_index, device_count, find_device, held_bytes
from fieldshot.device.work import count_work, worked_ns

__all__ = [
    "LANES",
    "Device",
    "Workspace",
    "asked_index",
    "count_work",
    "device_count",
    "find_device",
    "held_bytes",
    "worked_ns",
]
