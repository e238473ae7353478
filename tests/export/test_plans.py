"""What was exported becomes a TensorRT plan, built by the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import pytest

from fieldshot.backbone import Bundle
from fieldshot_export.report import Report

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")

from fieldshot.backbone.tensorrt.building import build


@pytest.mark.parametrize("network", ["residual", "transformer"])
def test_every_precision_of_a_torch_network(network: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(network)
    bundle = Bundle.open(report.path)
    assert {"float32", "float16"} <= set(bundle.precisions)
    for precision in bundle.precisions:
        assert len(build(bundle.read(bundle.network(precision)), 16)) > 1000
