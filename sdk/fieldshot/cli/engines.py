"""The options that say what runs the network, and the wait for a plan."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fieldshot.cli.console import progress

__all__ = ["add_engine", "add_precision", "loading"]


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add --engine."""
    parser.add_argument(
        "--engine",
        choices=("auto", "onnxruntime", "tensorrt"),
        default="auto",
        help="what runs the network (default: auto, TensorRT where it and a CUDA device are there, else ONNX Runtime)",
    )


def add_precision(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add --precision, with more of argparse's options."""
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        **options,
        help="which of the bundle's networks runs; embeddings of different precisions do not mix (default: float32, or "
        "the gallery's)",
    )


@contextmanager
def loading(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The arguments of `Backbone.load` that these options make, with a bar while a plan is built."""
    with progress("TensorRT plan, built once") as show:
        stated = {name: getattr(arguments, name, None) for name in ("engine", "precision")}
        yield {"progress": show, **{name: value for name, value in stated.items() if value is not None}}
