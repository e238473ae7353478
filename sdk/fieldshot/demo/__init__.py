"""The main job, shown: enrol classes from a few pictures, recognise others, say how well and how fast."""

from fieldshot.demo.run import DemoResult, DemoRow, run

__all__ = ["DemoResult", "DemoRow", "run"]
