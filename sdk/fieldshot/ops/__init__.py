"""The numerical operations that a head is made of, and who computes them.

`Ops` (fieldshot.ops.interface) is the whole seam between algorithm and hardware. `ReferenceOps` is the NumPy one, the
yardstick for any other; `HostOps` and `CudaOps` launch the same kernels on the CPU and on a GPU.
"""

from fieldshot.ops.choice import Choice, choose, find_ops
from fieldshot.ops.interface import (
    Classifier,
    Float32,
    Float64,
    Index,
    Ops,
    Prediction,
    Prior,
    Solution,
    Support,
    Transduction,
)
from fieldshot.ops.pending import Pending
from fieldshot.ops.reference import ReferenceOps

__all__ = [
    "Choice",
    "Classifier",
    "Float32",
    "Float64",
    "Index",
    "Ops",
    "Pending",
    "Prediction",
    "Prior",
    "ReferenceOps",
    "Solution",
    "Support",
    "Transduction",
    "choose",
    "find_ops",
]
