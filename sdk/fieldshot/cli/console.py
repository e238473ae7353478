"""How the command line talks: text for people, JSON for programs, progress and complaints on stderr."""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import category, combining, east_asian_width

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Run = Callable[[argparse.Namespace], int | None]

__all__ = [
    "add_command",
    "add_debug",
    "complain",
    "prepare",
    "print_facts",
    "print_json",
    "print_table",
    "progress",
    "shown",
    "tell",
]

_UNSAFE = ("Cc", "Cs", "Zl", "Zp")  # control characters, undecodable bytes, line breaks


def prepare() -> None:
    """Let stdout and stderr write any text, whatever the locale, and send the library's log to stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="fieldshot: %(levelname)s: %(message)s")


def add_command(commands: Commands, name: str, run: Run, *, help: str, examples: str) -> argparse.ArgumentParser:
    """Add a command whose help ends with examples; the caller adds its arguments."""
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_debug(commands: Commands) -> None:
    """Add --debug to all commands there are, whoever registered them; below one that has it too, either will do."""
    for command in commands.choices.values():
        command.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="log more, and show where an error arose",
        )


def shown(text: str | os.PathLike[str]) -> str:
    """Text that is safe to print on one line: control characters and undecodable bytes are escaped."""
    return "".join(ascii(c)[1:-1] if category(c) in _UNSAFE else c for c in os.fspath(text))


def complain(message: str) -> None:
    """Print one line on stderr."""
    print(f"fieldshot: {shown(message)}", file=sys.stderr)


def _plain(value: Any) -> Any:
    """Turn a value into what JSON has: arrays into lists, dataclasses into objects, not-a-number into null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and scalars
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(document: Any, file: str | os.PathLike[str] = "-") -> None:
    """Print one JSON document to a file, or to stdout for ``-``."""
    text = json.dumps(_plain(document), indent=2, allow_nan=False)
    if file == "-":
        print(text)
    else:
        with open(file, "w", encoding="utf-8") as out:
            print(text, file=out)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> None:
    """Print columns: the first `words` of them to the left, the others, which are numbers, to the right."""
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = []
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - _width(cell))
            cells.append(cell + gap if column < words else gap + cell)
        print("  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line; those of a mapping among them indented, and what is deeper on one line."""
    for name, value in facts.items():
        if not isinstance(value, Mapping):
            print(f"{shown(name) + ' ':18}{_inline(value)}")
            continue
        print(shown(name))
        for part, item in value.items():
            print(f"  {shown(part) + ' ':16}{_inline(item)}")


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(item)}" for name, item in value.items())
    return shown(str(value))


def tell(line: str) -> None:
    """Print a line on stderr, above the bar of `progress`."""
    from tqdm import tqdm

    tqdm.write(shown(line), sys.stderr)


@contextmanager
def progress(what: str, *, smoothing: float = 0.3) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on stderr, if that is a terminal, once the step lasts more than a second.

    Parameters
    ----------
    what : str
        Name of the step.
    smoothing : float
        The remaining time goes by the average speed so far (0) up to the latest (1).

    Yields
    ------
    callable
        To be called as ``show(done, total)``; total is None where nobody knows it.
    """
    from tqdm import tqdm

    with tqdm(desc=what, delay=1, leave=False, disable=None, smoothing=smoothing) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
