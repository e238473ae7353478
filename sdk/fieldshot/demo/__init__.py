"""The main job, shown: enrol classes from a few pictures, recognise others, say how well and how fast."""

from fieldshot.demo.run import SHEET, DemoResult, DemoRow, run
from fieldshot.demo.sheet import MARK

__all__ = ["MARK", "SHEET", "DemoResult", "DemoRow", "run"]
