"""Latency: measured by stage, compared with another version, and judged.

`probe` runs in the processes that are measured; `workers` starts them from the copies that `sides` makes, `running`
takes their samples in turn, `deciding` makes verdicts of them, `gate` joins these, `comparing` judges stored results,
`counting` has instructions counted beside it, `summary` tells of it. `documents` reads what users hand in, `history`
keeps results over time and `page` draws them, beside the `anchors` that others publish; `budget` says whether a result
keeps to what a board is allowed.
"""

from __future__ import annotations

from fieldshot.bench.comparing import Comparison, compare, gate_result
from fieldshot.bench.gate import gate
from fieldshot.bench.result import Measured, Result, load_result
from fieldshot.bench.running import run

__all__ = ["Comparison", "Measured", "Result", "compare", "gate", "gate_result", "load_result", "run"]
