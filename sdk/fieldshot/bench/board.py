"""The machine that was measured: what it is, and in what state."""

from __future__ import annotations

import os
import platform
import re
import select
import shutil
import subprocess
from glob import glob
from pathlib import Path
from typing import Any

__all__ = ["board_facts"]

_CPU = "/sys/devices/system/cpu/cpu0/cpufreq"
# 17000000.gpu and 57000000.gpu, or by the name of the chip: 17000000.ga10b, .gv11b, .gp10b.
_GPU = ("*gpu*", "*.g[a-z][0-9][0-9]b")
_OFF_C = -256  # what a Jetson says of a part that has no power
_TEGRASTATS_S = 2.0


def board_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Board, processor, GPU and what state they are in; what the system does not say is left out.

    Parameters
    ----------
    root : Path
        Where /proc and /sys are.

    Returns
    -------
    dict
        Clocks in MHz, temperatures in degrees Celsius, power in mW; of a Jetson with tegrastats memory in MB as well,
        and how busy its GPU is.
    """
    facts: dict[str, Any] = {
        "board": _read(root, "/proc/device-tree/model") or _read(root, "/sys/class/dmi/id/product_name"),
        "cpu": _processor(root),
        "gpu": _value(_first(root, "/proc/driver/nvidia/gpus/*/information"), "Model"),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "governor": _read(root, f"{_CPU}/scaling_governor"),
        "clock_mhz": _number(_read(root, f"{_CPU}/scaling_cur_freq"), 1e-3),
        "clock_max_mhz": _number(_read(root, f"{_CPU}/cpuinfo_max_freq"), 1e-3),
        "gpu_clock_mhz": _number(_first(root, *(f"/sys/class/devfreq/{name}/cur_freq" for name in _GPU)), 1e-6),
        "power_mode": _power_mode(root),
        "temperature_c": _temperatures(root),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    facts = {name: value for name, value in facts.items() if value not in (None, "", {})}
    return {**_parse_tegrastats(_tegrastats()), **facts}


def _read(root: Path, path: str) -> str:
    try:
        return (root / path.lstrip("/")).read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _first(root: Path, *patterns: str) -> str:
    found = [path for pattern in patterns for path in sorted(glob(str(root / pattern.lstrip("/"))))]
    return _read(Path("/"), found[0]) if found else ""


def _number(text: str, scale: float) -> float | None:
    try:
        return round(float(text) * scale, 1)
    except ValueError:
        return None


def _value(text: str, *names: str) -> str:
    """What stands behind the first of some names in lines of ``name: value``."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _processor(root: Path) -> str:
    return _value(_read(root, "/proc/cpuinfo"), "model name", "Model") or platform.processor()


def _power_mode(root: Path) -> str:
    """Of a Jetson, as nvpmodel left it (pmode:0003); of others the profile of the platform."""
    return _read(root, "/var/lib/nvpmodel/status") or _read(root, "/sys/firmware/acpi/platform_profile")


def _temperatures(root: Path) -> dict[str, float]:
    found = {}
    for zone in sorted(glob(str(root / "sys/class/thermal/thermal_zone*"))):
        value = _number(_read(Path(zone), "temp"), 1e-3)
        if value is not None and value > _OFF_C:
            found[_read(Path(zone), "type") or Path(zone).name] = value
    return found


def _tegrastats() -> str:
    """A line of the tool that Jetsons have; empty where there is none, or none comes."""
    program = shutil.which("tegrastats")
    if program is None:
        return ""
    try:
        with subprocess.Popen(
            [program, "--interval", "100"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], _TEGRASTATS_S)
            line = process.stdout.readline() if ready else ""
            process.kill()  # it would go on
    except OSError:
        return ""
    return line


def _parse_tegrastats(line: str) -> dict[str, Any]:
    """Memory, load and clock of the GPU, and power by rail, which root alone is told."""
    facts: dict[str, Any] = {}
    if memory := re.search(r"\bRAM (\d+)/(\d+)MB", line):
        facts |= {"memory_used_mb": int(memory[1]), "memory_mb": int(memory[2])}
    if gpu := re.search(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+))?", line):
        facts["gpu_load_percent"] = int(gpu[1])
        if gpu[2]:
            facts["gpu_clock_mhz"] = float(gpu[2])
    # The value now over its mean: VDD_IN 4480mW/4512mW, or without the unit; NC is connected to nothing.
    rails = re.findall(r"\b([A-Z]\w*) (-?\d+)(?:mW)?/-?\d+(?:mW)?(?!\S)", line)
    if power := {name: int(value) for name, value in rails if name != "NC"}:
        facts["power_mw"] = power
    return facts
