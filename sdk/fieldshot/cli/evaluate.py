"""The command eval: few-shot accuracy of several methods, on folders of classes or on embeddings that are ready."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fieldshot.cli import report_folder
from fieldshot.cli.console import add_command, complain, print_json, print_table, progress, shown
from fieldshot.cli.engines import add_engine, add_precision, loading
from fieldshot.cli.places import check_document
from fieldshot.errors import MissingFileError, OptionError
from fieldshot.system import cores

if TYPE_CHECKING:
    from fieldshot.backbone import Backbone
    from fieldshot.cli.console import Commands
    from fieldshot.evaluation import Row
    from fieldshot.evaluation.data import DataSet

__all__ = ["register"]


class _Measured(NamedTuple):
    """Data under the name that its rows have, and how it is told of."""

    name: str
    about: str
    data: DataSet


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "eval",
        _eval,
        help="measure few-shot accuracy on a folder of classes",
        examples="  fieldshot eval pictures/\n"
        "  fieldshot eval pictures/ --backbone mobilenet.fieldshot --ways 5 --shots 1,5,20 --json result.json\n"
        "  fieldshot eval signs/ waste/ --ways grid --shots grid --methods inductive --out measured/\n",
    )
    parser.add_argument(
        "files",  # by this name they may stand among options
        type=Path,
        nargs="+",
        metavar="DIR",
        help="one sub-folder a class; or such folders named train and test, to learn from the one and recognise the"
        " other; or an .npz file with the arrays embeddings (N, D) and labels (N,), of a split also test_embeddings and"
        " test_labels",
    )
    parser.add_argument(
        "--backbone",
        type=Path,
        action="append",
        metavar="BUNDLE",
        help="bundle to use; repeat it to compare several (default: the embedded one)",
    )
    add_engine(parser)
    add_precision(parser, action="append")  # repeated, several are compared
    parser.add_argument(
        "--views", type=int, metavar="N", help="views of each picture to average over: 1, 2 or 3 (default: 1)"
    )
    for name, numbers, what in [
        ("ways", "5", "classes an episode"),
        ("shots", "1,5", "pictures a class to learn from"),
    ]:
        words = f"{what}: comma-separated numbers or all, or grid (default: {numbers})"
        parser.add_argument(f"--{name}", type=_axis, metavar="N,N", help=words)
    for name, default, what in [
        ("queries", 15, "pictures a class to recognise"),
        ("episodes", 200, "how often to draw classes and pictures"),
        ("seed", 0, "of the drawing"),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what} (default: {default})")
    parser.add_argument(
        "--methods",
        action="append",
        metavar="NAME",
        help="fieldshot, inductive (with the baselines that see the support only), transductive (with those that also"
        " look at the queries), all, or the name of one; repeat it for more (default: fieldshot)",
    )
    parser.add_argument(
        "--balance",
        type=float,
        metavar="ALPHA",
        help="spread the queries over the classes unevenly, in proportions drawn from Dirichlet(ALPHA)",
    )
    parser.add_argument(
        "--heterogeneous", action="store_true", help="draw ways and the shots of each class too, as Meta-Dataset does"
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write one JSON document to FILE, or to stdout"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep finished rows (rows.jsonl) and go on from them, then write result.json, report.html and figures",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="for embeddings (default: fieldshot in the user's cache folder)"
    )
    parser.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="processes at most (default: as many as cores)"
    )


def _axis(text: str) -> str | list[int | str]:
    return text if text == "grid" else [part if part == "all" else int(part) for part in text.split(",")]


_axis.__name__ = "comma-separated numbers or all, or grid"  # argparse puts it into its message


def _eval(arguments: argparse.Namespace) -> None:
    from fieldshot.evaluation import evaluate, select

    methods = select(arguments.methods or ["fieldshot"])
    # What will be written must be writable before hours of work, not after.
    if arguments.json not in (None, "-"):
        check_document(Path(arguments.json), report_folder.KIND)
    if arguments.out is not None:
        report_folder.check(arguments.out)
    backbones: list[Backbone] = []
    rows: list[Row] = []
    measured = list(_measured(arguments, backbones))
    for number, (name, _, data) in enumerate(measured, 1):
        with progress(
            f"{number}/{len(measured)} {shown(name)}" if len(measured) > 1 else "episodes", smoothing=0
        ) as show:
            rows += evaluate(
                data.embeddings,
                data.labels,
                test=data.test,
                ways=arguments.ways,
                shots=arguments.shots,
                queries=arguments.queries,
                episodes=arguments.episodes,
                seed=arguments.seed,
                methods=methods,
                balance=arguments.balance,
                heterogeneous=arguments.heterogeneous,
                name=name,
                progress=show,
                done=None if arguments.out is None else arguments.out / report_folder.ROWS,
                jobs=arguments.jobs,
            )
    document = _document(arguments, backbones, rows)
    if arguments.out is not None:
        page = report_folder.write(rows, document, arguments.out)
        absent = report_folder.left_out(rows, arguments.out)
        if absent:
            complain(
                f"note: {', '.join(absent)} of an earlier run is not in this report;"
                " name all data in one command for one report: what was measured is not measured again"
            )
    if arguments.json is not None:
        print_json(document, arguments.json)
    if arguments.json != "-":
        for each in measured:
            print(shown(each.about))
        _print(rows)
        if arguments.out is not None:
            print(f"report: {shown(page)}")


def _measured(arguments: argparse.Namespace, backbones: list[Backbone]) -> Iterable[_Measured]:
    """Every folder with every backbone, and every file of embeddings; loaded backbones are added to the list."""
    from fieldshot.backbone import Backbone
    from fieldshot.backbone.views import check_views
    from fieldshot.evaluation import cache, data, plan

    files = {path for path in arguments.files if path.suffix == ".npz"}
    # First all that is quick to find wrong.
    for path in arguments.files:
        if not path.exists():
            raise MissingFileError(
                f"folder or file {path} must exist",
                hint="check the path; numbers are listed with commas, as in --shots 1,5, and --methods is repeated",
            )
    for option in ("backbone", "cache", "views"):
        if getattr(arguments, option) and len(files) == len(set(arguments.files)):
            raise OptionError(
                f"--{option} must have a folder of pictures to embed (got embeddings that are ready only)",
                hint=f"leave out --{option}, or name the folder that the embeddings are of",
            )
    views = check_views(1 if arguments.views is None else arguments.views)
    ready = {path: data.read_embeddings(path) for path in arguments.files if path in files}
    folders = {path: data.find_pictures(path) for path in arguments.files if path not in files}
    for pool in [found.pool() for found in ready.values()] + [found.pool() for found in folders.values()]:
        plan(
            pool,
            arguments.ways,
            arguments.shots,
            arguments.queries,
            arguments.episodes,
            arguments.balance,
            heterogeneous=arguments.heterogeneous,
        )
    if folders:
        for bundle in arguments.backbone or [None]:
            load = Backbone.default if bundle is None else partial(Backbone.load, bundle)
            for precision in arguments.precision or ["float32"]:
                with loading(arguments) as options:
                    backbones.append(load(views=views, **{**options, "precision": precision}))
    cached = arguments.cache or cache.default_folder()
    names = _names(arguments.files)
    suffixes = _backbone_names(backbones)
    for path in dict.fromkeys(arguments.files):
        if path in files:
            yield _Measured(names[path], f"{path}: {ready[path]}", ready[path])
            continue
        for backbone, suffix in zip(backbones, suffixes, strict=True):
            with progress("embed") as show:
                embedded = data.embed(folders[path], backbone, cached=cached, progress=show)
            yield _Measured(f"{names[path]} / {suffix}", f"{path}: {embedded}, backbone {suffix}", embedded)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, or all of it where several end alike."""
    last = {path: path.stem if path.suffix == ".npz" else path.resolve().name for path in paths}
    counts = Counter(last.values())
    return {path: name if counts[name] == 1 else os.fspath(path) for path, name in last.items()}


def _backbone_names(backbones: Sequence[Backbone]) -> list[str]:
    """Each name, with precision and views where there are several, and the start of the contract if need be."""
    several = len({backbone.precision for backbone in backbones}) > 1
    names = [f"{b.name} {b.precision}" if several else b.name for b in backbones]
    counts = Counter(names)
    return [
        (name if counts[name] == 1 else f"{name} {b.contract[:8]}") + (f" {b.views} views" if b.views > 1 else "")
        for name, b in zip(names, backbones, strict=True)
    ]


def _document(arguments: argparse.Namespace, backbones: Sequence[Backbone], rows: Sequence[Row]) -> dict[str, Any]:
    """One folder and one backbone keep the names of a single one."""
    facts = [backbone.info() for backbone in backbones]
    folders = arguments.files
    return {
        "fieldshot": report_folder.KIND,
        **({"folder": folders[0]} if len(folders) == 1 else {"folders": folders}),
        **({"backbone": facts[0] if facts else None} if len(facts) < 2 else {"backbones": facts}),
        "seed": arguments.seed,
        "rows": rows,
    }


def _print(rows: Sequence[Row]) -> None:
    """A line a row for one method, a column a number of shots for several."""
    if len({row.method for row in rows}) > 1:
        from fieldshot.evaluation import report

        print(report.table(rows))
        return
    from fieldshot.evaluation.report.text import number

    words = 1 if len({row.data for row in rows}) > 1 else 0
    header = ["ways", "shots", "queries", "episodes", "accuracy %", "+- 95 %", "worst 10 %", "ECE %", "fit ms"]
    print_table(
        [*["data"][:words], *header],
        [
            [
                *[shown(row.data)][:words],
                *(str(count) for count in (row.ways, row.shots, row.queries, row.episodes)),
                *(number(100 * share) for share in (row.accuracy, row.interval, row.worst_decile, row.ece)),
                f"{row.fit_ms:.2f}",
            ]
            for row in rows
        ],
        words=words,
    )
