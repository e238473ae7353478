"""What is told of a measurement: numbers as text, figures, and one page with all of it."""

from fieldshot.evaluation.report.document import MARK, page
from fieldshot.evaluation.report.drawing import figures
from fieldshot.evaluation.report.numbers import MethodSummary, Regret, regret, summary
from fieldshot.evaluation.report.text import table

__all__ = ["MARK", "MethodSummary", "Regret", "figures", "page", "regret", "summary", "table"]
