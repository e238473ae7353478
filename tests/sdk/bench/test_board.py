"""What a machine says of itself: made trees of /proc and /sys, and lines as tegrastats prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fieldshot.bench import board
from fieldshot.bench.board import board_facts

ORIN_NANO = (
    "11-28-2026 10:12:01 RAM 2587/7620MB (lfb 6x4MB) SWAP 12/3810MB (cached 0MB) CPU [3%@1510,0%@1510,off,off,0%@729,"
    "1%@729] EMC_FREQ 1%@2133 GR3D_FREQ 38%@[305] NVDEC off NVJPG off VIC off APE 200 cpu@48.3C soc2@47.1C gpu@47.5C"
    " tj@48.3C VDD_IN 4480mW/4512mW VDD_CPU_GPU_CV 560mW/571mW VDD_SOC 1360mW/1360mW"
)
AGX_ORIN = (
    "10-16-2026 10:59:22 RAM 1205/30623MB (lfb 6429x4MB) SWAP 0/15311MB (cached 0MB) CPU [0%@729,off] EMC_FREQ 0%@204"
    " GR3D_FREQ 0%@114 GR3D2_FREQ 0%@114 VIC_FREQ 729 APE 233 CV0@-256C GPU@38.156C VDD_GPU_SOC 4788mW/4788mW"
    " VDD_CPU_CV -398mW/-398mW VIN_SYS_5V0 3842mW/3842mW NC 0mW/0mW VDDQ_VDD2_1V8AO 707mW/707mW NC 0mW/0mW"
)
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [2%@102,1%@102] EMC_FREQ 0%"
    " GR3D_FREQ 7% PLL@39C CPU@40.5C PMIC@100C POM_5V_IN 900/943 POM_5V_GPU 0/0 POM_5V_CPU 123/123"
)


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def tegrastats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place on PATH for a script of that name."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin/tegrastats"


def install(script: Path, text: str) -> None:
    script.write_text(f"#!/bin/sh\n{text}\nexec sleep 60\n")
    script.chmod(0o755)


@pytest.mark.parametrize("name", ["17000000.gpu", "57000000.gpu", "17000000.ga10b", "17000000.gv11b", "17000000.gp10b"])
def test_the_gpu_of_every_jetson(name: str, tmp_path: Path) -> None:
    files = {"15340000.vic": "115200000\n", name: "1020000000\n", "bwmgr": "1\n"}
    put(tmp_path, {f"sys/class/devfreq/{of}/cur_freq": text for of, text in files.items()})
    assert board_facts(tmp_path)["gpu_clock_mhz"] == 1020


def test_a_part_without_power_has_no_temperature(tmp_path: Path) -> None:
    zones = {"cpu-thermal": "48312\n", "cv0-thermal": "-256000\n", "outdoors": "-20500\n"}
    for number, (kind, value) in enumerate(zones.items()):
        zone = f"sys/class/thermal/thermal_zone{number}"
        put(tmp_path, {f"{zone}/type": f"{kind}\n", f"{zone}/temp": value})
    assert board_facts(tmp_path)["temperature_c"] == {"cpu-thermal": 48.3, "outdoors": -20.5}


def test_a_gpu_on_a_card(tmp_path: Path) -> None:
    told = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 139\nGPU UUID: \t GPU-0\n"
    put(tmp_path, {"proc/driver/nvidia/gpus/0000:00:05.0/information": told})
    assert board_facts(tmp_path)["gpu"] == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            ORIN_NANO,
            {
                "memory_used_mb": 2587,
                "memory_mb": 7620,
                "gpu_load_percent": 38,
                "gpu_clock_mhz": 305,
                "power_mw": {"VDD_IN": 4480, "VDD_CPU_GPU_CV": 560, "VDD_SOC": 1360},
            },
        ),
        (
            AGX_ORIN,
            {
                "memory_used_mb": 1205,
                "memory_mb": 30623,
                "gpu_load_percent": 0,
                "gpu_clock_mhz": 114,
                "power_mw": {"VDD_GPU_SOC": 4788, "VDD_CPU_CV": -398, "VIN_SYS_5V0": 3842, "VDDQ_VDD2_1V8AO": 707},
            },
        ),
        (
            NANO,
            {
                "memory_used_mb": 613,
                "memory_mb": 3964,
                "gpu_load_percent": 7,
                "power_mw": {"POM_5V_IN": 900, "POM_5V_GPU": 0, "POM_5V_CPU": 123},
            },
        ),
    ],
)
def test_tegrastats(
    line: str, said: dict[str, object], tegrastats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_TEGRASTATS_S", 30.0)
    install(tegrastats, f"echo '{line}'")
    facts = board_facts(tmp_path / "empty")
    assert {name: facts[name] for name in said} == said
    assert ("gpu_clock_mhz" in facts) == ("gpu_clock_mhz" in said)


def test_what_the_kernel_says_goes_before(tegrastats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_TEGRASTATS_S", 30.0)
    install(tegrastats, f"echo '{ORIN_NANO}'")
    put(tmp_path, {"sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n"})
    facts = board_facts(tmp_path)
    assert (facts["gpu_clock_mhz"], facts["gpu_load_percent"]) == (624.8, 38)


def test_a_tegrastats_that_says_nothing(tegrastats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "_TEGRASTATS_S", 0.05)
    install(tegrastats, "")
    assert "memory_mb" not in board_facts(tmp_path)
    tegrastats.write_text("no program")  # of no kind that could be started
    assert "memory_mb" not in board_facts(tmp_path)
