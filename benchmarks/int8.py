"""What int8 gains on this CPU, and what it costs in accuracy: `make int8`.

Reads FIELDSHOT_DATA (or ../shared), writes benchmarks/results/int8.md. Bundles and embeddings are kept in the folder
--work. "As it stands" is the network in the bundle, which TensorRT takes, computed by ONNX Runtime in float32 from
rounded values; "on a CPU" is what `Backbone.load(..., precision="int8")` runs.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from accuracy import HERE, NETWORKS, SETS, characters, folders_of, shared_data
from fieldshot import Backbone, __version__
from fieldshot.backbone import Bundle
from fieldshot.backbone.choice import create
from fieldshot.evaluation import Row, data, evaluate, mean_interval
from fieldshot_export import export
from turns import in_turn

EMBEDDED = "embedded"
PROCEDURAL, OWN, STANDING = "procedural", "own pictures", "own pictures, as it stands"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=shared_data(), help="folder with data/ and models/")
    parser.add_argument("--work", type=Path, default=Path("accuracy"), help="for bundles and embeddings")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "int8.md")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=6, help="of timing, for each cell")
    arguments = parser.parse_args()
    characters(arguments.data / "data" / "omniglot_small1.zip", arguments.work / "omniglot")
    bundles = {name: bundles_of(name, arguments.data, arguments.work) for name in (*NETWORKS, EMBEDDED)}
    lines = [
        "# int8",
        "",
        f"`make int8`: fieldshot {__version__}, Python {platform.python_version()}, {processor()}.",
        "",
        *speed(bundles, arguments.seconds),
        *accuracy(bundles, folders_of(arguments.data, arguments.work), arguments.work, arguments.episodes),
    ]
    arguments.out.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def processor() -> str:
    """Name of the CPU, and whether it multiplies int8 in one step."""
    facts = Path("/proc/cpuinfo").read_text("utf-8")
    name = next(line.split(":")[1].strip() for line in facts.splitlines() if line.startswith("model name"))
    return f"{name}, {'with' if 'avx512_vnni' in facts or 'avx_vnni' in facts else 'without'} VNNI"


def bundles_of(name: str, data: Path, work: Path) -> dict[str, Path]:
    """A network with its int8, calibrated on procedural pictures and on the user's own; made once."""
    work.mkdir(parents=True, exist_ok=True)
    onnx, stated = data / "models" / f"{name}.onnx", {"mean": [0.5] * 3, "std": [0.5] * 3, "size": NETWORKS.get(name)}
    if name == EMBEDDED:
        embedded = Backbone.default().bundle
        onnx, stated = work / "embedded.onnx", embedded.preprocessing.to_json()
        onnx.write_bytes(embedded.read("backbone.onnx"))
    made = {PROCEDURAL: work / f"{name}-int8.fieldshot", OWN: work / f"{name}-int8-own.fieldshot"}
    for kind, path in made.items():
        if not path.exists():
            own = data / "data" if kind == OWN else None
            export(path, onnx=onnx, float16=False, int8=True, calibrate=own, name=name, **stated)
    return made | {STANDING: standing(made[OWN], work / f"{name}-int8-standing.fieldshot")}


def standing(path: Path, out: Path) -> Path:
    """A bundle whose float32 network is the int8 one of another, as it stands."""
    bundle = Bundle.open(path)
    facts = {key: bundle.manifest[key] for key in ("name", "licence", "source", "dim")}
    network, pictures = bundle.read("backbone.int8.onnx"), bundle.read("verify.safetensors")
    Bundle.write(
        out,
        **facts,
        preprocessing=bundle.preprocessing,
        verify={"float32": bundle.manifest["verify"]["int8"]},
        files={"backbone.onnx": network, "verify.safetensors": pictures},
    )
    return out


def speed(bundles: dict[str, dict[str, Path]], seconds: float) -> list[str]:
    """The network alone, without decoding and resizing: medians of sides that take turns in one process."""
    lines = [
        "| network | threads | batch | float32 ms | int8 ms | int8 is faster by | as it stands |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, paths in bundles.items():
        for threads in (1, 2):
            own, stands = Bundle.open(paths[OWN]), Bundle.open(paths[STANDING])
            sides = {
                "float32": create("onnxruntime", own, threads),
                "int8": create("onnxruntime", own, threads, "int8"),
                "standing": create("onnxruntime", stands, threads),
            }
            for batch in (1, 8):
                inputs = np.random.default_rng(0).normal(size=(batch, 3, *own.preprocessing.size)).astype(np.float32)
                turns = in_turn(seconds, **{side: partial(engine.run, inputs) for side, engine in sides.items()})
                gain, standing_gain = (turns.ratio("float32", side) for side in ("int8", "standing"))
                times = turns.medians()
                lines.append(
                    f"| {name} | {threads} | {batch} | {times['float32']:.2f} | {times['int8']:.2f} | {gain:.2f} |"
                    f" {standing_gain:.2f} |"
                )
    return [*lines, ""]


def accuracy(bundles: dict[str, dict[str, Path]], folders: list[Path], work: Path, episodes: int) -> list[str]:
    """5 ways, 5 shots, every form on the same episodes."""
    rows = [
        row
        for name, paths in bundles.items()
        for folder in folders
        for row in measured(name, paths, folder, work, episodes)
    ]
    return document(rows, episodes)


def measured(name: str, paths: dict[str, Path], folder: Path, work: Path, episodes: int) -> Iterator[Row]:
    forms = {
        "float32": Backbone.load(paths[OWN]),
        PROCEDURAL: Backbone.load(paths[PROCEDURAL], precision="int8"),
        OWN: Backbone.load(paths[OWN], precision="int8"),
        STANDING: Backbone.load(paths[STANDING]),
    }
    for form, backbone in forms.items():
        if form == STANDING and folder.name not in SETS:
            continue  # slow, and the photographs tell
        found = data.embed(data.find_pictures(folder), backbone, cached=work / "cache")
        label = f"{name} / {folder.name} / {form}"
        yield from evaluate(found.embeddings, found.labels, ways=5, shots=[5], episodes=episodes, name=label)


def document(rows: list[Row], episodes: int) -> list[str]:
    """Accuracy in float32, and what each form of int8 loses."""
    cells = {tuple(row.data.split(" / ")): row for row in rows}
    lines = [
        f"Accuracy in %, 5 ways, 5 shots, {episodes} episodes of 15 queries a class, and the points that int8 loses on"
        " the same episodes, with the 95 % interval; int8 calibrated on procedural pictures, on 64 of all those in"
        " three of the sets, and the latter as it stands (photographs only, for it takes long):",
        "",
        "| network | pictures | float32 | procedural | own pictures | as it stands |",
        "|---|---|---|---|---|---|",
    ]
    losses: dict[str, list[float]] = {PROCEDURAL: [], OWN: [], STANDING: []}
    for name, pictures in dict.fromkeys((name, pictures) for name, pictures, _ in cells):
        full = cells[name, pictures, "float32"]
        words = [name, pictures, f"{100 * full.accuracy:.1f}"]
        for form, all_of_form in losses.items():
            if (name, pictures, form) not in cells:
                words.append("")
                continue
            lost = [
                100 * (one - other)
                for one, other in zip(full.accuracies, cells[name, pictures, form].accuracies, strict=True)
            ]
            mean, interval = mean_interval(lost)
            all_of_form.append(mean)
            words.append(f"{mean:+.2f} ± {interval:.2f}")
        lines.append(f"| {' | '.join(words)} |")
    worst = "; ".join(f"{form} {np.mean(lost):+.2f}, at most {max(lost):+.2f}" for form, lost in losses.items())
    return [*lines, "", f"Lost on average: {worst} points."]


if __name__ == "__main__":
    main()
