"""The command bench: latency by stage; compared, gated."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshot import __version__
from fieldshot.cli.bench_options import (
    Below,
    add_instructions,
    add_json,
    add_judged,
    add_measured,
    add_runs,
    check_files,
    check_unused,
    pictures,
    stated,
)
from fieldshot.cli.console import add_command, add_debug, print_json, print_table, progress, shown, tell
from fieldshot.errors import FieldshotError

if TYPE_CHECKING:
    from fieldshot.bench import Comparison
    from fieldshot.cli.console import Commands

__all__ = ["SLOWER_CODE", "UNDECIDED_CODE", "register"]

SLOWER_CODE, UNDECIDED_CODE = 3, 4

_CODES = """
exit codes: 0 nothing is slower, 1 could not be measured or compared, 2 wrong usage, 3 slower,
            4 inconclusive and --strict
"""


def register(commands: Commands) -> None:
    """Add the command and those below it."""
    bench = add_command(
        commands,
        "bench",
        _bench,
        help="time each stage of a recognition on this device, compare and gate",
        examples="  fieldshot bench\n"
        "  fieldshot bench --backbone mobilenet.fieldshot --pictures photos/ --json out.json\n"
        "  fieldshot bench compare before.json after.json\n"
        "  fieldshot bench gate --base origin/main\n",
    )
    add_measured(bench)
    add_instructions(bench)
    bench.add_argument("--rounds", type=int, default=3, metavar="N", help="processes (default: %(default)s)")
    bench.add_argument("--cores", type=int, metavar="N", help="cores that they may use (default: all)")
    bench.add_argument("--history", type=Path, metavar="FILE", help="append the result as a line of JSON")
    add_json(bench)
    below = bench.add_subparsers(title="commands", metavar="COMMAND", action=Below)

    compare = add_command(
        below,
        "compare",
        _compare,
        help="judge two results of --json",
        examples="  fieldshot bench compare before.json after.json --markdown summary.md\n" + _CODES,
    )
    compare.add_argument("base", type=Path, metavar="BASE")
    compare.add_argument("head", type=Path, metavar="HEAD")
    add_judged(compare)

    gate = add_command(
        below,
        "gate",
        _gate,
        help="measure base and head in turn, and say which stages became slower",
        examples="  fieldshot bench gate --base origin/main --markdown summary.md --junit gate.xml\n"
        "  fieldshot bench gate --base fieldshot-0.1.0-py3-none-linux_x86_64.whl\n"
        "  fieldshot bench gate --base HEAD --base-backbone old.fieldshot --backbone new.fieldshot\n" + _CODES,
    )
    gate.add_argument("--base", required=True, metavar="REF|WHEEL|JSON", help="a commit, a wheel, or a stored result")
    gate.add_argument("--head", metavar="REF|WHEEL", help="(default: the fieldshot that runs)")
    gate.add_argument("--base-backbone", type=Path, metavar="BUNDLE", help="bundle of base (default: as of head)")
    add_measured(gate)
    add_instructions(gate)
    gate.add_argument(
        "--budget-s",
        type=float,
        default=170.0,
        metavar="S",
        help="seconds after which no further round is begun (default: %(default)s)",
    )
    gate.add_argument("--cores", type=int, default=1, metavar="N", help="that both sides share (default: %(default)s)")
    add_judged(gate)
    gate.set_defaults(default_of=gate.get_default)

    report = add_command(
        below,
        "report",
        _report,
        help="make a page of a history",
        examples="  fieldshot bench --history board.jsonl\n  fieldshot bench report board.jsonl --out latency.html\n",
    )
    report.add_argument("history", type=Path, nargs="+", metavar="FILE", help="that --history wrote")
    report.add_argument("--out", type=Path, default="latency.html", metavar="FILE", help="(default: %(default)s)")

    budget = add_command(
        below,
        "budget",
        _budget,
        help="check what stages may cost on this board",
        examples="  fieldshot bench budget budget.json\n  fieldshot bench budget budget.json --result out.json\n"
        "\nexit codes: 0 kept, 1 could not be measured, 2 wrong usage, 3 broken\n",
    )
    budget.add_argument("budget", type=Path, metavar="FILE", help="JSON: board -> benchmark -> most ms (p95) or MB")
    budget.add_argument("--result", type=Path, metavar="FILE", help="of --json, instead of measuring now")
    add_runs(budget)
    budget.add_argument("--rounds", type=int, default=3, metavar="N", help="processes (default: %(default)s)")
    budget.add_argument("--cores", type=int, metavar="N", help="cores that they may use (default: all)")
    add_json(budget)
    budget.set_defaults(default_of=budget.get_default)
    add_debug(below)


def _bench(arguments: argparse.Namespace) -> None:
    from fieldshot import bench

    check_files(arguments, "bench", inputs=("backbone",))
    with progress("bench") as show:
        result = bench.run(
            arguments.backbone,
            pictures(arguments.pictures),
            suite=arguments.suite,
            rounds=arguments.rounds,
            cores=arguments.cores,
            instructions=arguments.instructions,
            options=stated(arguments),
            progress=show,
            show=tell,
        )
    if arguments.history:
        from fieldshot.bench.history import append

        append(result, arguments.history)
    if arguments.json:
        print_json(result.to_json(), arguments.json)
    if arguments.json == "-":
        return
    backbone = result.facts["backbone"]
    print(f"head on {result.facts['head']}")
    engine = backbone["engine"]
    runs = f"{engine['name']} {engine['precision']}"
    print(f"backbone {shown(backbone['name'])} on {runs}, one picture at a time")
    names = ("stage", "median", "p95", "p99", "processor", "GPU", "unit")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for stage in result.stages:
        of = stage.summary()
        cpu, gpu = (f"{of[clock]:.3f}" if stage.unit == "ms" and of[clock] else "" for clock in ("cpu", "gpu"))
        row = [stage.name, *(f"{of[name]:.3f}" for name in ("p50", "p95", "p99")), cpu, gpu, stage.unit]
        for column, cell in zip(columns.values(), row, strict=True):
            column.append(cell)
    if not any(columns["GPU"]):
        del columns["GPU"]
    if result.instructions:
        columns["instructions"] = [f"{result.instructions.get(name, '')}" for name in columns["stage"]]
    print_table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])
    for name, reason in result.absent.items():
        print(f"{name} left out: {shown(reason)}")


def _compare(arguments: argparse.Namespace) -> int:
    from fieldshot import bench

    check_files(arguments, "comparison", inputs=("base", "head", "thresholds"))
    names = (os.fspath(arguments.base), os.fspath(arguments.head))
    with _failures_told(arguments):
        base, head = map(bench.load_result, names)
        comparison = bench.compare(base, head, thresholds=arguments.thresholds, names=names)
    return _tell(comparison, arguments)


def _gate(arguments: argparse.Namespace) -> int:
    from fieldshot import bench

    check_files(arguments, "comparison", inputs=("base", "head", "thresholds", "backbone", "base_backbone"))
    shared = {
        "bundle": arguments.backbone,
        "pictures": pictures(arguments.pictures),
        "thresholds": arguments.thresholds,
        "instructions": arguments.instructions,
        "options": stated(arguments),
    }
    if arguments.base.endswith(".json"):
        check_unused(
            arguments,
            "a stored base, which says what is measured",
            ("suite", "base_backbone", "head", "budget_s", "cores"),
        )
        names = (arguments.base, f"fieldshot {__version__}, as installed")
        with _failures_told(arguments), progress("bench") as show:
            base = bench.load_result(arguments.base)
            comparison = bench.gate_result(base, names=names, progress=show, show=tell, **shared)
    else:
        with _failures_told(arguments):
            comparison = bench.gate(
                arguments.base,
                arguments.head,
                base_bundle=arguments.base_backbone,
                suite=arguments.suite,
                budget_s=arguments.budget_s,
                cores=arguments.cores,
                show=tell,
                **shared,
            )
    return _tell(comparison, arguments)


@contextmanager
def _failures_told(arguments: argparse.Namespace) -> Iterator[None]:
    """Whoever reads the files that were asked for reads of an error in it too."""
    from fieldshot.bench import summary

    try:
        yield
    except FieldshotError as error:
        markdown, junit, document = summary.failed(error)
        _write(arguments, markdown, junit)
        if arguments.json not in (None, "-"):
            print_json(document, arguments.json)
        raise


def _write(arguments: argparse.Namespace, markdown: str, junit: str) -> None:
    if arguments.markdown:
        with arguments.markdown.open("a", encoding="utf-8") as file:
            file.write(markdown)
    if arguments.junit:
        arguments.junit.write_text(junit, "utf-8")


def _tell(comparison: Comparison, arguments: argparse.Namespace) -> int:
    """Print and write a comparison; the exit code."""
    from fieldshot.bench import deciding, summary

    _write(arguments, summary.markdown(comparison), summary.junit(comparison))
    if arguments.json:
        print_json(summary.to_json(comparison), arguments.json)
    if arguments.json != "-":
        print_table(summary.header(comparison), list(summary.rows(comparison)))
        print(summary.clocks(comparison))
        for line in [*comparison.notes, *(f"{name} left out: {why}" for name, why in comparison.absent.items())]:
            print(shown(line))
        for of in comparison.verdicts:
            if of.advice:
                print(f"{of.name}: {of.advice}")
        print(summary.headline(comparison))
    if comparison.slower:
        return SLOWER_CODE
    undecided = any(of.verdict == deciding.INCONCLUSIVE for of in comparison.verdicts)
    return UNDECIDED_CODE if undecided and arguments.strict else 0


def _report(arguments: argparse.Namespace) -> None:
    from fieldshot.bench.history import load_history
    from fieldshot.bench.page import page

    check_files(arguments, inputs=("history",))
    entries = [entry for path in arguments.history for entry in load_history(path)]
    page(sorted(entries, key=lambda entry: entry.when), arguments.out)
    print(f"report: {shown(arguments.out)}")


def _budget(arguments: argparse.Namespace) -> int:
    from fieldshot import bench
    from fieldshot.bench.board import board_facts
    from fieldshot.bench.budget import PARTS, check, read_budget

    check_files(arguments, "budget", inputs=("budget", "result", "backbone"))
    if arguments.result:
        check_unused(
            arguments,
            "--result",
            ("backbone", "pictures", "engine", "precision", "rounds", "cores"),
        )
    result = bench.load_result(arguments.result) if arguments.result else None
    budget = read_budget(arguments.budget, board_facts() if result is None else result.board)
    if result is None:
        with progress("bench") as show:
            result = bench.run(
                arguments.backbone,
                pictures(arguments.pictures),
                suite=",".join([*budget, *(PARTS if "recognize" in budget else ())]),
                rounds=arguments.rounds,
                cores=arguments.cores,
                options=stated(arguments),
                progress=show,
            )
    checks = check(result, budget)
    if arguments.json:
        document = {"fieldshot": "budget", "checks": [{**of._asdict(), "kept": of.kept} for of in checks]}
        print_json(document, arguments.json)
    if arguments.json != "-":
        print_table(
            ["benchmark", "p95", "allowed", "unit", "kept"],
            [
                [of.name, f"{of.measured:.3f}", f"{of.allowed:.3f}", of.unit, "yes" if of.kept else "no"]
                for of in checks
            ],
        )
        for of in checks:
            if not of.kept:
                where = f", mostly in {of.culprit}" if of.culprit != of.name else ""
                print(f"{of.name} breaks the budget by {of.measured - of.allowed:.3f} {of.unit}{where}")
    return 0 if all(of.kept for of in checks) else SLOWER_CODE
