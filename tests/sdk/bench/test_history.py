"""Results over time, and their page."""

from __future__ import annotations

import dataclasses
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fieldshot.bench.anchors import beside
from fieldshot.bench.drawing import bar, line
from fieldshot.bench.history import Entry, append, change_points, load_history
from fieldshot.bench.page import page
from fieldshot.bench.result import Measured, Result
from fieldshot.errors import MissingFileError, OptionError

Make = Callable[..., Result]


@pytest.fixture
def history(make_result: Make, tmp_path: Path) -> Path:
    """Twelve commits, from the seventh on decoding takes a fifth longer."""
    path = tmp_path / "board.jsonl"
    for number in range(12):
        times = {"decode": 2.0 * (1.2 if number >= 6 else 1), "preprocess": 0.5, "network": 3.0, "predict": 0.1}
        times |= {"recognize": 7.0, "memory": 100.0}
        result = make_result(times, rounds=3, seed=number, commit=f"c{number:03}", when=f"2026-01-{number + 1:02}")
        append(result, path)
    return path


def written(entries: list[Entry], path: Path) -> str:
    page(entries, path)
    return path.read_text("utf-8")


def test_what_was_appended_is_read_oldest_first(history: Path, make_result: Make) -> None:
    append(make_result({"decode": 1.0}, when="2025-01-01", commit="old"), history)
    entries = load_history(history)
    assert [entry.commit for entry in entries][:2] == ["old", "c000"]
    assert entries[1].board == "Orin"
    decode = entries[1].stages["decode"]
    assert decode.low <= decode.cpu <= decode.high
    assert decode.cpu == pytest.approx(2.0, rel=0.02)
    assert decode.p50 == pytest.approx(2.2, rel=0.02)


def test_where_a_gpu_takes_part_the_wall_is_watched(make_result: Make, tmp_path: Path) -> None:
    for number in range(12):
        result = make_result({"recognize": 2.0}, seed=number, commit=f"c{number:03}", when=f"2026-01-{number + 1:02}")
        slow = 1.2 if number >= 6 else 1.0  # in what the GPU does: the processor has no more to do
        rounds = [
            dataclasses.replace(of, wall=[slow * value for value in of.wall], gpu=[0.7 * slow] * 3)
            for of in result.stages[0].rounds
        ]
        facts = {**result.facts, "head": "CUDA, Orin (sm_87)"}
        parts = make_result({"decode": 0.5, "preprocess": 0.1, "network": 1.0, "predict": 0.1}).stages
        append(
            dataclasses.replace(result, facts=facts, stages=[Measured("recognize", "ms", rounds), *parts]),
            tmp_path / "a",
        )
    entries = load_history(tmp_path / "a")
    point = entries[0].stages["recognize"]
    assert point.gpu == pytest.approx(0.7)
    assert entries[0].watched("recognize") == point.p50
    assert point.low <= point.p50 <= point.high
    text = written(entries, tmp_path / "latency.html")
    assert "20 % c006" in text
    assert "ms on the wall" in text
    assert "<td>0.840</td>" in text


def test_histories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        load_history(tmp_path / "none.jsonl")
    for content in (b"", b"{}\n", b"no JSON\n", b"[1]\n", b'{"stages": []}', b"\xff\xd8\xff\xe0\0JFIF"):
        (tmp_path / "a.jsonl").write_bytes(content)
        with pytest.raises(OptionError, match=r"a\.jsonl"):
            load_history(tmp_path / "a.jsonl")


def test_a_line_that_was_cut_off_takes_no_other_along(
    history: Path, make_result: Make, caplog: pytest.LogCaptureFixture
) -> None:
    whole = history.read_bytes()
    history.write_bytes(whole[:-40])
    append(make_result({"decode": 1.0}, commit="next"), history)
    wrong = whole.splitlines()[0].replace(b'"cpu": ', b'"cpu": "x", "p50": ')
    history.write_bytes(history.read_bytes() + wrong + b"\n")
    entries = load_history(history)
    assert len(entries) == 12
    assert "next" in [entry.commit for entry in entries]
    assert "2 of 14 lines left out: line 12: " in caplog.text
    assert "line 14: " in caplog.text


def test_a_history_goes_into_a_pipe(make_result: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    append(make_result({"decode": 1.0}, commit="piped"), tmp_path / "pipe")
    (tmp_path / "history").write_bytes(os.read(reader, 65536))
    os.close(reader)
    assert [entry.commit for entry in load_history(tmp_path / "history")] == ["piped"]


def test_change_points() -> None:
    random = np.random.default_rng(0)

    def series(*levels: float) -> list[float]:
        return [level * float(np.exp(random.normal(0, 0.01))) for level in levels for _ in range(8)]

    assert change_points(series(1, 1.2)) == [8]
    assert change_points(series(1, 1.2, 1)) == [8, 16]
    assert change_points(series(1.2, 1, 1, 1)) == [8]
    assert change_points(series(1, 1.01, 1.02)) == []  # smaller than what is marked
    assert change_points([1, 1, 2]) == []
    assert change_points([1.0] * 7 + [9.0] + [1.0] * 7) == []
    slower = series(1, 1.2)
    assert change_points(slower, [1.0] * 16) == [8]
    assert change_points(slower, slower) == []  # the machine became slower
    assert change_points(series(1, 1), slower) == []  # the workload did
    noise = np.exp(np.random.default_rng(1).normal(0, 0.1, (40, 20)))
    assert sum(bool(change_points(of.tolist())) for of in noise) <= 2


def test_page(history: Path, make_result: Make, tmp_path: Path) -> None:
    other = make_result({"decode": 9.0}, board={"board": "Board <2>"}, commit="<x>")
    append(other, history)
    text = written(load_history(history), tmp_path / "out/latency.html")
    assert text.count("<svg") == 8  # six benchmarks and the parts of a recognition; one benchmark of the other board
    assert "+20 % c006" in text or "+19 % c006" in text or "+21 % c006" in text
    assert "Board &lt;2&gt;" in text
    assert "<x>" not in text
    assert "Coral imprinting" in text
    assert "http" not in text
    assert "the rest" in text


def measured_with(
    make_result: Make, path: Path, commit: str, ms: float, facts: dict[str, object], **engine: str
) -> None:
    """Append a result that was measured with other facts than `make_result` has."""
    result = make_result({"network": ms}, rounds=3, commit=commit, when=f"2026-01-{commit[1:]}")
    backbone = {**result.facts["backbone"], **facts.pop("backbone", {})}
    backbone["engine"] = {"name": "onnxruntime", "version": "1", "provider": "CPUExecutionProvider", **engine}
    append(dataclasses.replace(result, facts={**result.facts, **facts, "backbone": backbone}), path)


def test_what_cannot_be_compared_is_a_series_of_its_own(make_result: Make, tmp_path: Path) -> None:
    others = [
        ({}, {"precision": "float32"}),
        ({}, {"precision": "int8"}),
        ({"backbone": {"name": "other"}}, {"precision": "float32"}),
        ({}, {"precision": "float32", "provider": "CUDAExecutionProvider"}),
        ({}, {"precision": "float32", "name": "tensorrt"}),
        ({"head": "CPU kernels, host-x86_64-v3"}, {"precision": "float32"}),
    ]
    for kind, (facts, engine) in enumerate(others):
        for number in range(2):
            measured_with(make_result, tmp_path / "a", f"c{2 * kind + number + 10}", 1 + kind, {**facts}, **engine)
    entries = load_history(tmp_path / "a")
    assert len({entry.series for entry in entries}) == len(others)
    assert entries[0].series == "Orin, tiny float32 on onnxruntime, heads by NumPy, 1 core"
    assert entries[6].series == "Orin, tiny float32 on onnxruntime with CUDA, heads by NumPy, 1 core"
    text = written(entries, tmp_path / "latency.html")
    assert text.count("<h2>Orin, ") == len(others)
    assert 'class="worse"' not in text


def test_another_version_goes_on_in_the_series_and_is_marked(make_result: Make, tmp_path: Path) -> None:
    for number in range(10, 24):
        version, numpy, contract = ("1", "2.1", "c0") if number < 16 else ("2", "2.2", "c0" if number < 20 else "<c1>")
        ms = 3.0 if number < 16 else 4.0
        facts = {"numpy": numpy, "backbone": {"contract": contract}}
        measured_with(make_result, tmp_path / "a", f"c{number}", ms, facts, version=version)
    text = written(load_history(tmp_path / "a"), tmp_path / "latency.html")
    assert "+33 % c16" in text
    assert "<li>c16: numpy 2.1 -&gt; 2.2; onnxruntime 1 -&gt; 2</li>" in text
    assert "<li>c20: contract c0 -&gt; &lt;c1&gt;</li>" in text
    assert text.count("<li>") == text.count('class="other"') == 2


def test_early_lines_are_read(history: Path, tmp_path: Path) -> None:
    early = []
    for number, text in enumerate(history.read_text().splitlines()):
        document = json.loads(text)
        for name in ("backbone", "precision", "head", "about"):
            del document[name]
        early.append(json.dumps({**document, "engine": f"onnxruntime {1 + number // 6}"}))
    history.write_text("\n".join(early))
    entries = load_history(history)
    assert {entry.series for entry in entries} == {"Orin, onnxruntime, 1 core"}
    assert "<li>c006: onnxruntime 1 -&gt; 2</li>" in written(entries, tmp_path / "latency.html")


def test_a_stage_that_is_measured_no_longer_keeps_its_chart(history: Path, make_result: Make, tmp_path: Path) -> None:
    append(make_result({"decode": 2.4}, commit="c012", when="2026-01-13"), history)
    text = written(load_history(history), tmp_path / "latency.html")
    assert "recognize (not in the latest)" in text
    assert "decode (not" not in text
    assert text.count("<svg") == 6


def test_parts_that_take_more_than_the_whole(make_result: Make, tmp_path: Path) -> None:
    parts = {"decode": 3.0, "preprocess": 0.5, "network": 5.0, "predict": 0.1}
    append(make_result({**parts, "recognize": 6.0}), tmp_path / "a")
    text = written(load_history(tmp_path / "a"), tmp_path / "latency.html")
    assert " ms together, more than the whole" in text
    assert "the rest" not in text
    assert 'class="whole"' in text


def test_ours_beside_what_others_publish(make_result: Make) -> None:
    times = {"network": 3.0, "recognize": 7.0, "enroll": 400.0}
    entry = append(make_result(times), os.devnull)
    rows = {(row[0].split(",")[0], row[1]): row[3:] for row in beside(entry)}
    ours, differs = rows["ResNet-50 INT8", "Orin NX"]
    assert ours.endswith(" ms")
    assert float(ours.split()[0]) == pytest.approx(1.1 * 3, rel=0.02)  # what one waits
    assert differs == entry.network
    ours, _ = rows["Frigate custom classification", "CPU"]
    assert ours.endswith(" s")
    assert float(ours.split()[0]) == pytest.approx(1.1 * 0.4, rel=0.02)
    assert rows["exact search", "RTX 5090"] == ["", ""]
    entry = append(make_result({**times, "network-int8": 1.0}), os.devnull)
    assert [row[4] for row in beside(entry)].count("tiny int8 on onnxruntime") == 5


def test_charts_are_well_formed() -> None:
    (chart,) = (ElementTree.fromstring(line("a<b", "ms", [1, 2], [1, 2], [1, 3], ["x", "y"], [1], ["", "b<c"])),)
    assert chart.find("polyline").get("points").count(",") == 2
    assert "+100 % y" in "".join(chart.itertext())
    assert "y: b<c" in "".join(chart.itertext())
    ElementTree.fromstring(line("one", "ms", [1], [1], [1], ["x"], [], [""]))
    exact, long = (ElementTree.fromstring(bar([("a", 1), ("b", 3)], whole, "ms")) for whole in (4, 3))
    for drawn in (exact, long):
        assert [float(of.get("width")) for of in drawn.iter("rect")] == [180, 540]
    assert exact.find("line") is None
    assert long.find("line").get("x1") == "540.0"
