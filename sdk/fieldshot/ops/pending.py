"""Embeddings that a device has yet to compute: they are made on the way to an answer, without leaving it before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fieldshot.ops.interface import Float32
from fieldshot.ops.runner import Call, Runner

__all__ = ["Pending"]


@dataclass(frozen=True)
class Pending:
    """Embeddings (N, D), float32, that are computed whenever they are asked for.

    Attributes
    ----------
    shape : (int, int)
        N and D.
    runner : Runner
        On whose calls they can be computed.
    call : callable
        Starts such a call.
    launch : callable
        ``launch(call)`` starts that and returns the address where they will be; ``call.fetch()`` gives them too, first.
    """

    shape: tuple[int, int]
    runner: Runner
    call: Callable[[], Call]
    launch: Callable[[Call], int]

    def fetch(self) -> Float32:
        """Compute them and bring them here."""
        with self.call() as call:
            self.launch(call)
            embeddings, *_ = call.fetch()
        return embeddings
