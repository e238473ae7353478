"""What counts as equal embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fieldshot.errors import ExportError
from fieldshot_export.parity import Parity, check_embeddings, compare, statistics

EMBEDDINGS = arrays(np.float32, (3, 5), elements=st.floats(0.5, 100, width=32))


@given(EMBEDDINGS)
def test_equal_embeddings_agree(z: np.ndarray) -> None:
    parity = compare(z, z.copy())
    assert parity.cosine == pytest.approx(1.0)
    assert parity.max_abs == 0.0
    assert parity.within("float32")
    parity.require("float32")


@given(EMBEDDINGS, st.floats(0.01, 0.04))
def test_a_difference_is_a_share_of_the_largest_value(z: np.ndarray, share: float) -> None:
    other = z.astype(np.float64)
    other[1, 2] += share * z.max()
    parity = compare(z, other.astype(np.float32))
    assert parity.max_abs == pytest.approx(share, rel=1e-3)
    assert not parity.within("float32")
    with pytest.raises(ExportError, match="must agree with its source"):
        parity.require("float32")


def test_a_direction_counts_per_picture() -> None:
    z = np.array([[1, 0], [0, 1e-4]], np.float32)  # the second is small: no difference of it is large
    turned = np.array([[1, 0], [1e-4, 0]], np.float32)
    assert compare(z, turned).max_abs < 1e-3
    assert not compare(z, turned).within("float16")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_never_agrees(bad: float) -> None:
    z = np.ones((2, 3), np.float32)
    got = z.copy()
    got[1, 1] = bad
    parity = compare(z, got)
    assert math.isnan(parity.cosine)
    assert not parity.within("float16")
    assert not compare(z, np.ones((2, 4), np.float32)).within("float16")


def test_an_embedding_of_zeros_has_no_direction() -> None:
    z = np.array([[0, 0], [1, 2]], np.float32)
    assert not compare(z, z + np.float32(1e-9)).within("float16")


def test_embeddings_that_cannot_be_right() -> None:
    with pytest.raises(ExportError, match=r"must be finite .*in 1 of 3"):
        check_embeddings(np.array([[1, 2], [np.nan, 1], [3, 4]], np.float32))
    with pytest.raises(ExportError, match="must tell pictures apart"):
        check_embeddings(np.tile(np.array([[1, 2, 3]], np.float32), (4, 1)))
    with pytest.raises(ExportError, match="must tell pictures apart"):
        check_embeddings(np.zeros((4, 3), np.float32))
    check_embeddings(np.array([[1, 2], [1, 2.01]], np.float32))


def test_statistics() -> None:
    z = np.array([[0, 4], [2, 8]], np.float32)
    assert statistics(z) == {"count": 2, "mean": [1.0, 6.0], "std": [1.0, 2.0], "minimum": 0.0}


def test_parity_reads_well() -> None:
    assert str(Parity(0.99998, 0.006)) == "lowest cosine 0.9999800, largest difference 6.0e-03 of the largest value"
