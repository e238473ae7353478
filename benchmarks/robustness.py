"""The head on samples as they should not be, beside baselines: `make accuracy`, whose embeddings it takes.

Writes benchmarks/results/accuracy/robustness.md: 5 ways, on the support of an episode changed as each line says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from accuracy import embedded, options
from fieldshot.evaluation import Row, evaluate
from fieldshot.evaluation.methods import find

METHODS = (
    *("fieldshot", "nearest mean, power + centred", "5-NN", "logistic C=1", "logistic C=10, centred"),
    *("linear SVM", "LDA, Ledoit-Wolf"),
)
Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def wrong(share: float) -> Change:
    """So many labels, rounded, are those of other classes."""

    def change(Z, y, random):
        y, classes = y.copy(), y.max() + 1
        chosen = random.choice(len(y), round(share * len(y)), replace=False)
        y[chosen] = (y[chosen] + random.integers(1, classes, len(chosen))) % classes
        return Z, y

    return change


def rare(Z, y, random):
    """One sample of the first two classes, all of the others."""
    keep = y > 1
    keep[[np.flatnonzero(y == k)[0] for k in (0, 1)]] = True
    return Z[keep], y[keep]


def twice(Z, y, random):
    """Each sample of the first class ten times."""
    again = np.repeat(np.arange(len(y)), np.where(y == 0, 10, 1))
    return Z[again], y[again]


def scaled(Z, y, random):
    """Each sample times a number of its own."""
    return Z * np.float32(10) ** random.uniform(-4, 4, (len(Z), 1)).astype(np.float32), y


CHANGES: dict[str, tuple[int, Change]] = {
    "20 shots as they are": (20, lambda Z, y, random: (Z, y)),
    "10 % of the labels wrong": (20, wrong(0.1)),
    "30 % of the labels wrong": (20, wrong(0.3)),
    "two of the five classes with one sample, three with 20": (20, rare),
    "all samples of one class ten times": (20, twice),
    "samples scaled by 1e-4 to 1e4": (20, scaled),
    "5 shots as they are": (5, lambda Z, y, random: (Z, y)),
    "one label of the 25 wrong": (5, wrong(0.04)),
}


class Changed:
    """A method that gets another support than it should."""

    def __init__(self, name: str, change: Change) -> None:
        self.method, self.change = find(name)(), change

    def fit(self, Z, y):
        # The same change for all methods of an episode.
        random = np.random.default_rng(abs(int(1e6 * float(np.abs(Z).sum(dtype=np.float64)))) % 2**32)
        self.method.fit(*self.change(Z, y, random))
        return self

    def predict_proba(self, Z):
        return self.method.predict_proba(Z)


def main() -> None:
    arguments = options(__doc__)
    rows: dict[str, list[Row]] = {name: [] for name in CHANGES}
    for name, samples in embedded(arguments, drawings=False):  # of which there are 20 a class
        for change, (shots, changed) in CHANGES.items():
            rows[change] += evaluate(
                samples.embeddings,
                samples.labels,
                ways=5,
                shots=shots,
                episodes=arguments.episodes,
                methods={method: partial(Changed, method, changed) for method in METHODS},
                name=name,
            )
    text = document(rows, arguments.episodes)
    (arguments.out / "robustness.md").write_text(text, "utf-8")
    print(text)


def document(rows: dict[str, list[Row]], episodes: int) -> str:
    cells = len(next(iter(rows.values()))) // len(METHODS)
    lines = [
        "# Samples as they should not be",
        "",
        f"`make accuracy`: accuracy in %, 5 ways, mean over {cells} data sets x backbones, {episodes} episodes each;"
        " the last column is the calibration error of fieldshot in %.",
        "",
        f"| support | {' | '.join(METHODS)} | ECE |",
        "|---" * (len(METHODS) + 2) + "|",
    ]
    for name, of in rows.items():
        means = [100 * np.mean([row.accuracy for row in of if row.method == method]) for method in METHODS]
        error = 100 * np.mean([row.ece for row in of if row.method == "fieldshot"])
        lines.append(f"| {name} | {' | '.join(f'{mean:.1f}' for mean in means)} | {error:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
