"""A CUDA device: its primary context, memory and kernels, through PyCUDA."""

from fieldshot.device.device import LANES, Device
from fieldshot.device.memory import Workspace
from fieldshot.device.selection import asked_index, device_count, find_device, held_bytes

__all__ = ["LANES", "Device", "Workspace", "asked_index", "device_count", "find_device", "held_bytes"]
