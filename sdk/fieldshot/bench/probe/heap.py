"""Shakes the heap: where a stage's memory lies by chance must not decide whether it is slower.

Decoding one JPEG takes 2.0 or 2.6 ms on one machine, the same for as long as a process lives, as its small blocks
happen to lie. A process alone is a single throw of these dice, and of identical sides one is then 14 % slower (one
standard deviation, over pairs of processes). Shaken before each sample it is 5 %, and the rest averages out.
"""

from __future__ import annotations

import random

import numpy as np

__all__ = ["Heap"]

PIECES = 20  # that are taken each time
SMALLEST, LARGEST = 500, 60_000  # bytes; larger ones are pages of their own, and cost page faults


class Heap:
    """Holds blocks of memory of random sizes, twice as many as it takes each time."""

    def __init__(self) -> None:
        self._random = random.Random()  # of the system: the two sides are not to lie alike
        self._held: list[np.ndarray] = []

    def shake(self) -> None:
        """Take some blocks and give others back."""
        ratio = LARGEST / SMALLEST
        for _ in range(PIECES):
            self._held.append(np.empty(int(SMALLEST * ratio ** self._random.random()), np.uint8))
        self._random.shuffle(self._held)
        del self._held[2 * PIECES :]
