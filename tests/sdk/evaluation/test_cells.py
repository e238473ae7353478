"""Which cells there are, and what a grid leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from fieldshot.errors import OptionError
from fieldshot.evaluation import Pool, plan


def pool(*sizes, tested=None):
    def labels(counts):
        return np.repeat([f"class {k}" for k in range(len(counts))], counts)

    return Pool.of(labels(sizes), None if tested is None else labels(tested))


def cells(of, ways, shots, queries=15, episodes=200, **more):
    planned, left_out = plan(of, ways, shots, queries, episodes, None, **more)
    return [(cell.ways, cell.shots, cell.queries, cell.episodes) for cell in planned], left_out


def test_numbers_and_all_by_ways_then_shots():
    assert cells(pool(20, 30, 40), [2, "all"], (1, "all")) == (
        [(2, 1, 15, 200), (2, "all", 15, 200), (3, 1, 15, 200), (3, "all", 15, 200)],
        [],
    )
    assert cells(pool(20, 30), 2, np.array([1, 1, 5]))[0] == [(2, 1, 15, 200), (2, 5, 15, 200)]
    assert cells(pool(20, 30), "all", "all")[0] == [(2, "all", 15, 200)]


def test_all_ways_that_are_a_number_are_one_cell():
    assert [ways for ways, *_ in cells(pool(20, 20, 20), [3, "all", 2], 1)[0]] == [3, 2]


def test_a_grid_leaves_out_what_there_is_not_and_names_it():
    planned, left_out = cells(pool(30, 40, 50, 60, 70, 80), "grid", "grid")
    assert [ways for ways, shots, *_ in planned if shots == 1] == [2, 5, 6]
    assert [(shots, queries) for ways, shots, queries, _ in planned if ways == 2] == [
        (1, 15), (2, 15), (3, 15), (5, 15), (10, 15), (20, 10), ("all", 15),
    ]  # fmt: skip
    assert left_out == ["10, 20 ways (there are 6 classes)", "50, 100 shots (class 'class 0' has 30)"]


def test_the_cells_of_a_grid_have_five_queries_at_least():
    shots = [(shots, queries) for _, shots, queries, _ in cells(pool(25, 24), "grid", "grid")[0]]
    assert shots == [(1, 15), (2, 15), (3, 15), (5, 15), (10, 14), ("all", 15)]
    assert (20, 5) in [(shots, queries) for _, shots, queries, _ in cells(pool(25, 25), "grid", "grid")[0]]
    fewer = [(shots, queries) for _, shots, queries, _ in cells(pool(25, 24), "grid", "grid", queries=3)[0]]
    assert (20, 3) in fewer
    with pytest.raises(OptionError, match=r"at least one cell .got none: .*'class 1' has 5.*smallest classes"):
        cells(pool(25, 5), "grid", "grid")


def test_all_shots_that_a_grid_has_by_number_are_left_to_it():
    assert "all" not in [shots for _, shots, *_ in cells(pool(20, 20), "grid", "grid")[0]]
    assert "all" in [shots for _, shots, *_ in cells(pool(20, 21), "grid", "grid")[0]]
    assert [shots for _, shots, *_ in cells(pool(20, 20), 2, [5, "all"])[0]] == [5, "all"]


def test_large_cells_of_a_grid_have_fewer_episodes():
    large = pool(*[200] * 25)
    episodes = {(ways, shots): count for ways, shots, _, count in cells(large, "grid", "grid", episodes=300)[0]}
    assert episodes[2, 1] == 300
    assert episodes[5, 50] == 20_000 // 250
    assert episodes[2, "all"] == 20_000 // (2 * 185)
    assert episodes[25, 100] == 10
    assert set(dict.fromkeys(count for *_, count in cells(large, "grid", "grid", episodes=7)[0])) == {7}
    assert cells(large, 25, 100)[0] == [(25, 100, 15, 200)]


def test_of_a_split_support_and_queries_count_apart():
    split = pool(10, 12, tested=(8, 9))
    assert cells(split, 2, [10, "all"], queries=8)[0] == [(2, 10, 8, 200), (2, "all", 8, 200)]
    planned, left_out = cells(split, "grid", "grid")
    assert [(shots, queries) for _, shots, queries, _ in planned] == [(s, 8) for s in (1, 2, 3, 5, 10, "all")]
    assert left_out[-1] == "20, 50, 100 shots (class 'class 0' has 10 to learn from and 8 to recognise)"


def test_heterogeneous():
    assert cells(pool(20, 30), None, None, heterogeneous=True)[0] == [("drawn", "drawn", 10, 200)]
    assert cells(pool(20, 30), None, None, queries=4, heterogeneous=True)[0] == [("drawn", "drawn", 4, 200)]
    with pytest.raises(OptionError, match=r"must have 2 pictures .* .got 1 of 'class 1'"):
        cells(pool(20, 1), None, None, heterogeneous=True)
    for ways, shots, asked in ((2, None, "ways"), (None, [1], "shots"), (2, 1, "ways and shots")):
        with pytest.raises(OptionError, match=rf"must draw their ways and shots .got {asked} too.*leave out {asked}"):
            cells(pool(20, 30), ways, shots, heterogeneous=True)


def test_ways_and_shots_that_are_left_out():
    assert cells(pool(*[20] * 6), None, None)[0] == [(5, 1, 15, 200), (5, 5, 15, 200)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 7}, "at least 7 classes for 7 ways .got 6."),
        ({"ways": [2, 7]}, "at least 7 classes for 7 ways .got 6."),
        ({"ways": 1}, "ways must be a whole number, at least 2"),
        ({"ways": "most"}, "ways must be numbers or 'all', or 'grid' alone .got 'most'."),
        ({"shots": [1, "grid"]}, "shots must be numbers or 'all', or 'grid' alone .got 'grid'."),
        ({"shots": []}, "shots must be a whole number, at least 1"),
        ({"shots": [1, 0]}, "shots must be a whole number, at least 1"),
        ({"queries": 0}, "queries must be a whole number, at least 1"),
        ({"episodes": 0}, "episodes must be a whole number, at least 1"),
        ({"ways": 2.5}, "ways must be a whole number, at least 2 .got 2.5."),
        ({"ways": True}, "ways must be a whole number, at least 2 .got True."),
        ({"shots": [1, 5.0]}, "shots must be a whole number, at least 1 .got 5.0."),
        ({"queries": 4.0}, "queries must be a whole number, at least 1 .got 4.0."),
        ({"queries": True}, "queries must be a whole number, at least 1 .got True."),
        ({"episodes": "5"}, "episodes must be a whole number, at least 1 .got '5'."),
        ({"balance": 0.0}, "balance must be above 0"),
        ({"balance": float("nan")}, "balance must be above 0"),
        ({"shots": [9]}, "must have 13 pictures .* .got 12 of 'class 0'."),
        ({"ways": "grid", "shots": [9]}, "must have 13 pictures .* .got 12 of 'class 0'."),
        ({"shots": "all", "queries": 12}, "must have 13 pictures .* .got 12 of 'class 0'."),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    asked = {"ways": 3, "shots": [1], "queries": 4, "episodes": 5, "balance": None, **options}
    with pytest.raises(OptionError, match=message):
        plan(pool(*[12] * 6), **asked)


def test_other_classes_in_the_test_set_are_refused():
    with pytest.raises(OptionError, match=r"same classes .got 3 beside 2."):
        pool(5, 5, tested=(5, 5, 5))
