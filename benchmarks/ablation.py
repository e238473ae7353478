"""What each ingredient of the head is worth: the head without it, on the grid of `make accuracy`, which comes first.

Takes the embeddings that accuracy.py left in the folder --work, writes benchmarks/results/accuracy/ablation.md.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np

from accuracy import embedded, options, shot_counts
from fieldshot import FewShotHead
from fieldshot.evaluation import Row, evaluate


class Unpulled(FewShotHead):
    """Where a class has one sample the pull does not depend on its weight: there the formula is patched."""

    def _prior(self, dim):
        return super()._prior(dim)._replace(pull=1e-9)

    def fit(self, Z, y):
        if np.bincount(y).min() > 1:
            return super().fit(Z, y)
        self.device = "reference"
        with patch("fieldshot.ops.reference._pull", lambda counts, prior: np.zeros(len(counts))):
            return super().fit(Z, y)


class Alone(FewShotHead):
    def _refit(self, *state):
        super()._refit(*state)
        self._state = self._state._replace(neighbours=None)


class Variant:
    """A head on embeddings raised to a power first; the head itself takes their root."""

    def __init__(self, head: FewShotHead, power: float = 1.0) -> None:
        self.head, self.power = head, power

    def fit(self, Z, y):
        self.head.fit(self._raised(Z), y)
        return self

    def predict_proba(self, Z):
        return self.head.predict_proba(self._raised(Z))

    def _raised(self, Z):
        return Z if self.power == 1.0 else np.sign(Z) * np.abs(Z) ** self.power


VARIANTS = {
    "as it is": FewShotHead,
    "scatter of the means not used (no pull)": lambda: Variant(Unpulled()),
    "neighbours not asked": Alone,
    "unit length only, no root": lambda: Variant(FewShotHead(), 2.0),
    "power 3/4 instead of the root": lambda: Variant(FewShotHead(), 1.5),
    "covariance prior 50": lambda: Variant(FewShotHead(covariance_prior=50.0)),
    "covariance prior 800": lambda: Variant(FewShotHead(covariance_prior=800.0)),
    "covariance round (prior 1e6)": lambda: Variant(FewShotHead(covariance_prior=1e6)),
    "mean prior 0.1": lambda: Variant(FewShotHead(mean_prior=0.1)),
    "mean prior 8": lambda: Variant(FewShotHead(mean_prior=8.0)),
}


def main() -> None:
    arguments = options(__doc__)
    rows: list[Row] = []
    for name, samples in embedded(arguments):
        rows += evaluate(
            samples.embeddings,
            samples.labels,
            ways="grid",
            shots="grid",
            episodes=arguments.episodes,
            methods=VARIANTS,
            name=name,
        )
    text = document(rows, arguments.episodes)
    (arguments.out / "ablation.md").write_text(text, "utf-8")
    print(text)


def document(rows: list[Row], episodes: int) -> str:
    shots = shot_counts(rows)
    table = {(row.method, row.data, row.ways, row.shots): row for row in rows}
    cells = list(dict.fromkeys((row.data, row.ways, row.shots) for row in rows))

    def gain(method: str, wanted: list) -> str:
        ours = np.mean([table[("as it is", *cell)].accuracy for cell in wanted])
        return f"{100 * (np.mean([table[(method, *cell)].accuracy for cell in wanted]) - ours):+.2f}"

    lines = [
        "# What each ingredient is worth",
        "",
        f"`make accuracy`: accuracy in points against the head as it is, on the same episodes ({len(cells)} cells, at"
        f" most {episodes} episodes each), by shots and over all; ECE in % over all.",
        "",
        f"| the head with | {' | '.join(map(str, shots))} | all cells | ECE |",
        "|---" * (len(shots) + 3) + "|",
    ]
    for method in VARIANTS:
        parts = [gain(method, [cell for cell in cells if cell[2] == count]) for count in shots]
        error = 100 * np.mean([table[(method, *cell)].ece for cell in cells])
        lines.append(f"| {method} | {' | '.join([*parts, gain(method, cells)])} | {error:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
