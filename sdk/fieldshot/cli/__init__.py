"""The command `fieldshot`: parses, calls the library and prints. No work is done here.

Commands register themselves: those of this package in `gallery` and `measure`, those of others through the
entry point group ``fieldshot.commands``, whose functions ``register(commands)`` call `commands.add_parser(...)`
and set the default ``run``, a function of the parsed arguments that returns an exit code or None.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import fieldshot
from fieldshot.cli import console, gallery, measure
from fieldshot.errors import FieldshotError

__all__ = ["build_parser", "main"]

_EXAMPLES = """\
examples:
  fieldshot demo                                   see it work
  fieldshot enroll site.gallery --from pictures/   one folder a class
  fieldshot enroll site.gallery bolt new/*.jpg     one more class
  fieldshot recognize site.gallery photo.jpg

exit codes: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted
"""

_log = logging.getLogger("fieldshot")


def build_parser() -> argparse.ArgumentParser:
    """Parser of the whole command line, with the commands of installed plug-ins.

    Returns
    -------
    argparse.ArgumentParser
        What it parses holds `run`, a function of the parsed arguments, unless no command was named.
    """
    parser = argparse.ArgumentParser(
        prog="fieldshot",
        description="Enrol new classes from a few pictures and recognise them, on this device.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fieldshot {fieldshot.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    gallery.register(commands)
    measure.register(commands)
    for plugin in entry_points(group="fieldshot.commands"):
        try:
            plugin.load()(commands)
        except Exception as error:  # a broken plug-in must not keep a device from recognising
            _log.warning("command %s cannot be loaded: %s", plugin.name, error)
    console.add_debug(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0 done, 1 an error that was printed, 130 interrupted, 141 the reader of the output went away.

    Raises
    ------
    SystemExit
        For wrong usage (2), ``--help`` and ``--version`` (0).
    """
    console.prepare()
    debug = False
    try:
        parser = build_parser()
        arguments = _parse(parser, argv)
        if "run" not in arguments:
            parser.print_help()
            return 0
        debug = "debug" in arguments
        _log.setLevel(logging.DEBUG if debug else logging.WARNING)
        code: int = arguments.run(arguments) or 0
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        console.complain("interrupted")
        return 130
    except BrokenPipeError:
        # As when `head` has seen enough. Python flushes stdout once more at its end: give that a place to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (FieldshotError, OSError) as error:
        if debug:
            raise
        console.complain(f"error: {error if isinstance(error, FieldshotError) else _described(error)}")
        return 1


def _described(error: OSError) -> str:
    """What the system refused, in the form of fieldshot's own errors."""
    place = "file" if error.filename is None else error.filename
    return (
        f"{place} must be usable (got: {error.strerror or error})."
        " Hint: check the path, your permissions and the free space"
    )


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    arguments, rest = parser.parse_known_args(argv)
    # argparse before Python 3.13 takes what is optional only up to the first option: enroll GALLERY --json LABEL FILES
    if rest and "files" in arguments and not any(word.startswith("-") for word in rest):
        if vars(arguments).get("label", "") is None:
            arguments.label = rest.pop(0)
        arguments.files += map(Path, rest)
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments
