"""Fine-tuning, adding and asking, beside a torch loop, nearest neighbours and exact search over the same embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from bench_head import drawn, unit
from fieldshot import FewShotHead
from turns import in_turn

GRID = [(5, 1), (5, 5), (20, 20)]
NAMES = [f"{ways}way-{shots}shot-d512" for ways, shots in GRID]


def torch_loop(Z: np.ndarray, y: np.ndarray, steps: int = 100) -> torch.nn.Linear:
    """Cross-entropy on embeddings of unit length by Adam, as it stands in tutorials."""
    inputs, truth = torch.from_numpy(unit(Z)), torch.from_numpy(y)
    layer = torch.nn.Linear(Z.shape[1], int(y.max()) + 1)
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(inputs), truth).backward()
        optimizer.step()
    return layer


@pytest.mark.parametrize(("ways", "shots"), GRID, ids=NAMES)
def bench_fit(benchmark: Any, compared: dict[str, float], ways: int, shots: int) -> None:
    """Quicker than a hundred steps of torch, and as accurate but for its noise."""
    task = drawn(ways, shots, 512)
    compared.update(
        in_turn(3, ours=lambda: FewShotHead().fit(task.Z, task.y), torch=lambda: torch_loop(task.Z, task.y))
    )
    benchmark.extra_info.update(compared)
    head = benchmark.pedantic(lambda: FewShotHead().fit(task.Z, task.y), rounds=10, warmup_rounds=2)
    theirs = torch_loop(task.Z, task.y)(torch.from_numpy(unit(task.queries))).argmax(1).numpy()
    assert head.score(task.queries, task.truth) > (theirs == task.truth).mean() - 2 / len(task.truth) ** 0.5
    assert compared["ours"] < compared["torch"]


@pytest.mark.parametrize(("ways", "shots"), GRID, ids=NAMES)
def bench_partial_fit(benchmark: Any, compared: dict[str, float], ways: int, shots: int) -> None:
    """A fit, and one class more: the same as a fit on all."""
    task = drawn(ways + 1, shots, 512)
    old = task.y < ways

    def grown() -> FewShotHead:
        return FewShotHead().fit(task.Z[old], task.y[old]).partial_fit(task.Z[~old], task.y[~old])

    compared.update(in_turn(2, fit_and_add=grown, fit=lambda: FewShotHead().fit(task.Z, task.y)))
    benchmark.extra_info.update(compared)
    head = benchmark.pedantic(grown, rounds=10, warmup_rounds=2)
    same = FewShotHead().fit(task.Z, task.y)
    np.testing.assert_allclose(head.predict_proba(task.queries), same.predict_proba(task.queries), atol=1e-3)


@pytest.mark.parametrize(("ways", "shots"), GRID, ids=NAMES)
def bench_forget(benchmark: Any, ways: int, shots: int) -> None:
    """The same as never having seen it."""
    task = drawn(ways, shots, 512)
    head = benchmark.pedantic(
        lambda head: head.forget(0),
        setup=lambda: ((FewShotHead().fit(task.Z, task.y),), {}),
        rounds=20,
    )
    kept = task.y > 0
    same = FewShotHead().fit(task.Z[kept], task.y[kept])
    np.testing.assert_allclose(head.predict_proba(task.queries), same.predict_proba(task.queries), atol=1e-3)


@pytest.mark.parametrize("queries", [1, 16, 256], ids=lambda queries: f"batch-{queries}")
def bench_predict(benchmark: Any, compared: dict[str, float], queries: int) -> None:
    """20 ways, 20 shots: beside the five nearest samples, of scikit-learn and of faiss."""
    task = drawn(20, 20, 512)
    Z, asked = unit(task.Z).astype(np.float32), unit(np.resize(task.queries, (queries, 512))).astype(np.float32)
    head, nearest = FewShotHead().fit(task.Z, task.y), KNeighborsClassifier(5).fit(Z, task.y)
    sides = {"ours": lambda: head.predict(asked), "sklearn_5nn": lambda: nearest.predict(asked)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its SWIG
        faiss = pytest.importorskip("faiss")
        index = faiss.IndexFlatIP(512)
        index.add(Z)
        sides["faiss_exact"] = lambda: index.search(asked, 5)
        compared.update(in_turn(2, **sides))
    benchmark.extra_info.update(compared)
    answers = benchmark.pedantic(head.predict, (asked,), rounds=50, warmup_rounds=2)
    assert answers.shape == (queries,)
    assert compared["ours"] < compared["sklearn_5nn"]
