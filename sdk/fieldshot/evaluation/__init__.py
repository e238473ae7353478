"""Few-shot accuracy and calibration on anybody's classes, measured over episodes, beside what people use instead."""

from __future__ import annotations

from fieldshot.evaluation.cells import Axis, plan
from fieldshot.evaluation.episodes import Cell, Episode, Pool, draw
from fieldshot.evaluation.grid import evaluate
from fieldshot.evaluation.measures import hardness, mean_interval, worst_decile
from fieldshot.evaluation.methods import GROUPS, Method, select
from fieldshot.evaluation.rows import Journal, Row

__all__ = [
    "GROUPS",
    "Axis",
    "Cell",
    "Episode",
    "Journal",
    "Method",
    "Pool",
    "Row",
    "draw",
    "evaluate",
    "hardness",
    "mean_interval",
    "plan",
    "select",
    "worst_decile",
]
