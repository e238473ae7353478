"""Plans built by the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from bundles import tiny_onnx
from fieldshot.errors import EngineError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")

from fieldshot.backbone.tensorrt.building import _Monitor, build
from fieldshot.backbone.tensorrt.library import LOGGER, _Logger, refusals, trt

ROOT = Path(__file__).resolve().parents[3]


def test_a_network_becomes_a_plan_and_says_how_far_it_is() -> None:
    shares: list[float] = []
    plan = build(tiny_onnx(), 4, shares.append)
    assert len(plan) > 1000
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5 < shares[-1] <= 1


def test_what_progress_raises_ends_the_build() -> None:
    def cancel(share: float) -> None:
        if share > 0.1:
            raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        build(tiny_onnx(), 1, cancel)


def test_control_c_ends_the_build_wherever_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt("pressed")

    for owner, method in ((_Monitor, "_start"), (_Monitor, "_step"), (_Logger, "_take")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, interrupted)
            with pytest.raises(KeyboardInterrupt, match="pressed"):
                build(tiny_onnx(), 1)
    assert build(tiny_onnx(), 1)


def test_a_run_in_another_thread_does_not_take_away_what_was_refused() -> None:
    with refusals() as ours:
        LOGGER.log(trt.ILogger.Severity.ERROR, "no memory")
        with refusals() as theirs:
            assert list(theirs) == []
        assert list(ours) == ["no memory"]


def test_a_network_that_cannot_be_read() -> None:
    with pytest.raises(EngineError, match=r"TensorRT-RTX .* must read the network \(got: .+\)\. Hint: .*onnxruntime"):
        build(b"no network", 1)


def test_the_node_that_cannot_be_read_is_named() -> None:
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 8, 8])
    target = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("Unheard", ["input"], ["strange"], name="the-odd-one", domain="elsewhere"),
        helper.make_node("ReduceMean", ["strange"], ["embedding"], axes=[2, 3], keepdims=0),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    model = helper.make_model(helper.make_graph(nodes, "odd", [source], [target]), opset_imports=opsets, ir_version=8)
    with pytest.raises(EngineError, match=r"node 'the-odd-one' \(Unheard\)"):
        build(model.SerializeToString(), 1)
