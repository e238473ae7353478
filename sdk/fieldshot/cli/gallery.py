"""The commands on a gallery: enroll, recognize, reject, forget, undo, history, rollback, report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fieldshot.cli.console import add_command, complain, print_json, print_table, progress, shown
from fieldshot.cli.engines import add_engine, add_precision, loading
from fieldshot.errors import FieldshotError, GalleryError, MissingFileError, OptionError, PictureError

if TYPE_CHECKING:
    from fieldshot.cli.console import Commands, Run
    from fieldshot.gallery import Gallery, Operation
    from fieldshot.recognizer import EnrollResult, Recognizer

__all__ = ["register"]


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    enroll = _add(
        commands,
        "enroll",
        _enroll,
        help="add pictures of one label, or of a folder of classes",
        examples="  fieldshot enroll site.gallery --from pictures/          one sub-folder a class\n"
        "  fieldshot enroll site.gallery bolt bolt1.jpg bolt2.jpg  one label; a folder of pictures will do as well\n"
        "  fieldshot enroll site.gallery --from pictures/ --backbone mobilenet.fieldshot --keep-pictures\n",
    )
    enroll.add_argument("label", nargs="?", metavar="LABEL")
    enroll.add_argument("files", nargs="*", type=Path, metavar="FILES", help="pictures, or folders of them")
    enroll.add_argument("--from", dest="folder", type=Path, metavar="DIR", help="folder of classes instead of a label")
    enroll.add_argument("--keep-pictures", action="store_true", help="in a new gallery: store the pictures too")
    enroll.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="time that a picture may take to embed here: in a new gallery what is left of it goes into more views of "
        "the picture, for accuracy; one that is there keeps to its views, which must fit into it",
    )
    enroll.set_defaults(usage_error=enroll.error)

    recognize = _add(
        commands,
        "recognize",
        _recognize,
        help="say what pictures show, one line each: file, label or unknown, confidence (where it is unknown, that of "
        "the label that came nearest), milliseconds (the first also warms up)",
        examples="  fieldshot recognize site.gallery photo.jpg\n  fieldshot recognize site.gallery photos/ --json\n",
    )
    recognize.add_argument("files", nargs="+", type=Path, metavar="FILES", help="pictures, or folders of them")

    reject = _add(
        commands,
        "reject",
        _reject,
        help="say that pictures do NOT show a label",
        examples="  fieldshot reject site.gallery bolt screw1.jpg screw2.jpg\n",
    )
    reject.add_argument("label", metavar="LABEL")
    reject.add_argument("files", nargs="+", type=Path, metavar="FILES", help="pictures, or folders of them")

    report = _add(
        commands,
        "report",
        _report,
        help="say how far each label can be trusted, which pictures look mislabelled, and what would help: the "
        "gallery's own pictures are left out in turn, which says only how pictures like these would be answered, or "
        "others are asked about",
        examples="  fieldshot report site.gallery\n"
        "  fieldshot report site.gallery --on tomorrow/    one sub-folder a label\n",
    )
    report.add_argument("--on", type=Path, metavar="DIR", help="ask about the pictures of this folder of classes")

    for parser in (enroll, reject):
        parser.add_argument("--skip-unreadable", action="store_true", help="leave out what cannot be read, and list it")
    for parser in (enroll, recognize, reject, report):
        parser.add_argument(
            "--backbone", type=Path, metavar="BUNDLE", help="default: that of the gallery; for a new one the embedded"
        )
        add_engine(parser)
    add_precision(enroll)

    forget = _add(
        commands,
        "forget",
        _forget,
        help="take out all that was enrolled or rejected for a label, or some of it",
        examples="  fieldshot forget site.gallery bolt\n"
        "  fieldshot forget site.gallery bolt bolt2.jpg    one picture\n",
    )
    forget.add_argument("label", metavar="LABEL")
    forget.add_argument(
        "files", nargs="*", type=Path, metavar="FILES", help="only these, named as they were then; they may be gone"
    )
    _add(
        commands,
        "undo",
        _undo,
        help="revert the last operation that is not undone yet",
        examples="  fieldshot undo site.gallery\n",
    )
    _add(
        commands,
        "history",
        _history,
        help="list all operations, oldest first",
        examples="  fieldshot history site.gallery\n",
    )
    rollback = _add(
        commands,
        "rollback",
        _rollback,
        help="restore any version, earlier or later",
        examples="  fieldshot rollback site.gallery 3\n  fieldshot rollback site.gallery 0    empty it\n",
    )
    rollback.add_argument("version", type=int, metavar="VERSION", help="a number that `fieldshot history` lists, or 0")


def _add(commands: Commands, name: str, run: Run, *, help: str, examples: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, help=help, examples=examples)
    parser.add_argument("gallery", type=Path, metavar="GALLERY", help="the gallery file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _enroll(arguments: argparse.Namespace) -> None:
    from fieldshot import images
    from fieldshot.gallery import clean_label

    if (arguments.folder is None) == (arguments.label is None) or bool(arguments.label) != bool(arguments.files):
        arguments.usage_error("name a LABEL and its FILES, or --from DIR")
    # Before a new gallery is made: labels and folders that are wrong shall leave nothing behind.
    if arguments.folder is None:
        classes = {clean_label(arguments.label): list(_pictures(arguments.files))}
    else:
        classes = {clean_label(label): paths for label, paths in images.find_classes(arguments.folder).items()}
    start = time.perf_counter()
    recognizer, created = _open_to_enroll(arguments)
    with recognizer:
        before = recognizer.gallery.version()
        try:
            with _naming_the_way_out(), progress("enroll") as show:
                results = recognizer.enroll_many(classes, skip_unreadable=arguments.skip_unreadable, progress=show)
        except (FieldshotError, KeyboardInterrupt):
            stored = recognizer.gallery.version() - before
            if stored:
                complain(f"note: {stored} of {len(classes)} labels were enrolled before this")
            elif created:
                _take_back(recognizer)
            raise
    if arguments.json:
        print_json({"gallery": arguments.gallery, "created": created, "labels": results})
        return
    if created:
        views = f", {recognizer.backbone.views} views" if recognizer.backbone.views > 1 else ""
        print(f"created {shown(arguments.gallery)} with backbone {recognizer.backbone.name}{views}")
    for result in results:
        print(f"enrolled {_summary(result, 'already there', 'no longer rejected')}")
    if len(results) > 1:
        added, seconds = sum(result.added for result in results), time.perf_counter() - start
        print(f"{added} pictures in {len(results)} classes, {seconds:.2f} s")


def _take_back(recognizer: Recognizer) -> None:
    """Remove a gallery that was made for nothing: it would bind its name to a backbone."""
    recognizer.close()
    for ending in ("", "-wal", "-shm"):
        Path(f"{recognizer.gallery.path}{ending}").unlink(missing_ok=True)


def _open_to_enroll(arguments: argparse.Namespace) -> tuple[Recognizer, bool]:
    """Open the gallery, or make it; also whether it was made."""
    from fieldshot.recognizer import Recognizer

    if not arguments.gallery.exists():
        try:
            with loading(arguments) as options:
                made = Recognizer.create(
                    arguments.gallery,
                    arguments.backbone,
                    keep_pictures=arguments.keep_pictures,
                    budget_ms=arguments.budget_ms,
                    **options,
                )
            return made, True
        except GalleryError:
            if not arguments.gallery.exists():  # else another program made it meanwhile
                raise
    recognizer = _open(arguments)
    try:
        _check_choices(arguments, recognizer)
    except BaseException:
        recognizer.close()
        raise
    return recognizer, False


def _open(arguments: argparse.Namespace) -> Recognizer:
    from fieldshot.recognizer import Recognizer

    with loading(arguments) as options:
        options.pop("precision", None)  # it keeps to its own
        return Recognizer.open(arguments.gallery, backbone=arguments.backbone, **options)


def _check_choices(arguments: argparse.Namespace, recognizer: Recognizer) -> None:
    """Refuse options of a new gallery that this one was made without: the same line may be used again."""
    if arguments.keep_pictures and not recognizer.gallery.keep_pictures:
        raise OptionError(
            f"--keep-pictures must be chosen when a gallery is made (got {arguments.gallery}, made before)",
            hint="leave it out, or enrol into a new gallery",
        )
    if arguments.precision not in (None, recognizer.backbone.precision):
        raise OptionError(
            f"--precision must be {recognizer.backbone.precision}, which {arguments.gallery} was made with"
            f" (got {arguments.precision})",
            hint="leave it out: the gallery keeps to its own, or enrol into a new one",
        )
    if arguments.budget_ms is not None:
        views, within = recognizer.backbone.views, recognizer.backbone.views_within(arguments.budget_ms)
        if within < views:
            raise OptionError(
                f"--budget-ms must leave time for the {views} views of a picture that {arguments.gallery} was made with"
                f" (got {arguments.budget_ms:g} ms, time for {within} here)",
                hint="leave it out: the gallery keeps to its views, or enrol into a new one",
            )


@contextmanager
def _naming_the_way_out() -> Iterator[None]:
    """Say of a picture that cannot be read which option leaves it out."""
    try:
        yield
    except (PictureError, MissingFileError) as error:
        hint = f"{error.hint}; --skip-unreadable leaves such pictures out"
        raise type(error)(error.message, hint=hint) from error


def _recognize(arguments: argparse.Namespace) -> int:
    answers: list[dict[str, object]] = []
    failed = False
    with _open(arguments) as recognizer, progress("recognize") as show:
        paths = list(_pictures(arguments.files))
        for done, path in enumerate(paths, start=1):
            # One picture that cannot be read does not keep the others from their answers.
            try:
                found = recognizer.recognize(path)
            except (PictureError, MissingFileError) as error:
                failed = True
                complain(f"error: {error}")
                answers.append({"file": path, "error": str(error)})
            else:
                answers.append({"file": path, **asdict(found)})
                if not arguments.json:
                    label = "unknown" if found.label is None else found.label
                    print(shown(path), shown(label), f"{found.confidence:.3f}", f"{found.latency_ms:.1f}", sep="\t")
            if arguments.json:
                show(done, len(paths))
    if arguments.json:
        print_json(answers)
    return int(failed)


def _reject(arguments: argparse.Namespace) -> None:
    paths = list(_pictures(arguments.files))
    with _open(arguments) as recognizer, _naming_the_way_out(), progress("reject") as show:
        result = recognizer.reject(arguments.label, paths, skip_unreadable=arguments.skip_unreadable, progress=show)
    if arguments.json:
        print_json(result)
    else:
        print(f"rejected for {_summary(result, 'said already', 'taken from it')}")


def _forget(arguments: argparse.Namespace) -> None:
    from fieldshot.recognizer.intake import source_of

    sources = list(map(source_of, arguments.files)) or None
    _change(arguments, lambda gallery: gallery.forget(arguments.label, sources))


def _undo(arguments: argparse.Namespace) -> None:
    _change(arguments, lambda gallery: gallery.undo())


def _rollback(arguments: argparse.Namespace) -> None:
    _change(arguments, lambda gallery: gallery.rollback(arguments.version))


def _change(arguments: argparse.Namespace, change: Callable[[Gallery], int]) -> None:
    """Change a gallery in a way that needs no backbone, and say what was done."""
    from fieldshot.gallery import Gallery

    with Gallery.open(arguments.gallery) as gallery:
        operation = gallery.operation(change(gallery))
    if arguments.json:
        print_json(operation)
    else:
        _print([operation])


def _history(arguments: argparse.Namespace) -> None:
    from fieldshot.gallery import Gallery

    with Gallery.open(arguments.gallery) as gallery:
        operations = gallery.history()
    if arguments.json:
        print_json(operations)
    else:
        _print(operations)


def _report(arguments: argparse.Namespace) -> None:
    from fieldshot import images
    from fieldshot.gallery import Gallery
    from fieldshot.recognizer.model import Model
    from fieldshot.recognizer.report import examined

    if arguments.on is None:  # without its backbone: embeddings are all that is asked about
        with Gallery.open(arguments.gallery) as gallery, progress("report") as show:
            report = examined(gallery, Model(-1, (), None), show)
    else:
        classes = images.find_classes(arguments.on)
        with _open(arguments) as recognizer, progress("report") as show:
            report = recognizer.report(classes, progress=show)
    if arguments.json:
        print_json(report)
        return
    recognized, asked, unknown = (
        sum(getattr(of, name) for of in report.labels) for name in ("recognized", "asked", "unknown")
    )
    how = "when left out" if arguments.on is None else f"of {shown(arguments.on)}"
    if asked:
        print(f"{recognized} of {asked} pictures recognized {how}, {unknown} unknown")
    else:
        print("no label has two pictures, so that one could be left out")
    rows = []
    for of in report.labels:
        taken_for = ", ".join(f"{shown(label)} ({count})" for label, count in of.taken_for.items())
        answers = [f"{of.recognized}/{of.asked}", str(of.unknown), taken_for] if of.asked else ["", "", ""]
        rows.append([shown(of.label), str(of.pictures), str(of.negatives), *answers])
    print_table(["label", "pictures", "negatives", "recognized", "unknown", "taken for"], rows)
    for doubt in report.doubts:
        odds = f"{100 * doubt.confidence:.0f} % {doubt.looks_like}, {100 * doubt.probability:.1f} % {doubt.label}"
        print(shown(f"doubtful: {doubt.source} of {doubt.label}: {odds}"))
    for line in report.advice:
        print(shown(f"advice: {line}"))


def _pictures(files: list[Path]) -> Iterator[Path]:
    """Files as they are, folders as the pictures in them."""
    from fieldshot import images

    for path in files:
        yield from images.find(path) if path.is_dir() else [path]


def _summary(result: EnrollResult, known: str, removed: str) -> str:
    parts = [f"{result.added} new"]
    parts += [f"{result.duplicates} {known}"] if result.duplicates else []
    parts += [f"{result.removed} {removed}"] if result.removed else []
    parts += [f"{len(result.unreadable)} unreadable: {', '.join(result.unreadable)}"] if result.unreadable else []
    return shown(f"{result.label}: {', '.join(parts)}")


def _print(operations: list[Operation]) -> None:
    rows = []
    for done in operations:
        what = done.kind if done.target is None else f"{done.kind} {done.target}"
        what += " (undone)" if done.undone else ""
        rows.append([what, shown(done.label or ""), str(done.version), f"+{done.added}", f"-{done.removed}", done.time])
    print_table(["operation", "label", "version", "added", "removed", "time"], rows, words=2)
