"""The commands that show and measure: demo, eval (in `evaluate`), bench (in `bench`), info."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fieldshot
from fieldshot.cli import bench, evaluate
from fieldshot.cli.console import add_command, print_facts, print_json, progress, shown
from fieldshot.cli.engines import add_engine, add_precision, loading
from fieldshot.cli.places import check_file
from fieldshot.errors import OptionError

if TYPE_CHECKING:
    from fieldshot.backbone import Backbone
    from fieldshot.cli.console import Commands

__all__ = ["register"]


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    demo = add_command(
        commands,
        "demo",
        _demo,
        help="enrol and recognise real photographs, print a table and draw a contact sheet",
        examples="  fieldshot demo\n  fieldshot demo --data pictures/ --backbone mobilenet.fieldshot --out shown/\n",
    )
    demo.add_argument("--data", type=Path, metavar="DIR", help="folder of classes (default: photographs and digits)")
    _add_backbone(demo)
    demo.add_argument("--out", type=Path, default="demo", metavar="DIR", help="for the sheet (default: %(default)s)")
    demo.add_argument("--json", action="store_true", help="print one JSON document")

    evaluate.register(commands)
    bench.register(commands)

    info = add_command(
        commands,
        "info",
        _info,
        help="say what is installed, or what a gallery or a backbone holds",
        examples="  fieldshot info\n  fieldshot info site.gallery\n  fieldshot info --backbone mobilenet.fieldshot\n",
    )
    info.add_argument("gallery", nargs="?", type=Path, metavar="GALLERY")
    _add_backbone(info)
    info.add_argument("--json", action="store_true", help="print one JSON document")


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", type=Path, metavar="BUNDLE", help="bundle to use (default: the embedded one)")
    add_engine(parser)
    add_precision(parser)


def _backbone(arguments: argparse.Namespace) -> Backbone:
    from fieldshot.backbone import Backbone

    with loading(arguments) as options:
        path = arguments.backbone
        return Backbone.default(**options) if path is None else Backbone.load(path, **options)


def _demo(arguments: argparse.Namespace) -> None:
    from fieldshot import demo

    arguments.out.mkdir(parents=True, exist_ok=True)
    check_file(arguments.out / demo.SHEET, demo.MARK)
    backbone = _backbone(arguments)
    with progress("demo") as show:
        result = demo.run(arguments.data, backbone, arguments.out, progress=show)
    if arguments.json:
        print_json({"rows": result.rows, "sheet": result.sheet})
    else:
        print(result.table())
        print(f"contact sheet: {shown(result.sheet)}")


def _info(arguments: argparse.Namespace) -> int:
    if arguments.gallery:
        _check_gallery(arguments)
    facts: dict[str, Any] = _of_gallery(arguments.gallery) if arguments.gallery else _of_backbone(arguments)
    if arguments.json:
        print_json(facts)
    else:
        print_facts(facts)
    return int("error" in facts.get("head", ()))


def _check_gallery(arguments: argparse.Namespace) -> None:
    """Refuse what a gallery has of its own."""
    path: Path = arguments.gallery
    if arguments.backbone or arguments.precision or arguments.engine != "auto":
        raise OptionError(
            "info of a gallery must have no other options (got --backbone, --engine or --precision)",
            hint="a gallery keeps to its own; leave them out, or leave out the gallery",
        )
    if path.suffix == ".fieldshot":
        raise OptionError(f"a gallery must be named (got the bundle {path})", hint=f"info --backbone {path}")


def _of_gallery(path: Path) -> dict[str, object]:
    # Without loading its backbone: the command can say which one it needs when that is gone.
    from fieldshot.gallery import Gallery
    from fieldshot.recognizer.model import Model
    from fieldshot.recognizer.opening import precision_of_gallery, views_of_gallery

    with Gallery.open(path) as gallery:
        counts = gallery.counts()
        head = Model(-1, (), None).advanced(gallery.snapshot()).head
        return {
            "gallery": path,
            "version": gallery.version(),
            "created": gallery.meta["created"],
            "keep_pictures": gallery.keep_pictures,
            "backbone": {name: gallery.meta[name] for name in ("backbone", "bundle", "contract", "dim")},
            "views": views_of_gallery(gallery),
            "precision": precision_of_gallery(gallery),
            "classes": {label: {"pictures": of, "negatives": not_of} for label, (of, not_of) in counts.items()},
            "open_set": {} if head is None else asdict(head.open_set_),
        }


def _of_backbone(arguments: argparse.Namespace) -> dict[str, object]:
    import platform

    return {
        "fieldshot": fieldshot.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backbone": _backbone(arguments).info(),
        "head": _of_head(),
    }


def _of_head() -> dict[str, object]:
    from fieldshot.errors import FieldshotError
    from fieldshot.ops import choose

    try:
        choice = choose()
    except FieldshotError as error:  # to say so is what this command is for
        return {"error": str(error)}
    return {
        "device": choice.ops.name,
        "runs": choice.ops.about,
        "asked": choice.asked,
        "passed over": "; ".join(choice.passed_over) or "nothing",
    }
