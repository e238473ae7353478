"""The reference workload: what slows it slows a stage too, and no change of fieldshot does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

__all__ = ["reference"]


def reference() -> Callable[[], object]:
    """A millisecond of what stages are made of: products of matrices, passes over memory, bytes, the interpreter."""
    random = np.random.default_rng(0)
    left, right = random.random((2, 96, 96), np.float32)
    picture = random.integers(0, 256, (240, 320, 3), np.uint8)
    payload = picture.tobytes()[:65536]

    def work() -> object:
        product = left
        for _ in range(4):
            product = product @ right
        scaled = picture.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        words = {number: str(number) for number in range(600)}
        return product[0, 0], scaled[0, 0, 0], hashlib.sha256(payload).digest(), len(words)

    return work
