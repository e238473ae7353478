"""The folder of `eval --out`: finished rows, result, page and figures, in the place of those of an earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshot.cli.console import print_json
from fieldshot.cli.places import check_document, check_file
from fieldshot.errors import MissingDependencyError

if TYPE_CHECKING:
    from fieldshot.evaluation import Row

__all__ = ["KIND", "ROWS", "check", "left_out", "write"]

KIND = "evaluation"
"""What a result says that it is."""

ROWS = "rows.jsonl"
"""Name of the file of finished rows."""

_RESULT, _PAGE = "result.json", "report.html"


def check(folder: Path) -> None:
    """Make the folder, and refuse it where something in it could not be written or is no earlier run's."""
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "matplotlib must be installed for a report (got no such package)",
            hint="pip install 'fieldshot[eval]', or leave out --out",
        )
    from fieldshot.evaluation.report import MARK

    folder.mkdir(parents=True, exist_ok=True)
    check_file(folder / ROWS, b'{"key": ')
    check_document(folder / _RESULT, KIND)
    check_file(folder / _PAGE, MARK)


def write(rows: Sequence[Row], document: Mapping[str, Any], folder: Path) -> Path:
    """Write a report in the place of an earlier one, of which the figures go that this one does not have: its page."""
    from fieldshot.evaluation import report

    earlier = _figures_of(folder / _RESULT)
    figures = [path.name for path in report.figures(rows, folder)]
    print_json({**document, "figures": figures}, folder / _RESULT)
    report.page(rows, folder / _PAGE)
    for name in earlier.difference(figures):
        (folder / name).unlink(missing_ok=True)
    return folder / _PAGE


def left_out(rows: Sequence[Row], folder: Path) -> list[str]:
    """Names of data that were measured into the folder before and that none of these rows is of."""
    from fieldshot.evaluation import Journal

    now = {row.data for row in rows}
    return sorted({row.data for row in Journal(folder / ROWS).rows()} - now)


def _figures_of(result: Path) -> set[str]:
    """Names of the figures beside a result, as it says: nothing else in their folder was written here."""
    try:
        names = json.loads(result.read_bytes())["figures"]
        return {name for name in names if Path(name).name == name and name.endswith(".png")}
    except (OSError, ValueError, LookupError, TypeError):  # there is none, or it is something else
        return set()
