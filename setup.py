"""How fieldshot is built and installed; packages are named one by one, so that no `tests` gets installed."""

import re
import sys
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "kernels"))

import build as kernels  # noqa: E402 (kernels/build.py)


class BuildKernels(Command):
    """Compile the kernels for this machine's CPU and, into wheels, for GPUs; without a compiler NumPy serves."""

    description = "compile the kernels"
    user_options = ()
    editable_mode = False  # set by setuptools

    def initialize_options(self) -> None:
        """Start without a folder."""
        self.build_lib = None

    def finalize_options(self) -> None:
        """Take the folder that packages are built in."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Put sources and libraries where fieldshot.ops.sources looks for them."""
        out = kernels.PACKAGE if self.editable_mode else Path(self.build_lib, "fieldshot/kernels")
        try:
            kernels.build_host(out)
        except kernels.CompileError as error:
            self.warn(f"heads will compute with NumPy; to mend it apt install g++ and install again. {error}")
        if not self.editable_mode:
            try:
                kernels.build_cuda(out)[0].with_suffix(".log").unlink()
            except kernels.CompileError as error:
                self.warn(f"CUDA devices will compile the kernels with their own nvcc. {error}")

    def get_source_files(self) -> list[str]:
        """For the source archive, which MANIFEST.in fills."""
        return []

    def get_outputs(self) -> list[str]:
        """What `run` wrote, for the wheel."""
        folder = Path(self.build_lib, "fieldshot/kernels")
        return [str(path) for path in folder.glob("*")]

    def get_output_mapping(self) -> dict[str, str]:
        """Nothing in an editable install stands for another file."""
        return {}


class Wheel(bdist_wheel):
    """A wheel for this kind of machine and any Python: its libraries are loaded through ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        """No Python version, no ABI."""
        return "py3", "none", super().get_tag()[2]


class Binary(Distribution):
    """A distribution with libraries in it."""

    def has_ext_modules(self) -> bool:
        """Though none is a module."""
        return True


build.sub_commands = [*build.sub_commands, ("build_kernels", None)]

VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "sdk/fieldshot/__init__.py").read_text("utf-8"), re.MULTILINE)[1]

BENCH = ["faiss-cpu>=1.8", "pytest>=8", "pytest-benchmark>=5"]  # faiss: exact search, as a yardstick
DEMO = ["scikit-image>=0.22", "scikit-learn>=1.3"]  # for the photographs and digits that they bring along
EVAL = ["matplotlib>=3.7", "scikit-learn>=1.3"]  # the figures and the baselines of `fieldshot eval`
EXPORT = ["onnx>=1.16", "onnxscript>=0.3", "torch>=2.6"]
# Builds plans without a GPU; NVIDIA has no wheels of it for other machines.
RTX = ["tensorrt-rtx>=1.7,<2; platform_machine == 'x86_64'"]
PLUGINS = ["pytest-timeout>=2.3", "pytest-xdist>=3.5"]
TEST = [*BENCH, *DEMO, *EVAL, *EXPORT, *RTX, *PLUGINS, "build>=1.2", "hypothesis>=6.100", "setuptools>=77"]

setup(
    distclass=Binary,
    cmdclass={"bdist_wheel": Wheel, "build_kernels": BuildKernels},
    name="fieldshot",
    version=VERSION,
    description="On-device few-shot image recognition: enrol new classes from a few pictures, on the spot.",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    package_dir={"": "sdk", "fieldshot_export": "export/fieldshot_export"},
    packages=[
        "fieldshot",
        "fieldshot.backbone",
        "fieldshot.backbone.tensorrt",
        "fieldshot.bench",
        "fieldshot.bench.probe",
        "fieldshot.cli",
        "fieldshot.demo",
        "fieldshot.device",
        "fieldshot.evaluation",
        "fieldshot.evaluation.report",
        "fieldshot.gallery",
        "fieldshot.head",
        "fieldshot.images",
        "fieldshot.ops",
        "fieldshot.recognizer",
        "fieldshot_export",
    ],
    package_data={
        "fieldshot": ["py.typed"],
        "fieldshot.backbone": ["default.fieldshot"],
        "fieldshot.bench": ["thresholds.json"],
    },
    include_package_data=False,  # nothing but what package_data names
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.24,<3",
        "onnxruntime>=1.17,<2",
        "pillow>=11.3",  # the first that reads AVIF
        "safetensors>=0.4.3,<1",
        "tqdm>=4.62,<5",
    ],
    extras_require={
        "bench": BENCH,
        "cuda": ["pycuda>=2024.1"],
        "demo": DEMO,
        "dev": [*TEST, "mypy>=1.11", "ruff>=0.9"],
        "eval": EVAL,
        "export": EXPORT,
        "serve": [],  # the enrolment page needs nothing beyond Python itself
        "tensorrt": ["tensorrt>=10.3,<12"],  # 10.3 is JetPack 6; 11 dropped what fieldshot does not use
        "test": TEST,
    },
    entry_points={
        "console_scripts": ["fieldshot = fieldshot.cli:main"],
        "fieldshot.commands": ["export = fieldshot_export.command:register"],
    },
)
