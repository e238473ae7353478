"""One suite for every build of the kernels: the operations are those of the float64 reference.

It runs here on the host build and on the race build of the check machine; test_builds.py runs it again on others.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldshot.ops import Classifier
from fieldshot.ops.blocked import fit_blocked
from problems import errors_of, problem

# Sums of D products in float32, against the largest number of the result. Where there are many samples for their
# dimensions the system's condition number (up to about N D / 200) multiplies that.
TOLERANCE = 2e-5

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pycuda")


def assert_conforms(ops, counts, D, **options):
    errors = errors_of(ops, problem(counts, D, **options))
    wrong = {name: error for name, error in errors.items() if not error < TOLERANCE}
    assert not wrong, f"{ops.name}: {wrong}"


SHAPES = [
    ([1], 7, {}),  # one sample, one class
    ([1, 1], 1, {}),  # one dimension
    ([1] * 5, 64, {}),
    ([5] * 5, 127, {}),
    ([3, 1, 7], 127, {}),  # one alone in its class
    ([20, 19], 64, {}),  # the last that is small
    ([20, 21], 65, {}),  # the first that goes by blocks
    ([30, 1, 40], 130, {}),  # two blocks of 64, the second ragged
    ([30, 1, 40], 130, {"keep": 10}),  # of the others some lie in other tiles, by blocks alone
    ([90, 2, 110], 210, {"keep": 60}),  # rows of the identity in tiles that begin later
    ([60, 2, 70], 192, {}),  # dimensions in whole vectors, and more samples than their weights are made of at once
    ([5, 9], 20, {"keep": 3}),
    ([9, 1], 3, {"moment": True}),
    ([40, 30, 2], 24, {"moment": True}),
    ([50] * 3, 67, {"moment": True, "keep": 10}),
    ([80, 90], 129, {"moment": True, "keep": 5}),
]


@pytest.mark.parametrize(("counts", "D", "options"), SHAPES, ids=lambda value: str(value))
def test_operations_are_those_of_the_reference(ops, counts, D, options):
    assert_conforms(ops, counts, D, **options)


@pytest.mark.parametrize("options", [{}, {"moment": True}])
@pytest.mark.parametrize("covariance", [1.0, 20.0])
def test_priors_that_trust_the_samples_more(ops, covariance, options):
    """The condition number is 200 times as large, or 10 times."""
    errors = errors_of(ops, problem([30, 1, 40], 60, mean=0.1, covariance=covariance, **options))
    assert max(errors.values()) < 200 / covariance * TOLERANCE, errors


@settings(
    deadline=None,
    max_examples=12,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=7),
    st.integers(1, 90),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_operations_are_those_of_the_reference_on_any_shape(ops, counts, D, moment, seed):
    assert_conforms(ops, counts, D, moment=moment or sum(counts) > D, seed=seed)


@pytest.mark.parametrize("fill", [0.0, 1.0, 1e-38, 1e38, -2.0])
def test_embeddings_without_information(ops, fill):
    Z = np.full((6, 5), fill, np.float32)
    starts = np.array([0, 2, 4, 6], np.int32)
    expected = np.sign(fill) / np.sqrt(5)
    U, sums = ops.absorb(Z, starts)
    np.testing.assert_allclose(U, expected, atol=1e-6)
    np.testing.assert_allclose(sums, 2 * expected, atol=1e-6)


def test_embeddings_in_float64_past_the_range_of_float32(ops):
    Z = np.array([[1e300, 1e299], [4e-300, 1e-300], [0, 0]])
    U, _ = ops.absorb(Z, np.array([0, 3], np.int32))
    np.testing.assert_allclose(U, [np.sqrt([10 / 11, 1 / 11]), np.sqrt([0.8, 0.2]), [0, 0]], rtol=1e-6)


def test_embeddings_in_whole_numbers(ops):
    U, _ = ops.absorb(np.array([[-128, 32], [100, 0]], np.int8), np.array([0, 2], np.int32))
    np.testing.assert_allclose(U, [[-np.sqrt(0.8), np.sqrt(0.2)], [1, 0]], rtol=1e-6)


def test_the_best_of_equals_is_the_first(ops):
    weights = np.zeros((9, 4), np.float32)
    bias = np.array([0, 1, 0, 2, 2, 0, 1, 2, -1], np.float32)
    held = ops.load(Classifier(weights, bias, weights, 1.0))
    for count in (1, 5):
        best = ops.predict(held, np.ones((count, 4), np.float32), top=9).best
        np.testing.assert_array_equal(best, [[3, 4, 7, 1, 6, 0, 2, 5, 8]] * count)


def test_many_pass_in_pieces(ops, monkeypatch):
    given = problem([9, 4, 6], 16, moment=True)
    whole = errors_of(ops, given)
    monkeypatch.setattr("fieldshot.ops.kernels._CHUNK_BYTES", 16 * 4 * 5)
    pieces = errors_of(ops, given)
    assert max(whole.values()) < TOLERANCE
    assert max(pieces.values()) < TOLERANCE


def test_memory_of_a_device_in_many_blocks(ops, monkeypatch):
    if ops.name != "cuda":
        pytest.skip("memory comes in blocks on a CUDA device only")
    for name, size in (("_BLOCK_BYTES", 1024), ("_KEPT_BYTES", 1024), ("_LARGE_BYTES", 20_000)):
        monkeypatch.setattr(f"fieldshot.device.memory.{name}", size)
    idle = ops.runner.device._idle
    kept = list(idle)
    idle.clear()  # new workspaces, of small blocks
    assert_conforms(ops, [5, 3, 9], 70)
    assert_conforms(ops, [30, 40], 90)
    assert_conforms(ops, [30, 40, 20], 40, moment=True, keep=20)
    idle.clear()
    idle.extend(kept)


def test_every_fit_by_blocks(ops, monkeypatch):
    monkeypatch.setattr(type(ops), "fit", lambda self, *given: fit_blocked(self.runner, *given))
    for counts, D in (([1], 7), ([5] * 5, 127), ([3, 1, 7], 127), ([30, 1, 40], 130)):
        assert_conforms(ops, counts, D)


def test_the_order_of_lanes_and_blocks_changes_no_bit(ops):
    if ops.name != "race":
        pytest.skip("only the check machine shuffles its lanes")
    small, dual = problem([5, 1, 6], 40), problem([30, 1, 40], 75, keep=10)
    primal = problem([9, 4, 6, 30], 48, moment=True, keep=6)
    results = []
    for seed in range(3):
        ops.runner.library.fieldshot_check_seed(seed)
        results.append([part for given in (small, dual, primal) for part in ops.fit(given.support, given.prior)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
