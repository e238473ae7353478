"""Reading a picture, beside Pillow alone: orientation, palettes and limits are what the difference pays for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fieldshot import images
from turns import Compare


@pytest.mark.parametrize("width", [640, 1920])
def bench_decode(benchmark: Any, compare: Compare, photographs: dict[int, Path], width: int) -> None:
    path = photographs[width]

    def pillow() -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    compare(2, ours=lambda: images.read(path), pillow=pillow)
    picture = benchmark.pedantic(images.read, (path,), rounds=20, warmup_rounds=2)
    np.testing.assert_array_equal(np.asarray(picture), pillow())
