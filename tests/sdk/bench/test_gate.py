"""Base and head measured in turn, for real but briefly; and results compared."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldshot.bench import compare, gate, gate_result, summary
from fieldshot.bench.board import board_facts
from fieldshot.bench.comparing import Comparison
from fieldshot.bench.deciding import Verdict
from fieldshot.bench.gate import CONTROL, _with_wall, gate_sides, ratios, wall_ratios
from fieldshot.bench.result import Result, clock_of, load_result
from fieldshot.bench.running import chosen
from fieldshot.bench.sides import prepare
from fieldshot.bench.thresholds import read_thresholds
from fieldshot.errors import MeasurementError, MissingFileError, OptionError

Make = Callable[..., Result]

PLANTED = """
from fieldshot_probe import stages
make = stages.STAGES["predict"]
def planted(bench):
    stage = make(bench)
    return stage._replace(step=lambda argument: [stage.step(argument) for _ in range(3)])
stages.STAGES["predict"] = planted
main()
"""


def test_a_slow_down_of_head_is_seen(tiny_bundle: Path, tmp_path: Path) -> None:
    base, head = (prepare(None, tmp_path / name, bundle=tiny_bundle) for name in ("base", "head"))
    told: list[str] = []
    found = gate_sides(
        base, head._replace(entry=PLANTED), chosen(None, tmp_path), suite="predict,memory", show=told.append
    )
    predict, memory = found.verdicts
    assert (predict.name, predict.verdict) == ("predict", "slower")
    assert 2 < predict.ratio < 4
    assert predict.rounds == 6
    assert told[0].startswith("6 rounds, ")
    assert found.times["predict"][1] > 2 * found.times["predict"][0]
    assert memory.verdict in ("level", "inconclusive")
    assert found.slower == [predict]
    assert not list(base.root.glob("work-*"))


def test_what_a_side_does_not_have_is_left_out(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, head = (prepare(None, tmp_path / name, bundle=tiny_bundle) for name in ("base", "head"))
    old = base.root / "fieldshot/head/fewshot.py"
    old.write_text(old.read_text("utf-8").replace("def adapt(", "def look("), "utf-8")
    pictures = chosen(None, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("fieldshot.bench.deciding.MOST", 1)
        patch.setitem(gate_sides.__globals__, "FEWEST", 1)
        patch.setattr("fieldshot.bench.running._per_process", lambda cold, names: {})  # a system that tells no memory
        found = gate_sides(base, head, pictures, suite="predict,adapt,memory")
    assert list(found.absent) == ["adapt", "memory"]
    assert "base: AttributeError" in found.absent["adapt"]
    assert [(of.name, of.verdict) for of in found.verdicts] == [("predict", "inconclusive")]
    with pytest.raises(
        MeasurementError, match=r"6 rounds, or nothing can be decided \(got 0.001 s.*allow it more time"
    ):
        gate_sides(base, head, pictures, suite="predict,adapt", budget_s=1e-3)
    with pytest.raises(MeasurementError, match=r"nothing could be compared \(got adapt: base: AttributeError"):
        gate_sides(base, head, pictures, suite="adapt")
    with pytest.raises(
        MeasurementError, match=r"adapt must run \(got AttributeError: .* in fewshot.py, line.*leave it out"
    ):
        gate_sides(head, base, pictures, suite="predict,adapt")


def test_a_side_that_fails(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    base, head = (prepare(None, tmp_path / name) for name in "ab")
    with pytest.raises(MeasurementError) as failed:
        gate_sides(base, head, [broken], suite="decode")
    assert str(broken) in failed.value.message
    assert "as installed" in failed.value.message
    assert "must run its stages" not in failed.value.message
    with pytest.raises(MeasurementError, match=r"must run its stages \(got: ZeroDivisionError"):
        gate_sides(base._replace(entry="1 / 0"), head, [broken], suite="decode")


def test_what_cannot_be_gated(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a commit of the repository here \(got 'no-such-commit'\).*spelling"):
        gate("no-such-commit")
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(OptionError, match="wheel that can be read"):
        gate(tmp_path / "a.whl")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("other/__init__.py", "")
    with pytest.raises(OptionError, match=r"must hold fieldshot \(got .*other\.whl\)"):
        gate(tmp_path / "other.whl")
    with pytest.raises(OptionError, match="a file or folder"):
        gate(tmp_path)
    side = prepare(None, tmp_path / "side")
    with pytest.raises(OptionError, match="budget_s must be above 0"):
        gate_sides(side, side, [], budget_s=0)
    with pytest.raises(OptionError, match="suite must be one of"):
        gate_sides(side, side, [], suite="all")


def test_sides_of_a_commit_and_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repository/sdk/fieldshot"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = 'old'\n")
    (tmp_path / "repository/kernels").mkdir()
    (tmp_path / "repository/kernels/build.py").write_text("raise SystemExit(1)\n")
    monkeypatch.chdir(tmp_path / "repository")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], check=True)
    (package / "__init__.py").write_text("__version__ = 'not committed'\n")
    side = prepare("HEAD", tmp_path / "base")
    assert "old" in (side.root / "fieldshot/__init__.py").read_text()
    assert side.about.startswith("HEAD (")

    with zipfile.ZipFile(tmp_path / "fieldshot-9.whl", "w") as wheel:
        wheel.writestr("fieldshot/__init__.py", "__version__ = '9'\n")
    side = prepare(tmp_path / "fieldshot-9.whl", tmp_path / "wheel")
    assert "9" in (side.root / "fieldshot/__init__.py").read_text()


def blocks(*cpu: float, reference: float = 1.0) -> list[dict[str, object]]:
    return [{"cpu": [value], "wall": [2 * value, 9.0], "reference": reference} for value in cpu]


def test_ratios_of_a_round_cancel_a_drift_and_bursts() -> None:
    base, head = blocks(*[1, 1.2] * 4), blocks(*[1.1 * 1.2, 1.1] * 3, 1.1 * 1.2, 50)
    found = ratios({"base": {"a": base}, "head": {"a": head}})
    assert math.exp(found["a"]) == pytest.approx(1.1)
    assert found[CONTROL] == 0
    found = ratios({"base": {"a": base}, "head": {"a": blocks(*[1] * 8, reference=1.5)}})
    assert math.exp(found[CONTROL]) == pytest.approx(1.5)


def test_a_wait_that_costs_no_processor_time_is_seen_on_the_wall() -> None:
    samples = {"base": {"a": blocks(1, 3)}, "head": {"a": blocks(2, 4)}}
    assert math.exp(wall_ratios(samples)["a"]) == pytest.approx(2)
    level = Verdict("a", "level", 1.0, 0.99, 1.01, 0.05, 8)
    slower = _with_wall(level, [math.log(2)] * 8, 5)
    assert (slower.verdict, slower.clock) == ("slower", "wall")
    assert _with_wall(level, [math.log(1.1)] * 8, 5) == level


def test_what_a_gpu_does_is_judged_on_the_wall(make_result: Make) -> None:
    base = make_result({"predict": 1.0})
    assert clock_of(base.facts) == "cpu"
    facts = {**base.facts, "head": "CUDA, Orin (sm_87)"}
    waiting = [dataclasses.replace(of, wall=[2 * value for value in of.wall]) for of in base.stages[0].rounds]
    slow = dataclasses.replace(base, stages=[dataclasses.replace(base.stages[0], rounds=waiting)])
    assert compare(base, slow).verdicts[0].verdict == "level"
    found = compare(dataclasses.replace(base, facts=facts), dataclasses.replace(slow, facts=facts)).verdicts[0]
    assert (found.verdict, found.clock) == ("slower", "wall")
    for engine in ({"name": "tensorrt"}, {"name": "onnxruntime", "provider": "CUDAExecutionProvider"}):
        assert clock_of(base.facts, {**base.facts, "backbone": {"engine": engine}}) == "wall"
    assert ratios({"base": {"a": blocks(1)}, "head": {"a": blocks(1)}}, "wall")["a"] == 0


def test_stored_results(make_result: Make, tmp_path: Path) -> None:
    base = make_result({"decode": 2.0, "predict": 0.02, "open": 1.0})
    head = make_result({"decode": 2.3, "predict": 0.02, "memory": 99.0}, seed=1)
    path = tmp_path / "base.json"
    path.write_text(json.dumps(base.to_json()))
    assert load_result(path) == base
    found = compare(load_result(path), head)
    assert {of.name: of.verdict for of in found.verdicts} == {"decode": "slower", "predict": "level"}
    assert found.absent == {"open": "not in head", "memory": "not in base"}
    assert found.notes == []
    other = dataclasses.replace(head, board={**head.board, "governor": "powersave"}, cores=2)
    assert compare(base, other).notes == ["governor differs: None and powersave", "cores differ: 1 and 2"]
    with pytest.raises(MeasurementError, match=r"nothing could be compared \(got decode, predict, open and memory\)"):
        compare(base, make_result({"memory": 99.0}))
    with pytest.raises(OptionError, match="must be of this machine"):
        gate_result(base)


def test_a_result_of_few_rounds_decides_nothing_without_a_reason(
    make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_result({"decode": 2.0}, rounds=1)
    assert compare(one, one).verdicts[0].verdict == "inconclusive"
    quick, slow = (make_result({"decode": ms}, rounds=1).stages[0].rounds[0] for ms in (2.0, 3.0))
    two = dataclasses.replace(one, stages=[dataclasses.replace(one.stages[0], rounds=[quick, slow])])
    (found,) = compare(two, make_result({"decode": 2.0}, rounds=10)).verdicts
    assert (found.verdict, found.rounds, found.advice) == ("inconclusive", 2, "at least 6 rounds")
    few = dataclasses.replace(make_result({"decode": 2.0}, rounds=5), board=board_facts())
    with pytest.raises(OptionError, match=r"must have 6 rounds of each benchmark \(got 5\).*--rounds 10 --cores 1"):
        gate_result(few)
    monkeypatch.setattr("fieldshot.bench.comparing.run", None)
    enough, other = (dataclasses.replace(make_result({"decode": 2.0}), board=board_facts()) for _ in range(2))
    other.facts["pictures"] = "drawn"
    with pytest.raises(OptionError, match=r"of the same pictures \(got drawn, here 1 files, digest [0-9a-f]{12}\)"):
        gate_result(other, pictures=[Path("a.png")])
    assert "pictures differs: drawn and None" in compare(other, enough).notes
    with pytest.raises(MissingFileError, match="thresholds must lie in a file"):
        gate_result(enough, thresholds="none.json")


def test_engines_that_differ_are_named_in_short(make_result: Make) -> None:
    base = make_result({"decode": 2.0})

    def on(**engine: str) -> Result:
        backbone = {**base.facts["backbone"], "engine": engine}
        return dataclasses.replace(base, facts={**base.facts, "backbone": backbone})

    known = {"name": "onnxruntime", "version": "1", "precision": "float32"}
    long = {"passed over": "tensorrt: " + 200 * "x"}
    assert compare(on(**known), on(**known, **long)).notes == []
    (note,) = compare(on(**known), on(**{**known, **long, "precision": "int8"})).notes
    assert note == "the engines differ: onnxruntime 1 float32 and onnxruntime 1 int8"


def test_a_stored_base_of_this_machine(make_result: Make, tiny_bundle: Path) -> None:
    base = dataclasses.replace(make_result({"predict": 1e-6}), board=board_facts())
    found = gate_result(base, bundle=tiny_bundle, rounds=3)
    assert [of.name for of in found.verdicts] == ["predict"]
    assert found.verdicts[0].ratio > 2
    assert "the backbones differ" in found.notes


def test_a_reference_that_took_longer_decides_no_time(make_result: Make) -> None:
    def drifted(result: Result, times: float) -> Result:
        stages = [
            dataclasses.replace(
                of, rounds=[dataclasses.replace(each, reference_ms=times * each.reference_ms) for each in of.rounds]
            )
            for of in result.stages
        ]
        return dataclasses.replace(result, stages=stages)

    base, head = make_result({"decode": 2.0, "memory": 80.0}), make_result({"decode": 4.0, "memory": 99.0}, seed=1)
    assert [of.verdict for of in compare(base, drifted(head, 1.03)).verdicts] == ["slower", "slower"]
    for times in (1.2, 1 / 1.2):
        found = compare(base, drifted(head, times))
        assert [of.verdict for of in found.verdicts] == ["inconclusive", "slower"]
        assert "in turn" in found.verdicts[0].advice
        assert found.notes == [f"the reference workload took {times:.2f} times as long beside head: no time is decided"]


def test_files_that_are_no_results(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        load_result(tmp_path / "none.json")
    for text, told in (("{", "must be JSON"), ("{}", "must be a result"), ('{"format": 99}', "must be of format 1")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(OptionError, match=told):
            load_result(tmp_path / "a.json")


def test_results_that_are_damaged(make_result: Make, tmp_path: Path) -> None:
    whole = json.dumps(make_result({"decode": 2.0}, rounds=1).to_json())
    for place, value in (
        (("stages", 0, "rounds"), []),
        (("stages", 0, "rounds", 0, "wall"), "x"),
        (("stages", 0, "rounds", 0, "wall"), []),
        (("stages", 0, "rounds", 0, "cpu"), [0, 0]),
        (("stages", 0, "rounds", 0, "cpu"), [None]),
        (("stages", 0, "rounds", 0, "reference_ms"), -1),
        (("stages", 0, "name"), 3),
        (("facts", "backbone"), "x"),
        (("facts", "head"), None),
        (("board",), []),
        (("cores",), "1"),
    ):
        document = json.loads(whole)
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (tmp_path / "a.json").write_text(json.dumps(document))
        with pytest.raises(OptionError, match="must be a result of"):
            load_result(tmp_path / "a.json")


def test_thresholds(tmp_path: Path) -> None:
    assert read_thresholds(["decode", "cold"]) == {"decode": 0.05, "cold": 0.15}
    path = tmp_path / "thresholds.json"
    path.write_text('{"decode": 0.2}')
    assert read_thresholds(["decode", "cold"], path) == {"decode": 0.2, "cold": 0.15}
    path.write_text('{"": 0.1, "decode": 0.2}')
    assert read_thresholds(["decode", "cold"], path) == {"decode": 0.2, "cold": 0.1}
    for text in ("[]", '{"decode": 0}', '{"decode": 5}', '{"decode": true}', '{"decode": "5 %"}', "{"):
        path.write_text(text)
        with pytest.raises(OptionError, match=r"thresholds\.json"):
            read_thresholds(["decode"], path)
    path.write_text('{"recognise": 0.5, "decode": 0.1}')
    with pytest.raises(OptionError, match=r"must name benchmarks \(got 'recognise'\)"):
        read_thresholds(["decode"], path)
    with pytest.raises(MissingFileError):
        read_thresholds(["decode"], tmp_path / "none.json")


def test_board_of_a_jetson(tmp_path: Path) -> None:
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
        "proc/cpuinfo": "processor : 0\nmodel name : ARMv8\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "var/lib/nvpmodel/status": "pmode:0003\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    facts = board_facts(tmp_path)
    assert facts["board"] == "NVIDIA Jetson Orin Nano"
    assert (facts["governor"], facts["clock_mhz"], facts["gpu_clock_mhz"]) == ("schedutil", 1510.4, 624.8)
    assert (facts["power_mode"], facts["temperature_c"]) == ("pmode:0003", {"cpu-thermal": 48.3})
    assert "clock_max_mhz" not in facts
    assert "governor" not in board_facts(tmp_path / "empty")


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        base="main (123)",
        head="fieldshot 0.1.0, as installed",
        verdicts=[
            Verdict("decode", "slower", 1.12, 1.06, 1.18, 0.05, 8),
            Verdict("predict", "level", 1.0, 0.98, 1.02, 0.05, 8),
            Verdict("enroll", "inconclusive", 1.03, 0.9, 1.2, 0.05, 20, "about 40 rounds"),
        ],
        took_s=60.0,
        times=dict.fromkeys(("decode", "predict", "enroll"), (1.0, 1.1, "ms")),
        absent={"open": "base: AttributeError: <lambda>"},
        notes=["numpy differs: 1 and 2"],
        board={"cpu": "A78"},
    )


def test_markdown(comparison: Comparison) -> None:
    text = summary.markdown(comparison)
    assert text.startswith("### Latency: decode slower; enroll inconclusive; 1 of 3 level or faster.\n")
    assert "| decode | 1.000 ms | 1.100 ms | +12.0 | +6.0 to +18.0 | 5 | 8 | **slower** |" in text
    assert "- numpy differs: 1 and 2" in text
    assert "- enroll is inconclusive; what would settle it: about 40 rounds" in text
    assert "A78" in text


def test_junit(comparison: Comparison) -> None:
    (suite,) = ElementTree.fromstring(summary.junit(comparison))
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }
    decode, predict, enroll = suite
    assert "1.120 times as long" in decode.find("failure").get("message")
    assert predict.find("failure") is None
    assert "about 40 rounds" in enroll.find("skipped").get("message")


def test_the_probe_needs_no_test_tools(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('pytest', 'matplotlib', 'torch', 'sklearn')));"
        "import fieldshot.bench, fieldshot.bench.probe.worker"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
