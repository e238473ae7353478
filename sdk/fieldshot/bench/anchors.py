"""Latencies that others publish, on other hardware and for other networks, and ours that answer them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fieldshot.bench.history import Entry

__all__ = ["HEADER", "beside"]

HEADER = ["published", "hardware", "takes", "here", "what differs here"]


class Anchor(NamedTuple):
    """A published latency, the first benchmark of ours that was measured among `stages`, and how that differs."""

    what: str
    hardware: str
    takes: str
    stages: tuple[str, ...]
    differs: str
    unit: str = "ms"


_CORAL = "Coral imprinting, 10 classes x 20 pictures, extract, train and save"
_CLASS = "{network}; one class of the pictures that were given, or of four drawn ones"
_NETWORKS = ("network-int8", "network")
_NETWORK = "{network}"

ANCHORS = [
    Anchor(_CORAL, "Raspberry Pi 4 with Edge TPU", "990 ms", ("enroll",), _CLASS),
    Anchor(_CORAL, "x86 with Edge TPU", "810 ms", ("enroll",), _CLASS),
    Anchor("Frigate custom classification, one training", "CPU", "60 to 180 s", ("enroll",), _CLASS, "s"),
    Anchor(
        "Coral SoftmaxRegression, 1024 samples of 4 or 16 classes, 256 or 1024 dimensions, 500 steps",
        "",
        "no result published",
        ("fit-20way-20shot", "fit-5way-5shot"),
        "closed form in 512 dimensions: {stage}",
    ),
    Anchor(
        "exact search, 10 million x 512, top 5, FP16",
        "RTX 5090",
        "6.8 ms",
        (),
        "",
    ),
    Anchor("ResNet-50 INT8, batch 1, network only (MLPerf)", "AGX Orin", "0.64 ms", _NETWORKS, _NETWORK),
    Anchor("ResNet-50 INT8, batch 1, network only (MLPerf)", "Orin NX", "1.09 ms", _NETWORKS, _NETWORK),
    Anchor("MobileNetV2 INT8, batch 1, network only", "A100, TensorRT 8.4", "0.30 ms", _NETWORKS, _NETWORK),
    Anchor("RF-DETR-nano 384, network only", "Orin Nano", "6.9 ms (145 a second)", _NETWORKS, _NETWORK),
    Anchor("RF-DETR-nano 384, network only", "AGX Orin", "3.5 ms (283 a second)", _NETWORKS, _NETWORK),
    Anchor(
        "RF-DETR-nano 384, end to end at 1080p",
        "Orin Nano",
        "38.8 ms (25.8 a second)",
        ("recognize",),
        "{network}; a picture from its file to its label, without boxes",
    ),
]


def beside(entry: Entry) -> Iterator[list[str]]:
    """A row of each, under `HEADER`; with the medians of what a user waits where the entry has them."""
    for anchor in ANCHORS:
        stage = next((name for name in anchor.stages if name in entry.stages), "")
        ours, differs = "", ""
        if stage:
            ms = entry.stages[stage].p50
            ours = f"{ms / 1000:.3f} s" if anchor.unit == "s" else f"{ms:.3f} ms"
            ran = entry._replace(precision="int8") if stage == "network-int8" else entry
            differs = anchor.differs.format(network=ran.network, stage=stage)
        yield [anchor.what, anchor.hardware, anchor.takes, ours, differs]
