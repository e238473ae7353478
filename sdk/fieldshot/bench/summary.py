"""A comparison told: as lines of a table, as Markdown for a pull request, as JUnit XML for a CI server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from fieldshot.bench.comparing import Comparison
from fieldshot.bench.deciding import INCONCLUSIVE, SLOWER, Verdict

__all__ = ["clocks", "failed", "header", "headline", "junit", "markdown", "rows", "to_json"]

_HEADER = ["benchmark", "base", "head", "change %", "interval", "threshold %", "rounds", "verdict"]


def headline(comparison: Comparison) -> str:
    """What came of it, in one sentence."""
    names = {kind: [of.name for of in comparison.verdicts if of.verdict == kind] for kind in (SLOWER, INCONCLUSIVE)}
    decided = len(comparison.verdicts) - sum(map(len, names.values()))
    nothing = "Nothing is slower" if decided else "Nothing can be told"
    parts = [f"{', '.join(names[SLOWER])} slower" if names[SLOWER] else nothing]
    if names[INCONCLUSIVE]:
        parts.append(f"{', '.join(names[INCONCLUSIVE])} inconclusive")
    return f"{'; '.join(parts)}; {decided} of {len(comparison.verdicts)} level or faster."


def clocks(comparison: Comparison) -> str:
    """What the columns are of."""
    over = " over that of the reference workload" if comparison.stored else ""
    return f"Medians on the wall; changes and verdicts on processor time{over}, unless they say other."


def header(comparison: Comparison) -> list[str]:
    """What stands over `rows`."""
    return [*_HEADER, "instructions %"] if comparison.instructions else _HEADER


def rows(comparison: Comparison) -> Iterator[list[str]]:
    """A line of each benchmark, under `header`."""
    for of in comparison.verdicts:
        base, head, unit = comparison.times[of.name]
        row = [
            of.name,
            f"{base:.3f} {unit}",
            f"{head:.3f} {unit}",
            f"{100 * (of.ratio - 1):+.1f}",
            f"{100 * (of.low - 1):+.1f} to {100 * (of.high - 1):+.1f}",
            f"{100 * of.threshold:.0f}",
            str(of.rounds),
            f"{of.verdict} on the wall" if of.clock == "wall" else of.verdict,
        ]
        yield [*row, _instructions(comparison, of.name)] if comparison.instructions else row


def markdown(comparison: Comparison) -> str:
    """For a pull request."""
    lines = [
        f"### Latency: {headline(comparison)}",
        "",
        f"{comparison.head} against {comparison.base}.",
        "",
        f"| {' | '.join(header(comparison))} |",
        "|---" * len(header(comparison)) + "|",
    ]
    for row in rows(comparison):
        cells = [f"**{cell}**" if cell.startswith(SLOWER) else cell.replace("|", "/") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    told = [*comparison.notes, *(f"{name} left out: {reason}" for name, reason in comparison.absent.items())]
    told += [f"{of.name} is inconclusive; what would settle it: {of.advice}" for of in comparison.verdicts if of.advice]
    if told:
        lines += ["", *(f"- {line}" for line in told)]
    board = ", ".join(str(comparison.board[name]) for name in ("board", "cpu", "governor") if name in comparison.board)
    took = f"; {comparison.took_s:.0f} s" if comparison.took_s else ""
    lines += ["", f"{clocks(comparison)} {board}{took}."]
    return "\n".join(lines) + "\n"


def junit(comparison: Comparison) -> str:
    """One test a benchmark: slower is a failure, inconclusive is skipped."""
    failures = len(comparison.slower)
    skipped = sum(of.verdict == INCONCLUSIVE for of in comparison.verdicts)
    cases = "".join(_case(of, _instructions(comparison, of.name)) for of in comparison.verdicts)
    counts = f'tests="{len(comparison.verdicts)}" failures="{failures}" errors="0" skipped="{skipped}"'
    return _testsuite(f'{counts} time="{comparison.took_s:.3f}"', cases)


def failed(error: Exception) -> tuple[str, str, dict[str, Any]]:
    """As `markdown`, `junit` and `to_json`, where nothing came of it: what an earlier run wrote must not stay."""
    case = _testcase("gate", f"<error message={quoteattr(str(error))}/>")
    return (
        f"### Latency: not compared\n\n{error}\n",
        _testsuite('tests="1" failures="0" errors="1" skipped="0"', case),
        {"fieldshot": "comparison", "failed": str(error)},
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """For programs."""
    document: dict[str, Any] = {"fieldshot": "comparison", **asdict(comparison)}
    document["verdicts"] = [of._asdict() for of in comparison.verdicts]
    document["headline"] = headline(comparison)
    return document


def _instructions(comparison: Comparison, name: str) -> str:
    """By how much per cent those of head are more; empty where they were not counted."""
    base, head = comparison.instructions.get(name, (0, 0))
    return f"{100 * (head / base - 1):+.2f}" if base else ""


def _testsuite(counts: str, cases: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<testsuites><testsuite name="fieldshot bench" {counts}>\n{cases}</testsuite></testsuites>\n'
    )


def _testcase(name: str, inside: str) -> str:
    return f'  <testcase classname="fieldshot.bench" name={quoteattr(name)}>{inside}</testcase>\n'


def _case(of: Verdict, instructions: str) -> str:
    told = f"{of.ratio:.3f} times as long, {of.low:.3f} to {of.high:.3f}, threshold {1 + of.threshold:.2f}"
    if instructions:
        told += f", instructions {instructions} %"
    inside = ""
    if of.verdict == SLOWER:
        inside = f"<failure message={quoteattr(f'slower: {told}')}/>"
    elif of.verdict == INCONCLUSIVE:
        inside = f"<skipped message={quoteattr(f'inconclusive: {told}; {of.advice}')}/>"
    return _testcase(of.name, f"{inside}<system-out>{escape(f'{of.verdict}: {told}')}</system-out>")
