"""Methods by their names: fieldshot's own, and the baselines that people use instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from fieldshot.errors import OptionError
from fieldshot.evaluation.features import softmax
from fieldshot.head import FewShotHead

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32, Float64, Index

__all__ = ["GROUPS", "OURS", "Factory", "Method", "check", "find", "probabilities", "select"]


class Method(Protocol):
    """What learns from a support set and classifies queries, as scikit-learn's classifiers do.

    A fresh one is made for each episode. Without ``predict_proba`` its ``decision_function`` serves, by its softmax.
    """

    @property
    def fit(self) -> Callable[..., Any]:
        """``fit(Z, y)``, or ``fit(Z, y, unlabelled)`` of a transductive method: by that name it gets the queries.

        Z is (N, D) float32, embeddings as the backbone gives them; y (N,) int32, classes 0..K-1, each of them present;
        unlabelled (M, D) float32. Nothing says that all classes are among the queries.
        """
        ...

    def predict_proba(self, Z: Float32) -> Float64:
        """Probability of each class: (M, D) -> (M, K), rows sum to 1."""
        ...


Factory = Callable[[], Method]


class Adapted:
    """`FewShotHead` that looks at the queries too (`FewShotHead.adapt`)."""

    def fit(self, Z: Float32, y: Index, unlabelled: Float32) -> Adapted:
        """Fit the head and adapt it."""
        self._head = FewShotHead().fit(Z, y).adapt(unlabelled)
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Probabilities of the head."""
        return self._head.predict_proba(Z)


OURS: Mapping[str, Factory] = {"fieldshot": FewShotHead, "fieldshot, adapted": Adapted}

GROUPS = ("fieldshot", "inductive", "transductive", "all")


def find(name: str) -> Factory:
    """What makes a method of this name.

    Raises
    ------
    OptionError
        If no method has that name; it lists them.
    """
    return _named(name)[1]


def _named(word: str) -> tuple[str, Factory]:
    """The method of a name in whatever case, with the name as it is written."""
    known: list[str] = []
    for kind in ("ours", "inductive", "transductive"):
        factories = OURS if kind == "ours" else _baselines(kind)
        for name, make in factories.items():
            if name.casefold() == word.casefold():
                return name, make
        known += factories
    raise OptionError(
        f"method must be one of the groups {', '.join(GROUPS)}, or a name (got {word!r})",
        hint=f"names are: {'; '.join(known)}",
    )


def select(words: Iterable[str]) -> list[str]:
    """Names of methods, each once, from names and groups: a group holds fieldshot and the baselines of its kind.

    Parameters
    ----------
    words : iterable of str
        ``inductive`` stands for fieldshot and the baselines that see the support only, ``transductive`` for fieldshot
        with and without adapting and those that also look at the queries, ``all`` for all; other words are names.
        Upper and lower case are alike.

    Raises
    ------
    OptionError
        If a word is neither.
    """
    names: dict[str, None] = {}
    for word in words:
        group = word.casefold()
        if group == "inductive":
            found = ["fieldshot", *_baselines("inductive")]
        elif group == "transductive":
            found = [*OURS, *_baselines("transductive")]
        elif group == "all":
            found = [*OURS, *_baselines("inductive"), *_baselines("transductive")]
        else:
            found = [_named(word)[0]]
        names.update(dict.fromkeys(found))
    return list(names)


def check(name: str, make: Any) -> None:
    """Raise an OptionError if it makes no method."""
    if not callable(make):
        raise OptionError(
            f"method {name!r} must be a class, or a function without arguments (got {type(make).__name__} object)",
            hint="pass the class itself, or with settings functools.partial(KNeighborsClassifier, n_neighbors=1)",
        )
    method = make()
    if not (hasattr(method, "fit") and (hasattr(method, "predict_proba") or hasattr(method, "decision_function"))):
        raise OptionError(
            f"method {name!r} must have fit and predict_proba or decision_function (got {type(method).__name__})",
            hint="see fieldshot.evaluation.Method",
        )


def probabilities(method: Any, Z: Float32) -> Float64:
    """Probabilities (M, K) of embeddings (M, D): the method's own, or the softmax of its outputs.

    Of two classes a scikit-learn classifier has one output m; as in one against the rest, they get -m and m.
    """
    if hasattr(method, "predict_proba"):
        return np.asarray(method.predict_proba(Z), dtype=np.float64)
    outputs = np.asarray(method.decision_function(Z), dtype=np.float64)
    return softmax(outputs if outputs.ndim > 1 else np.stack([-outputs, outputs], axis=1))


def _baselines(kind: str) -> Mapping[str, Factory]:
    # By name and late: a measurement of fieldshot alone loads none of them.
    return cast("Mapping[str, Factory]", import_module(f"fieldshot.evaluation.{kind}").BASELINES)
