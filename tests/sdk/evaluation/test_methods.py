"""Methods by their names and groups."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from clusters import clusters
from fieldshot.errors import OptionError
from fieldshot.evaluation import methods
from fieldshot.evaluation.methods import find, select
from fieldshot.head import FewShotHead
from standins import Blind, Nearest


@pytest.fixture
def baselines(monkeypatch):
    """Stand-ins for the baselines."""
    for kind, known in (("inductive", {"nearest": Nearest}), ("transductive", {"blind": Blind})):
        module = types.ModuleType(kind)
        module.BASELINES = known
        monkeypatch.setitem(sys.modules, f"fieldshot.evaluation.{kind}", module)


def test_fieldshot_is_the_head():
    Z, y = clusters(spread=2.0)
    Z, y = Z.astype(np.float32), np.unique(y, return_inverse=True)[1].astype(np.int32)
    assert find("fieldshot") is FewShotHead
    head = FewShotHead().fit(Z[::2], y[::2])
    adapted = find("fieldshot, adapted")().fit(Z[::2], y[::2], unlabelled=Z[1::2])
    np.testing.assert_array_equal(adapted.predict_proba(Z), head.adapt(Z[1::2]).predict_proba(Z))
    assert not np.array_equal(adapted.predict_proba(Z), head.predict_proba(Z))


def test_groups(baselines):
    assert select(["fieldshot"]) == ["fieldshot"]
    assert select(["inductive"]) == ["fieldshot", "nearest"]
    assert select(["transductive"]) == ["fieldshot", "fieldshot, adapted", "blind"]
    assert select(["all"]) == ["fieldshot", "fieldshot, adapted", "nearest", "blind"]
    assert select(["blind", "inductive", "blind"]) == ["blind", "fieldshot", "nearest"]
    assert set(methods.GROUPS) == {"fieldshot", "inductive", "transductive", "all"}
    assert find("nearest") is Nearest
    assert select(["Transductive"]) == select(["transductive"])
    assert select(["Nearest", "nearest", "FIELDSHOT, Adapted"]) == ["nearest", "fieldshot, adapted"]


def test_an_unknown_name_is_answered_with_all_of_them(baselines):
    with pytest.raises(OptionError, match=r"got 'best'.*fieldshot; fieldshot, adapted; nearest; blind"):
        select(["fieldshot", "best"])


def test_fieldshot_alone_loads_no_baselines(monkeypatch):
    monkeypatch.setattr(methods, "import_module", None)
    assert select(["fieldshot", "fieldshot, adapted"]) == ["fieldshot", "fieldshot, adapted"]
