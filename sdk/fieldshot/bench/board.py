"""The machine that was measured: what it is, and in what state."""

from __future__ import annotations

import os
import platform
from glob import glob
from pathlib import Path
from typing import Any

__all__ = ["board_facts"]

_CPU = "/sys/devices/system/cpu/cpu0/cpufreq"


def board_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Board, processor, governor, clocks, power mode and temperature; what the system does not say is left out.

    Parameters
    ----------
    root : Path
        Where /proc and /sys are.

    Returns
    -------
    dict
        Clocks in MHz, temperatures in degrees Celsius.
    """
    facts: dict[str, Any] = {
        "board": _read(root, "/proc/device-tree/model") or _read(root, "/sys/class/dmi/id/product_name"),
        "cpu": _processor(root),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "governor": _read(root, f"{_CPU}/scaling_governor"),
        "clock_mhz": _number(_read(root, f"{_CPU}/scaling_cur_freq"), 1e-3),
        "clock_max_mhz": _number(_read(root, f"{_CPU}/cpuinfo_max_freq"), 1e-3),
        "gpu_clock_mhz": _number(_first(root, "/sys/class/devfreq/*gpu*/cur_freq"), 1e-6),
        "power_mode": _power_mode(root),
        "temperature_c": _temperatures(root),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    return {name: value for name, value in facts.items() if value not in (None, "", {})}


def _read(root: Path, path: str) -> str:
    try:
        return (root / path.lstrip("/")).read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _first(root: Path, pattern: str) -> str:
    found = sorted(glob(str(root / pattern.lstrip("/"))))
    return _read(Path("/"), found[0]) if found else ""


def _number(text: str, scale: float) -> float | None:
    try:
        return round(float(text) * scale, 1)
    except ValueError:
        return None


def _processor(root: Path) -> str:
    for line in _read(root, "/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor()


def _power_mode(root: Path) -> str:
    """Of a Jetson, as nvpmodel left it (pmode:0003); of others the profile of the platform."""
    return _read(root, "/var/lib/nvpmodel/status") or _read(root, "/sys/firmware/acpi/platform_profile")


def _temperatures(root: Path) -> dict[str, float]:
    found = {}
    for zone in sorted(glob(str(root / "sys/class/thermal/thermal_zone*"))):
        value = _number(_read(Path(zone), "temp"), 1e-3)
        if value is not None:
            found[_read(Path(zone), "type") or Path(zone).name] = value
    return found
