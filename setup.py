"""How fieldshot is built and installed; packages are named one by one, so that no `tests` gets installed."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "sdk/fieldshot/__init__.py").read_text("utf-8"), re.MULTILINE)[1]

BENCH = ["pytest>=8", "pytest-benchmark>=5"]
DEMO = ["scikit-image>=0.22", "scikit-learn>=1.3"]  # for the photographs and digits that they bring along
EXPORT = ["onnx>=1.16", "onnxscript>=0.3", "torch>=2.6"]
TEST = [*BENCH, *DEMO, *EXPORT, "build>=1.2", "hypothesis>=6.100", "pytest-timeout>=2.3", "setuptools>=77"]

setup(
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
        "fieldshot.cli",
        "fieldshot.demo",
        "fieldshot.demo",
        "fieldshot.gallery",
        "fieldshot.head",
        "fieldshot.images",
        "fieldshot.images",
        "fieldshot.ops",
        "fieldshot.recognizer",
        "fieldshot_export",
    ],
    package_data={"fieldshot": ["py.typed"], "fieldshot.backbone": ["default.fieldshot"]},
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
