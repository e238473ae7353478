"""A CUDA device: its primary context, memory and kernels, through PyCUDA."""

from fieldshot.device.device import LANES, Device
from fieldshot.device.memory import Workspace

__all__ = ["LANES", "Device", "Workspace"]
