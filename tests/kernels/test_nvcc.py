"""nvcc compiles every kernel for every GPU that is supported, and ptxas has nothing to complain of."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from host_build import kernel_build

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc, the compiler of the CUDA toolkit")

BUILD = kernel_build()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built() -> tuple[Path, str]:
    """The fat binary and what ptxas said; built in place, where the wheel takes it from."""
    return BUILD.build_cuda(BUILD.PACKAGE)


def test_every_kernel_has_code_for_every_gpu(built: tuple[Path, str]) -> None:
    compiled = set(re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", built[1]))
    kernels = {name for path in BUILD.sources() for name in re.findall(r"^KERNEL\((\w+),", path.read_text(), re.M)}
    assert compiled == {(kernel, str(gpu)) for kernel in kernels for gpu in BUILD.GPUS}
    assert built[0].stat().st_size < 2_000_000


def test_no_kernel_spills(built: tuple[Path, str]) -> None:
    assert set(re.findall(r"(\d+) bytes spill", built[1])) == {"0"}


def test_lanes_keep_their_arrays_in_registers(built: tuple[Path, str]) -> None:
    """One that is indexed in a loop that stays a loop lies in memory; nvcc decides so for some GPUs only."""
    assert max(map(int, re.findall(r"(\d+) bytes stack frame", built[1]))) <= 32  # a few numbers, once a task


def test_no_warnings(built: tuple[Path, str]) -> None:
    assert "warning" not in built[1].lower()


def test_only_pictures_are_read_byte_by_byte(tmp_path: Path) -> None:
    """What memcpy takes from memory is, four loads for one number; from a variable it is not."""
    ptx = tmp_path / "all.ptx"
    BUILD.compile_to(ptx, [BUILD.nvcc(), "-std=c++17", "-O3", "--ptx", "-arch=compute_75", ROOT / "kernels/all.cu"])
    entries = re.findall(r"\.entry (\w+)\((.*?)(?=\.entry|\Z)", ptx.read_text("utf-8"), re.DOTALL)
    assert {name for name, body in entries if re.search(r"ld\.\w+\.[us]8", body)} == {"preprocess"}


def test_the_documented_table_is_that_of_ptxas(built: tuple[Path, str]) -> None:
    """Where another nvcc gives other numbers the table is due: python kernels/build.py report."""
    document = (ROOT / "docs/kernels.md").read_text("utf-8")
    if f"release {BUILD.nvcc_release()}" not in document:
        pytest.skip("the table is of another release of nvcc")
    assert BUILD.report(built[1]) in document
