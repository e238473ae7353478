"""Options that the commands of bench share, and what is refused before anything is measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fieldshot.cli.engines import add_engine, add_precision
from fieldshot.cli.places import check_apart, check_document, check_file, check_text
from fieldshot.errors import OptionError

if TYPE_CHECKING:
    _SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    _SubParsers = argparse._SubParsersAction

__all__ = [
    "Below",
    "add_instructions",
    "add_json",
    "add_judged",
    "add_measured",
    "add_runs",
    "check_files",
    "check_unused",
    "pictures",
    "stated",
]


class Below(_SubParsers):
    """Commands below one that has options of its own, which must not stand before theirs: nothing would read them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Parse what is left with the command's own parser."""
        for action in parser._actions:
            if action.dest != "debug" and getattr(namespace, action.dest, action.default) != action.default:
                parser.error(f"{action.option_strings[-1]} must stand after {values[0]}, if that has it")
        super().__call__(parser, namespace, values, option_string)


def add_measured(parser: argparse.ArgumentParser) -> None:
    """Add what is measured."""
    add_runs(parser)
    parser.add_argument(
        "--suite",
        default="default",
        metavar="NAME",
        help="quick, default, full, or benchmarks between commas (default: %(default)s)",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the backbone, the pictures, and what runs them."""
    parser.add_argument("--backbone", type=Path, metavar="BUNDLE", help="bundle to use (default: the embedded one)")
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="folder of pictures, or of classes (default: drawn ones)"
    )
    add_engine(parser)
    add_precision(parser)


def add_instructions(parser: argparse.ArgumentParser) -> None:
    """Add --instructions."""
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count those of a call of each stage too, by valgrind: minutes where a network runs",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON to a file (default: print it)")


def add_judged(parser: argparse.ArgumentParser) -> None:
    """Add how it is judged, and where that is told."""
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help="JSON: benchmark -> change that is level still")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="append a summary for a pull request")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--strict", action="store_true", help="exit with 4 where something is inconclusive")
    add_json(parser)


def pictures(folder: Path | None) -> list[Path] | None:
    """Of a folder, or of its classes, if one was named."""
    from fieldshot import images
    from fieldshot.errors import PictureError

    if folder is None:
        return None
    try:
        return images.find(folder)
    except PictureError as error:
        try:
            return [path for of in images.find_classes(folder).values() for path in of]
        except PictureError:
            raise error from None


def stated(arguments: argparse.Namespace) -> dict[str, str]:
    """Engine and precision, where they were stated: a version that knows neither is measured too."""
    engine = {} if arguments.engine == "auto" else {"engine": arguments.engine}
    return engine if arguments.precision is None else {**engine, "precision": arguments.precision}


def check_files(arguments: argparse.Namespace, kind: str = "", *, inputs: tuple[str, ...] = ()) -> None:
    """Refuse files that cannot be written, that hold something else, that are read, or that are named twice.

    Parameters
    ----------
    arguments : argparse.Namespace
    kind : str
        Of the JSON document, as for `check_document`.
    inputs : tuple of str
        Names of the arguments that are read; None and lists of paths among them too.
    """
    from fieldshot.bench.page import MARK

    others: list[Path] = []
    for name in inputs:
        value = getattr(arguments, name)
        others += [] if value is None else map(Path, value if isinstance(value, list) else [value])
    outputs = {
        name: Path(path)
        for name in ("json", "junit", "markdown", "out", "history")
        if name not in inputs and (path := getattr(arguments, name, None)) not in (None, "-")
    }
    for name, path in outputs.items():
        if path == Path():  # what an empty word becomes
            raise OptionError(f"--{name} must name a file (got an empty name)", hint="is the variable set?")
        check_apart(path, others)
        others.append(path)
    if "json" in outputs:
        check_document(outputs["json"], kind)
    if "junit" in outputs:
        check_file(outputs["junit"], b"<testsuite")
    if "markdown" in outputs:
        check_text(outputs["markdown"])
    if "out" in outputs:
        check_file(outputs["out"], MARK)
    if "history" in outputs:
        check_file(outputs["history"], b'{"when": ', appended=True)


def check_unused(arguments: argparse.Namespace, because: str, names: Sequence[str]) -> None:
    """Refuse options that differ from their defaults, which ``arguments.default_of`` tells: nothing would read them."""
    for name in names:
        if getattr(arguments, name) != arguments.default_of(name):
            option = f"--{name.replace('_', '-')}"
            raise OptionError(f"{option} must be left out beside {because} (got {getattr(arguments, name)})")
