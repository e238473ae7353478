"""The head beside its baselines over the whole grid of ways and shots, on real pictures: `make accuracy`.

Reads FIELDSHOT_DATA (or ../shared), writes benchmarks/results/accuracy/: summary.md and figures. What is measured is
kept in the folder --work, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fieldshot import Backbone, __version__, cli
from fieldshot.evaluation import Row, data, mean_interval
from fieldshot.evaluation.report import figures, regret, summary
from fieldshot_export import export

HERE = Path(__file__).resolve().parent
SETS = ("signdigits", "trashnet", "pcb6")
NETWORKS = {"mobilenet_v2_1.0_224": 224, "mobilenet_v1_0.5_160": 160}
WAYS_OF_MANY = "2,5,10,20"
# Few samples make an episode quick and its accuracy uncertain: so many more episodes.
FEW_SHOTS, OFTENER = "1,2,3,5", 5
# Kept in the repository: the rest is in the page of the folder --work.
SHOWN = ("accuracy-5-ways.png", "calibration-5-ways.png")


def main() -> None:
    arguments = options(__doc__)
    if not (arguments.data / "models").is_dir():
        sys.exit(f"accuracy: {arguments.data} must hold data/ and models/; FIELDSHOT_DATA or --data names the folder")
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    folders = [os.fspath(folder) for folder in folders_of(arguments.data, arguments.work)]
    backbones = [part for name in NETWORKS for part in ("--backbone", bundle(arguments.data, name, arguments.work))]

    def measure(name: str, measured: list[str], *options: str) -> list[Row]:
        out = arguments.work / name
        cache = os.fspath(arguments.work / "cache")
        code = cli.main(["eval", *measured, *backbones, *options, "--cache", cache, "--out", os.fspath(out)])
        if code:
            sys.exit(code)
        return [Row(**row) for row in json.loads((out / "result.json").read_text("utf-8"))["rows"]]

    *photographs, drawings = folders

    def inductive(shots: str, episodes: int) -> list[Row]:
        grid = ["--shots", shots, "--episodes", str(episodes), "--methods", "inductive"]
        found = measure("inductive", photographs, "--ways", "grid", *grid)
        return found + measure("inductive", [drawings], "--ways", WAYS_OF_MANY, *grid)

    rows = inductive(FEW_SHOTS, OFTENER * arguments.episodes)
    rows += [row for row in inductive("grid", arguments.episodes) if str(row.shots) not in FEW_SHOTS.split(",")]
    # All 136 at once only as far as logistic regression takes minutes, not hours.
    all_ways = ["--ways", "all", "--shots", FEW_SHOTS, "--episodes", str(arguments.episodes), "--methods", "inductive"]
    rows += measure("inductive", [drawings], *all_ways)
    few = ["--ways", "5", "--shots", "1,5", "--episodes", str(arguments.episodes), "--methods", "transductive"]
    balanced = measure("balanced", folders, *few)
    unequal = measure("unequal", folders, *few, "--balance", "2")
    for path in figures(rows, arguments.work):
        if path.name in SHOWN:
            path.replace(arguments.out / path.name)
    text = document(rows, balanced, unequal, arguments.episodes)
    (arguments.out / "summary.md").write_text(text, "utf-8")
    print(text)


def options(about: str) -> argparse.Namespace:
    """Of the command line of `make accuracy`, the same for each of its scripts."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, default=shared_data(), help="folder with data/ and models/")
    parser.add_argument("--work", type=Path, default=Path("accuracy"), help="for what is measured")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "accuracy", help="for summaries and figures")
    parser.add_argument("--episodes", type=int, default=20, help="of a cell, at most")
    return parser.parse_args()


def embedded(
    arguments: argparse.Namespace, *, drawings: bool = True, views: int = 1
) -> Iterator[tuple[str, data.DataSet]]:
    """Each set of pictures by each network, under the name of both, from the cache where it is there."""
    backbones = {
        network: Backbone.load(bundle(arguments.data, network, arguments.work), views=views) for network in NETWORKS
    }
    folders = folders_of(arguments.data, arguments.work)
    for folder in folders if drawings else folders[: len(SETS)]:
        for network, backbone in backbones.items():
            found = data.embed(data.find_pictures(folder), backbone, cached=arguments.work / "cache")
            yield f"{folder.name} / {network}", found


def shared_data() -> Path:
    return Path(os.environ.get("FIELDSHOT_DATA", HERE.parents[1] / "shared"))


def folders_of(data: Path, work: Path) -> list[Path]:
    """Folders of classes; the characters come as an archive."""
    folders = [data / "data" / name for name in SETS]
    return [*folders, characters(data / "data" / "omniglot_small1.zip", work / "omniglot")]


def characters(archive: Path, folder: Path) -> Path:
    """One folder a character, named after its alphabet too."""
    with zipfile.ZipFile(archive) as pictures:
        for name in pictures.namelist():
            path = Path(name)
            if path.suffix == ".png":
                target = folder / f"{path.parts[-3]} {path.parts[-2]}" / path.name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(pictures.read(name))
    return folder


def bundle(data: Path, network: str, work: Path) -> str:
    """The network as a bundle, made once."""
    path = work / f"{network}.fieldshot"
    if not path.exists():
        onnx = data / "models" / f"{network}.onnx"
        export(path, onnx=onnx, size=NETWORKS[network], mean=[0.5] * 3, std=[0.5] * 3, float16=False)
    return os.fspath(path)


def document(rows: list[Row], balanced: list[Row], unequal: list[Row], episodes: int) -> str:
    """The figures that claims stand on, as Markdown."""
    cells, counts = regret(rows), shot_counts(rows)
    beyond = sorted(((cell.points - cell.interval, cell) for cell in cells), key=lambda pair: -pair[0])
    lines = [
        "# Accuracy over the grid",
        "",
        f"`make accuracy`: fieldshot {__version__}, Python {platform.python_version()}, {platform.machine()};"
        f" {len(cells)} cells of {len({cell.data for cell in cells})} data sets x backbones,"
        f" at most {episodes} episodes each, {OFTENER * episodes} up to 5 shots but of all 136 ways.",
        "",
        "Regret is the accuracy of the best of all inductive baselines, chosen for each cell after the fact, less that"
        " of fieldshot on the same episodes, in points: below 0 fieldshot is better.",
        "",
        f"- mean over all cells: {sum(cell.points for cell in cells) / len(cells):.2f}",
        f"- cells where it is above 0: {sum(cell.points > 0 for cell in cells)}; beyond its 95 % interval:"
        f" {sum(gap > 0 for gap, _ in beyond)}; by more than 1 point: {sum(gap > 1 for gap, _ in beyond)}",
        "- the worst beyond their intervals: "
        + "; ".join(
            f"{cell.data}, {cell.ways} ways, {cell.shots} shots: {cell.points:.1f} +- {cell.interval:.1f}"
            f" ({cell.baseline})"
            for _, cell in beyond[:4]
        ),
        "",
        "| shots | " + " | ".join(map(str, counts)) + " |",
        "|---" * (len(counts) + 1) + "|",
        "| mean regret | " + " | ".join(f"{mean_of(cells, shots):.2f}" for shots in counts) + " |",
        "",
        "| method | cells | accuracy % | against fieldshot | worst tenth % | ECE % | Brier | fit ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in summary(rows):
        lines.append(
            f"| {method.method} | {method.cells} | {100 * method.accuracy:.1f} | {method.gain:+.1f} |"
            f" {100 * method.worst_decile:.1f} | {100 * method.ece:.1f} | {method.brier:.3f} | {method.fit_ms:.2f} |"
        )
    lines += ["", "## Looking at the queries", ""]
    lines += ["5 ways, 75 queries; accuracy in points against fieldshot's inductive head.", ""]
    lines += ["| method | 1 shot, balanced | 5 shots | 1 shot, Dirichlet(2) | 5 shots |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row.method for row in balanced):
        numbers = [gain(of, name, shots) for of in (balanced, unequal) for shots in (1, 5)]
        lines.append(f"| {name} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def shot_counts(rows: list[Row]) -> list[int | str]:
    return sorted({row.shots for row in rows}, key=lambda shots: (shots == "all", shots if shots != "all" else 0))


def mean_of(cells: list, shots: int | str) -> float:
    points = [cell.points for cell in cells if cell.shots == shots]
    return sum(points) / len(points)


def gain(rows: list[Row], method: str, shots: int) -> str:
    """Over all data sets and episodes, paired."""
    ours = {row.data: row.accuracies for row in rows if row.method == "fieldshot" and row.shots == shots}
    theirs = {row.data: row.accuracies for row in rows if row.method == method and row.shots == shots}
    pairs = [100 * (a - b) for data in ours for a, b in zip(theirs[data], ours[data], strict=True)]
    mean, interval = mean_interval(pairs)
    return f"{mean:+.1f} +- {interval:.1f}"


if __name__ == "__main__":
    main()
