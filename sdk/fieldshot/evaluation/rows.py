"""The numbers of one method on one cell, and the file that finished ones are kept in."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

__all__ = ["Journal", "Row"]

_LOG = logging.getLogger("fieldshot")


@dataclass(frozen=True)
class Row:
    """One method on the episodes of one cell.

    Attributes
    ----------
    data : str
        Name of the data, and of the backbone where several are compared.
    method : str
    ways : int or "drawn"
        Classes an episode.
    shots : int, "all" or "drawn"
        Support samples a class.
    queries : int
        Query samples a class, at most.
    balance : float or "balanced"
        Queries are as many of each class, or in proportions of a symmetric Dirichlet distribution with this alpha.
    episodes : int
    accuracy : float
        Mean over episodes, in [0, 1].
    interval : float
        Half width of its 95 % confidence interval; nan of one episode.
    worst_decile : float
        Mean accuracy of the worst tenth of the episodes.
    ece : float
        Expected calibration error, in [0, 1], over the queries of all episodes.
    brier : float
        Brier score, in [0, 2], over the queries of all episodes.
    fit_ms : float
        Median time of one fit, in milliseconds, on one thread.
    accuracies, hardness : list of float
        Of each episode; how hard it is whatever the method (`fieldshot.evaluation.hardness`).
    """

    data: str
    method: str
    ways: int | str
    shots: int | str
    queries: int
    balance: float | str
    episodes: int
    accuracy: float
    interval: float
    worst_decile: float
    ece: float
    brier: float
    fit_ms: float
    accuracies: list[float]
    hardness: list[float]


class Journal:
    """Finished rows in a file of JSON lines, each with the key of all that it depends on.

    A line is added whole and flushed to the disk; a last line that a power loss has torn is dropped.

    Parameters
    ----------
    path : str or os.PathLike
        Made where it is missing.

    Raises
    ------
    OSError
        If it cannot be read and written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._rows: dict[str, Row] = {}
        with open(self._path, "a+b") as file:
            file.seek(0)
            whole, _, torn = file.read().rpartition(b"\n")
            if torn:
                _LOG.warning("the last line of %s was torn and is dropped", self._path)
                file.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            try:
                entry = json.loads(line)
                row = Row(**entry["row"])
                self._rows[entry["key"]] = row if row.interval is not None else replace(row, interval=math.nan)
            except (ValueError, TypeError, KeyError) as error:
                _LOG.warning("line %d of %s is no row and is passed over: %s", number, self._path, error)

    def get(self, key: str) -> Row | None:
        """The row of a key, if it is there."""
        return self._rows.get(key)

    def rows(self) -> list[Row]:
        """All rows, in the order of their first arrival."""
        return list(self._rows.values())

    def add(self, key: str, row: Row) -> None:
        """Append a row."""
        values = asdict(row)
        if math.isnan(row.interval):
            values["interval"] = None  # JSON has no nan
        line = json.dumps({"key": key, "row": values}) + "\n"
        with open(self._path, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._rows[key] = row
