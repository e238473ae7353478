"""The numerical operations that a head is made of, and who computes them.

`Ops` (fieldshot.ops.interface) is the whole seam between algorithm and hardware, each operation one launch on
a GPU. `ReferenceOps` is the NumPy one, the yardstick for any other.
"""

from fieldshot.ops.interface import Float32, Float64, Index, Ops, Prior, Solution, Support, Transduction
from fieldshot.ops.reference import ReferenceOps

__all__ = ["Float32", "Float64", "Index", "Ops", "Prior", "Solution", "Support", "Transduction", "default_ops"]


def default_ops() -> Ops:
    """The operations that this machine runs best."""
    return ReferenceOps()
