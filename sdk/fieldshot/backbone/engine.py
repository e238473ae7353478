"""What runs a network: the protocol that every engine keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fieldshot.images import Picture, Preprocessing
from fieldshot.ops import Pending

__all__ = ["Engine", "FromPictures"]

Floats = npt.NDArray[np.float32]
FromPictures = Callable[[Sequence[Picture], Preprocessing], Pending]


class Engine(Protocol):
    """A network that is ready to run; ``run`` and ``run_beside`` may be called from any thread.

    Attributes
    ----------
    passed_over : str
        Better engines or lower precisions that are not used here, with reasons.
    """

    passed_over: str

    @property
    def name(self) -> str:
        """The word that chooses it."""
        ...

    @property
    def precision(self) -> str:
        """Which of the bundle's networks it is."""
        ...

    @property
    def workers(self) -> int:
        """Calls of ``run_beside`` at once that make the most of the device."""
        ...

    @property
    def batch_size(self) -> int:
        """Pictures in each of them, at most, that do."""
        ...

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Sizes of batches that run differently, so that each has to be checked."""
        ...

    @property
    def pending(self) -> FromPictures | None:
        """Makes embeddings of pictures, to be computed from the preprocessing on; None where no device does that."""
        ...

    def run(self, batch: Floats) -> Floats:
        """Turn inputs of shape (n, 3, height, width) into embeddings of shape (n, D), both float32, soonest."""
        ...

    def run_beside(self, batch: Floats) -> Floats:
        """Like ``run``, for one of several calls at once: together soonest."""
        ...

    def info(self) -> dict[str, Any]:
        """What runs where, in words and numbers that JSON can hold."""
        ...
