"""By how much a benchmark may differ and still be level: a JSON file of one number each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fieldshot.bench.documents import read_json
from fieldshot.bench.suites import SUITES
from fieldshot.errors import OptionError

__all__ = ["read_thresholds"]

_OURS = Path(__file__).with_name("thresholds.json")


def read_thresholds(names: Iterable[str], path: str | os.PathLike[str] | None = None) -> dict[str, float]:
    """Threshold of each benchmark.

    Parameters
    ----------
    names : iterable of str
        Benchmarks.
    path : path, optional
        A JSON object: benchmark -> threshold (0.05 is 5 %), and under ``""`` that of all others. What it does not name
        is as in fieldshot's own, `thresholds.json` beside this module.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is no such object, names what is no benchmark, or holds a number that is not above 0 and at most 1.
    """
    numbers = _read(_OURS)
    if path is not None:
        given = _read(Path(path))
        if "" in given:
            numbers = {}
        numbers |= given
    return {name: numbers.get(name, numbers[""]) for name in names}


def _read(path: Path) -> dict[str, float]:
    numbers = read_json(path, "thresholds")
    if not isinstance(numbers, dict):
        raise OptionError(f"{path} must be a JSON object (got another value)", hint='{"": 0.08, "recognize": 0.05}')
    known = ["", *SUITES["full"]]
    unknown = [key for key in numbers if key not in known]
    if unknown:
        raise OptionError(
            f"{path} must name benchmarks (got {', '.join(map(repr, unknown))})",
            hint=f'benchmarks are {", ".join(known[1:])}; "" stands for all others',
        )
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise OptionError(
                f"{path} must hold a number above 0, at most 1, for each benchmark (got {value!r} for {key!r})",
                hint="5 % is 0.05",
            )
    return {key: float(value) for key, value in numbers.items()}
