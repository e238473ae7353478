"""Methods by their names: fieldshot's own, and the baselines that people use instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from fieldshot.errors import OptionError
from fieldshot.head import FewShotHead

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32, Float64, Index

__all__ = ["GROUPS", "OURS", "Factory", "Method", "find", "select"]


class Method(Protocol):
    """What learns from a support set and classifies queries; a fresh one is made for each episode."""

    def fit(self, Z: Float32, y: Index, unlabelled: Float32) -> Any:
        """Learn from a support set.

        Parameters
        ----------
        Z : ndarray (N, D), float32
            Embeddings as the backbone gives them.
        y : ndarray (N,), int32
            Classes 0..K-1, each of them present.
        unlabelled : ndarray (M, D), float32
            The queries, for transductive methods only; nothing says that all classes are among them.
        """
        ...

    def predict_proba(self, Z: Float32) -> Float64:
        """Probability of each class: (M, D) -> (M, K), rows sum to 1."""
        ...


Factory = Callable[[], Method]


class Fieldshot:
    """`FewShotHead` as it comes.

    Parameters
    ----------
    adapted : bool
        Let it look at the queries too (`FewShotHead.adapt`).
    """

    def __init__(self, *, adapted: bool = False) -> None:
        self._adapted = adapted
        self._head = FewShotHead()

    def fit(self, Z: Float32, y: Index, unlabelled: Float32) -> Fieldshot:
        """Fit the head."""
        self._head.fit(Z, y)
        if self._adapted:
            self._head = self._head.adapt(unlabelled)
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Probabilities of the head."""
        return self._head.predict_proba(Z)


def _adapted() -> Fieldshot:
    return Fieldshot(adapted=True)


OURS: Mapping[str, Factory] = {"fieldshot": Fieldshot, "fieldshot, adapted": _adapted}

GROUPS = ("fieldshot", "inductive", "transductive", "all")


def find(name: str) -> Factory:
    """What makes a method of this name.

    Raises
    ------
    OptionError
        If no method has that name; it lists them.
    """
    known: list[str] = []
    for kind in ("ours", "inductive", "transductive"):
        factories = OURS if kind == "ours" else _baselines(kind)
        if name in factories:
            return factories[name]
        known += factories
    raise OptionError(
        f"method must be one of the groups {', '.join(GROUPS)}, or a name (got {name!r})",
        hint=f"names are: {'; '.join(known)}",
    )


def select(words: Iterable[str]) -> list[str]:
    """Names of methods, each once, from names and groups: a group holds fieldshot and the baselines of its kind.

    Parameters
    ----------
    words : iterable of str
        ``inductive`` stands for fieldshot and the baselines that see the support only, ``transductive`` for fieldshot
        with and without adapting and those that also look at the queries, ``all`` for all; other words are names.

    Raises
    ------
    OptionError
        If a word is neither.
    """
    names: dict[str, None] = {}
    for word in words:
        if word == "inductive":
            found = ["fieldshot", *_baselines("inductive")]
        elif word == "transductive":
            found = [*OURS, *_baselines("transductive")]
        elif word == "all":
            found = [*OURS, *_baselines("inductive"), *_baselines("transductive")]
        else:
            find(word)
            found = [word]
        names.update(dict.fromkeys(found))
    return list(names)


def _baselines(kind: str) -> Mapping[str, Factory]:
    # By name and late: a measurement of fieldshot alone loads none of them.
    return cast("Mapping[str, Factory]", import_module(f"fieldshot.evaluation.{kind}").BASELINES)
