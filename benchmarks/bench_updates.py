"""Adding a class to a head, taking one away and looking at unlabelled samples, on one core of a CPU.

The first two are beside a fit on all samples, which gives the same head; the third is beside transductive methods.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench_head import drawn, noise
from fieldshot import FewShotHead
from fieldshot.evaluation.transductive import BASELINES
from turns import Compare

pytestmark = pytest.mark.usefixtures("one_core")

GRID = [(5, 1), (5, 5), (20, 20)]
NAMES = [f"{ways}way-{shots}shot-d512" for ways, shots in GRID]


@pytest.mark.parametrize(("ways", "shots"), GRID, ids=NAMES)
def bench_partial_fit(benchmark: Any, compare: Compare, ways: int, shots: int) -> None:
    """A class more: the same as a fit on all."""
    task = drawn(ways + 1, shots, 512)
    old = task.y < ways

    def fitted() -> FewShotHead:
        return FewShotHead().fit(task.Z[old], task.y[old])

    def grown(head: FewShotHead) -> FewShotHead:
        return head.partial_fit(task.Z[~old], task.y[~old])

    compare(1.5, ours=(fitted, grown), refit=lambda: FewShotHead().fit(task.Z, task.y))
    head = benchmark.pedantic(grown, setup=lambda: ((fitted(),), {}), rounds=10)
    same = FewShotHead().fit(task.Z, task.y)
    np.testing.assert_allclose(head.predict_proba(task.queries), same.predict_proba(task.queries), atol=1e-3)


@pytest.mark.parametrize(("ways", "shots"), GRID, ids=NAMES)
def bench_forget(benchmark: Any, compare: Compare, ways: int, shots: int) -> None:
    """The same as never having seen it."""
    task = drawn(ways, shots, 512)
    kept = task.y > 0

    def fitted() -> FewShotHead:
        return FewShotHead().fit(task.Z, task.y)

    def shrunk(head: FewShotHead) -> FewShotHead:
        return head.forget(0)

    compare(1.5, ours=(fitted, shrunk), refit=lambda: FewShotHead().fit(task.Z[kept], task.y[kept]))
    head = benchmark.pedantic(shrunk, setup=lambda: ((fitted(),), {}), rounds=10)
    same = FewShotHead().fit(task.Z[kept], task.y[kept])
    np.testing.assert_allclose(head.predict_proba(task.queries), same.predict_proba(task.queries), atol=1e-3)


@pytest.mark.parametrize("shots", [1, 5], ids=lambda shots: f"5way-{shots}shot-d512")
def bench_adapt(benchmark: Any, compare: Compare, shots: int) -> None:
    """To 75 unlabelled queries: not less accurate than TIM, but for noise, nor slower."""
    task = drawn(5, shots, 512)
    asked = np.resize(task.queries, (75, 512))
    head = FewShotHead(device="host").fit(task.Z, task.y)

    def tim() -> Any:
        return BASELINES["TIM"]().fit(task.Z, task.y, asked)

    turns = compare(
        1.5,
        ours=lambda: head.adapt(asked),
        tim=tim,
        laplacian_shot=lambda: BASELINES["LaplacianShot"]().fit(task.Z, task.y, asked),
    )
    adapted = benchmark.pedantic(head.adapt, (asked,), rounds=50, warmup_rounds=2)
    same = FewShotHead(device="reference").fit(task.Z, task.y).adapt(asked)
    np.testing.assert_allclose(adapted.predict_proba(asked), same.predict_proba(asked), atol=1e-4)
    theirs = tim().predict_proba(task.queries).argmax(1)
    assert adapted.score(task.queries, task.truth) > (theirs == task.truth).mean() - noise(task)
    assert turns.ratio("tim", "ours") > 1
