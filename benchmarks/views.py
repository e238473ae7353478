"""What it gains to average over views of each picture: `make accuracy`.

Writes benchmarks/results/accuracy/views.md: 5 ways, two and three views beside one on the same episodes.
"""

from __future__ import annotations

import numpy as np

from accuracy import embedded, options, shot_counts
from fieldshot.evaluation import Row, evaluate, mean_interval

VIEWS = (1, 2, 3)


def main() -> None:
    arguments = options(__doc__)
    rows: list[Row] = []
    for views in VIEWS:
        for name, samples in embedded(arguments, views=views):
            rows += evaluate(
                samples.embeddings,
                samples.labels,
                ways=5,
                shots="grid",
                episodes=arguments.episodes,
                name=f"{name} / {views}",
            )
    text = document(rows, arguments.episodes)
    (arguments.out / "views.md").write_text(text, "utf-8")
    print(text)


def document(rows: list[Row], episodes: int) -> str:
    lines = [
        "# Views",
        "",
        f"`make accuracy`: accuracy in points against one view on the same episodes, 5 ways, {episodes} episodes at"
        " most a cell, with the 95 % interval over episodes.",
        "",
    ]
    cells = {(*row.data.split(" / "), row.shots): row for row in rows}
    sets = list(dict.fromkeys(name for name, *_ in cells))

    def gain(views: int, wanted: list[tuple]) -> str:
        pairs = [
            (cells[name, network, str(views), shots].accuracies, cells[name, network, "1", shots].accuracies)
            for name, network, shots in wanted
        ]
        points = [100 * (one - other) for ours, theirs in pairs for one, other in zip(ours, theirs, strict=True)]
        mean, interval = mean_interval(points)
        return f"{mean:+.2f} +- {interval:.2f}"

    places = list(dict.fromkeys((name, network, shots) for name, network, _, shots in cells))
    for title, columns in (
        ("shots", [(str(shots), [p for p in places if p[2] == shots]) for shots in shot_counts(rows)]),
        ("set", [(name, [p for p in places if p[0] == name]) for name in sets]),
    ):
        lines += [
            f"| views, by {title} | {' | '.join(name for name, _ in columns)} |",
            "|---" * (len(columns) + 1) + "|",
        ]
        for views in VIEWS[1:]:
            lines.append(f"| {views} | {' | '.join(gain(views, wanted) for _, wanted in columns)} |")
        lines.append("")
    worst = {views: min(float(gain(views, [place]).split()[0]) for place in places) for views in VIEWS[1:]}
    errors = {
        views: 100 * np.mean([row.ece for (*_, v, _), row in cells.items() if v == str(views)]) for views in VIEWS
    }
    lines += [
        f"Over all {len(places)} cells: "
        + "; ".join(f"{views} views {gain(views, places)}, the worst cell {worst[views]:+.2f}" for views in VIEWS[1:])
        + ". Calibration error: "
        + ", ".join(f"{error:.1f} % by {views}" for views, error in errors.items())
        + " views.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
