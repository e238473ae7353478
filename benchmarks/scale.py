"""A head on a million samples, and on a hundred thousand real ones: `make scale`.

Writes benchmarks/results/scale.md. A million drawn embeddings of 512 dimensions in 100 classes lie in a file of 2 GB in
the folder --work; learning them is timed beside the least that their second moment takes, one pass of BLAS over the
same file (float32, all at once, which forgets the classes). Handwritten characters of FIELDSHOT_DATA (or ../shared),
each drawing distorted fifty times, are embedded by MobileNetV1 0.5; drawings of other hands are the queries.
"""

from __future__ import annotations

import argparse
import io
import platform
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from tqdm import tqdm

from accuracy import HERE, bundle, shared_data
from fieldshot import Backbone, FewShotHead, __version__

SAMPLES, DIM, CLASSES = 1_000_000, 512, 100
CHUNK = 50_000
HANDS, LEARNED, DISTORTIONS = 20, 16, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=shared_data(), help="folder with data/ and models/")
    parser.add_argument("--work", type=Path, default=Path("accuracy"), help="for the files of embeddings")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "scale.md")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--resident", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resident:
        print(resident(arguments.resident))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    lines = ["# Many samples", "", f"`make scale`: fieldshot {__version__}, Python {platform.python_version()}.", ""]
    lines += million(arguments.work, arguments.rounds)
    if (arguments.data / "models").is_dir():
        lines += real(arguments.data, arguments.work)
    else:
        print(f"scale: {arguments.data} holds no models/; real features are left out")
    arguments.out.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def million(work: Path, rounds: int) -> list[str]:
    """Time, memory and what comes after, on drawn embeddings."""
    path, y = drawn(work)
    megabytes = int(
        subprocess.run([sys.executable, __file__, "--resident", path], capture_output=True, check=True).stdout
    )
    ours: list[float] = []
    theirs: list[float] = []
    for _ in tqdm(range(rounds), "a million samples", leave=False):
        seconds, head = timed(lambda: FewShotHead(device="host").fit(np.load(path, mmap_mode="r"), y))
        ours.append(seconds)
        theirs.append(timed(lambda: blas(path))[0])
    added = np.load(path, mmap_mode="r")[:5]
    add = [
        timed(lambda: head.partial_fit(added, [CLASSES] * 5)) + timed(lambda: head.forget(CLASSES)) for _ in range(9)
    ]
    Z = np.load(path, mmap_mode="r")
    half = SAMPLES // 2
    queries = np.array(Z[:: SAMPLES // 2000])
    joined = FewShotHead(device="host").fit(Z[:half], y[:half])
    merge, _ = timed(lambda: joined.merge(FewShotHead(device="host").fit(Z[half:], y[half:])))
    apart = np.abs(joined.predict_proba(queries) - head.predict_proba(queries)).max()
    saved = work / "million.head"
    save, load = timed(lambda: head.save(saved))[0], timed(lambda: FewShotHead.load(saved))[0]
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return [
        f"{SAMPLES:,} drawn embeddings, {DIM} dimensions, {CLASSES} classes, from a file of"
        f" {path.stat().st_size / 1e9:.1f} GB (medians of {rounds} rounds, sides in turn):",
        "",
        "| | |",
        "|---|---|",
        f"| `fit` | {median(ours):.1f} s |",
        f"| one pass of BLAS over the same file | {median(theirs):.1f} s |",
        f"| ratio | {median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}) |",
        f"| resident memory at most, pages of the file included | {megabytes} MB |",
        f"| add a class of five samples | {1e3 * median(a[0] for a in add):.0f} ms |",
        f"| forget it | {1e3 * median(a[2] for a in add):.0f} ms |",
        f"| learn the second half apart and merge | {merge:.1f} s, probabilities within {apart:.0e} of one `fit` |",
        f"| save, load | {save:.2f} s, {load:.2f} s, {saved.stat().st_size / 1e6:.0f} MB |",
        "",
    ]


def drawn(work: Path) -> tuple[Path, np.ndarray]:
    """Embeddings as a network with ReLU gives them: classes overlap, and share a scatter of low rank."""
    path = work / "million.npy"
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, SAMPLES)
    if not path.exists():
        half = path.with_suffix(".part")
        Z = np.lib.format.open_memmap(half, "w+", np.float32, (SAMPLES, DIM))
        centres = 0.35 * random.normal(size=(CLASSES, DIM)).astype(np.float32)
        shared = 0.18 * random.normal(size=(64, DIM)).astype(np.float32)
        for first in tqdm(range(0, SAMPLES, CHUNK), "drawing", leave=False):
            part = slice(first, first + CHUNK)
            scatter = random.normal(size=(CHUNK, 64)).astype(np.float32) @ shared
            noise = random.normal(size=(CHUNK, DIM)).astype(np.float32)
            Z[part] = np.maximum(centres[y[part]] + scatter + noise, 0)
        Z.flush()
        half.rename(path)
    return path, y


def resident(path: Path) -> int:
    """Most memory of a process that learns the file, in MB."""

    def now() -> int:
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024

    seen: list[int] = []
    Z = np.load(path, mmap_mode="r")
    y = np.random.default_rng(0).integers(0, CLASSES, len(Z))
    FewShotHead(device="host").fit(Z, y, progress=lambda done, total: seen.append(now()))
    # What the kernel counted between the calls holds the pages of a chunk too.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(int(peak.split()[1]) // 1024, *seen)


def blas(path: Path) -> np.ndarray:
    """The second moment of all samples together."""
    Z, moment = np.load(path, mmap_mode="r"), np.zeros((DIM, DIM), np.float32)
    for first in range(0, SAMPLES, CHUNK):
        part = np.asarray(Z[first : first + CHUNK])
        moment += part.T @ part
    return moment


def real(data: Path, work: Path) -> list[str]:
    """Accuracy beside logistic regression until it converges."""
    Z = characters(data, work)
    train, test = (Z[:, hands].reshape(-1, DIM) for hands in (slice(0, LEARNED), slice(LEARNED, HANDS)))
    y = np.repeat(np.arange(CLASSES), len(train) // CLASSES)
    truth = np.repeat(np.arange(CLASSES), len(test) // CLASSES)
    seconds, head = timed(lambda: FewShotHead(device="host").fit(train, y))
    lines = [
        f"{len(train):,} real samples of {CLASSES} handwritten characters ({LEARNED} hands, each drawing distorted"
        f" {DISTORTIONS} times), MobileNetV1 0.5, {DIM} dimensions; {len(test):,} queries by the other"
        f" {HANDS - LEARNED} hands:",
        "",
        "| | accuracy % | seconds | iterations |",
        "|---|---|---|---|",
        f"| fieldshot | {100 * head.score(test, truth):.2f} | {seconds:.1f} | |",
    ]
    # As in the evaluation; and on the root that our head takes, at the best C that we found.
    mean = normalize(train).mean(axis=0)
    kinds = {
        "unit length": (normalize, (1.0, 10.0, 100.0)),
        "centred": (lambda Z: normalize(normalize(Z) - mean), (1.0, 10.0, 100.0)),
        "root of it": (root, (100.0,)),
    }
    for kind, features, C in [(kind, features, C) for kind, (features, each) in kinds.items() for C in each]:
        name = f"{kind}, C = {C:g}"
        print(f"scale: logistic regression, {name}", file=sys.stderr, flush=True)
        model = LogisticRegression(C=C, max_iter=10_000)
        support = features(train)
        seconds, _ = timed(lambda model=model, support=support: model.fit(support, y))
        accuracy = 100 * model.score(features(test), truth)
        lines.append(f"| logistic regression, {name} | {accuracy:.2f} | {seconds:.0f} | {model.n_iter_[0]} |")
    return [*lines, ""]


def root(Z: np.ndarray) -> np.ndarray:
    return normalize(np.sqrt(Z))  # of what comes after a ReLU


def characters(data: Path, work: Path) -> np.ndarray:
    """Embeddings (classes, hands, distortions, D), kept in a file."""
    kept = work / "characters.npy"
    if kept.exists():
        return np.load(kept)
    by_character: dict[str, list[bytes]] = {}
    with zipfile.ZipFile(data / "data" / "omniglot_small1.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".png"):
                by_character.setdefault(str(Path(name).parent), []).append(archive.read(name))
    chosen = [pictures[:HANDS] for _, pictures in sorted(by_character.items())[:CLASSES]]
    items = [(picture, number) for pictures in chosen for picture in pictures for number in range(DISTORTIONS)]
    backbone = Backbone.load(bundle(data, "mobilenet_v1_0.5_160", work))
    with tqdm(total=len(items), desc="embedding", leave=False) as bar:
        Z = backbone.embed_with(items, distorted, progress=lambda done, total: bar.update(done - bar.n))
    np.save(kept, Z.reshape(CLASSES, HANDS, DISTORTIONS, DIM))
    return np.load(kept)


def distorted(item: tuple[bytes, int]) -> Image.Image:
    """A drawing turned, slanted, stretched and shifted a little; the same for the same number."""
    picture = Image.open(io.BytesIO(item[0])).convert("L")
    random = np.random.default_rng([item[1], len(item[0])])
    turn, slant = np.radians(random.uniform(-12, 12)), random.uniform(-0.2, 0.2)
    stretch = random.uniform(0.85, 1.2, 2)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = np.diag(stretch) @ np.array([[1.0, slant], [0.0, 1.0]]) @ matrix
    middle = np.array(picture.size) / 2
    shift = middle - matrix @ (middle + random.uniform(-6, 6, 2))
    (a, b), (d, e) = matrix
    moved = picture.transform(
        picture.size, Image.Transform.AFFINE, (a, b, shift[0], d, e, shift[1]), Image.Resampling.BILINEAR, fillcolor=255
    )
    return moved.convert("RGB")


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
