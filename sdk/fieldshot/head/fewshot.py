"""FewShotHead: one method at every number of shots, with nothing to tune."""

from __future__ import annotations

import copy
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fieldshot.errors import EmbeddingError, FieldshotError, LabelError, OptionError
from fieldshot.head import storage
from fieldshot.head.calibration import open_set, whole_support_factor
from fieldshot.head.contract import Estimator, checked_embeddings, checked_labels, embedding_rows, not_fitted
from fieldshot.head.labels import in_order, label_array, plain
from fieldshot.head.learning import Progress, learned
from fieldshot.head.neighbours import Neighbours, neighbours
from fieldshot.head.statistics import ClassStatistics, apart, joined, pooled
from fieldshot.head.transduction import adapted
from fieldshot.ops import Classifier, Ops, Pending, Prediction, Prior, find_ops
from fieldshot.ops.kernels import KernelOps
from fieldshot.ops.reference import softmax

if TYPE_CHECKING:
    from typing_extensions import Self

    from fieldshot.ops import Float32

__all__ = ["FewShotHead"]

# Squared distance of a transformed embedding from its class mean, as a share of that of the class mean from the next;
# it counts as two degrees of freedom and so matters only while the head has hardly any samples to measure it.
_SPREAD, _SPREAD_WEIGHT = 0.6, 2.0
# How far the distance of a class from the centre stands for its scatter while it has shown none, in samples.
_PULL = 0.05
# Scale of the logits before any sample could be held out (times 1 / D), and what it counts in samples.
_TEMPERATURE, _TEMPERATURE_WEIGHT = 16.0, 5.0
# What a head has once it has samples.
_LEARNED = ("classes_", "n_features_in_", "open_set_", "threshold_", "adaptation_")
# So many samples of all classes together are held out at most, so that they cost little beside the rest of a fit.
_HELD_OUT = 512


class _Fitted(NamedTuple):
    """All that predicting needs, swapped in one assignment: a prediction never sees half a fit."""

    classes: NDArray[Any]
    classifier: Classifier
    neighbours: Neighbours | None
    ops: Ops | None = None  # None where it has yet to be loaded
    loaded: tuple[Any, Any] = (None, None)  # the classifier where these operations want it, and that of the neighbours

    def on(self, ops: Ops) -> _Fitted:
        """The same, loaded for these operations."""
        others = None if self.neighbours is None else ops.load(self.neighbours.classifier())
        return self._replace(ops=ops, loaded=(ops.load(self.classifier), others))


class FewShotHead(Estimator):
    """A linear classifier whose prior is the class prototypes.

    One sample a class gives a ridge regression on the prototypes; the more samples, the more their shared
    covariance shapes the classifier, up to linear discriminant analysis: a two-covariance Gaussian model (Ioffe,
    ECCV 2006) on power-transformed, L2-normalised embeddings, solved in closed form (fieldshot.ops.reference
    has the formulas). Classes count equally however many samples each has. Where classes of ten samples or more fall
    into several clouds, the nearest samples are asked too (fieldshot.head.neighbours). Confidences and the threshold
    for "unknown" come from the samples held out in turn, in closed form too.

    It follows scikit-learn's estimator contract. Predicting never changes it; fitting swaps the new state in
    at the end, so that other threads may predict meanwhile.

    Parameters
    ----------
    mean_prior : float, default 2.0
        How many samples the centre of all classes weighs against a class's own mean.
    covariance_prior : float, default 200.0
        How many degrees of freedom the round covariance weighs against the measured one, 1 at least.
    false_accept_rate : float, optional
        Share of things of no known class that may be taken for one, in (0, 1). Left out, the threshold for
        "unknown" refuses at most 5 % of the known, and no more than refusing 95 % of the unknown takes.
    device : str, optional
        Where it computes: ``auto``, ``cuda``, ``cuda:1``, ``host`` (the CPU) or ``reference`` (NumPy, slower).
        Left out, the environment's FIELDSHOT_DEVICE, and without that ``auto``. Not saved with the head.

    Attributes
    ----------
    classes_ : ndarray (K,)
        Labels in sorted order.
    n_features_in_ : int
        D, the embedding dimension.
    threshold_ : float
        Cosines (`open_score`) below it are unknown; nan where the samples are too few to say.
    open_set_ : OpenSet
        The threshold with its estimated error rates and the number of samples they stand on.
    adaptation_ : Adaptation or None
        What `adapt` has decided; None for a head that has not looked at unlabelled embeddings.
    """

    def __init__(
        self,
        *,
        mean_prior: float = 2.0,
        covariance_prior: float = 200.0,
        false_accept_rate: float | None = None,
        device: str | None = None,
    ) -> None:
        self.mean_prior = mean_prior
        self.covariance_prior = covariance_prior
        self.false_accept_rate = false_accept_rate
        self.device = device

    # --- learning ---------------------------------------------------------------------------------

    def fit(self, Z: ArrayLike, y: ArrayLike, *, progress: Progress | None = None) -> Self:
        """Forget everything and learn from `Z` and `y`.

        Parameters
        ----------
        Z : array-like (N, D)
            Embeddings, any real dtype. More than the memory holds may lie in a file: ``np.load(path, mmap_mode="r")``
            is read once, in chunks of 256 MB.
        y : array-like (N,)
            Labels: whole numbers, text, or any objects that sort among themselves.
        progress : callable, optional
            Called as ``progress(done, N)`` some times in each chunk: after a class, or after classes of 2 MB together.
            What it raises ends the learning and comes out here; the head is then as it was. It may ask this head, which
            answers from what it knew before, and may not change it.

        Returns
        -------
        self

        Raises
        ------
        EmbeddingError, LabelError, OptionError
            On input that makes no sense; the head is then as it was.
        FieldshotError
            If the head was changed meanwhile, by `progress` or another thread; it is then as that left it.
        """
        return self._add(Z, y, {}, None, progress)

    def partial_fit(
        self, Z: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, *, progress: Progress | None = None
    ) -> Self:
        """Learn from more samples, of new classes too: the same as `fit` on all of them together.

        Parameters
        ----------
        Z, y, progress
            As for `fit`.
        classes
            There for scikit-learn, and not needed: new labels are taken as they come.

        Notes
        -----
        Equal to `fit` up to rounding: probabilities within 1e-4 (a property test holds it).
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(Z, y, progress=progress)
        return self._add(Z, y, self._statistics, self.n_features_in_, progress)

    def forget(self, label: Any) -> Self:
        """Take a class away: the same as never having seen it, up to rounding.

        Raises
        ------
        LabelError
            If there is no such class.
        """
        self._fitted()
        label = plain(label)
        if label not in self._statistics:
            raise LabelError(
                f"label must be one of the {len(self._statistics)} known classes (got {str(label)[:80]!r})",
                hint="see classes_",
            )
        rest = {k: v for k, v in self._statistics.items() if k != label}
        self._refit(apart(rest), self.n_features_in_, self._unlabelled)
        return self

    def merge(self, other: FewShotHead) -> Self:
        """Learn what another head has learned, without its samples: as a `partial_fit` on all of them.

        Two devices that enrolled apart become one. `other` stays as it is; the settings are this head's. What
        either was adapted to, both are.

        Raises
        ------
        OptionError
            If `other` is no head.
        EmbeddingError
            If the heads are of embeddings of different dimensions.
        """
        if not isinstance(other, FewShotHead):
            raise OptionError(
                f"other must be a FewShotHead (got {type(other).__name__})",
                hint="pass a head, or call partial_fit(Z, y)",
            )
        other._fitted()
        if not self.__sklearn_is_fitted__():
            self._refit(dict(other._statistics), other.n_features_in_, other._unlabelled)
            return self
        if other.n_features_in_ != self.n_features_in_:
            raise EmbeddingError(
                f"heads must have the same number of features (got {self.n_features_in_} and {other.n_features_in_})",
                hint="merge heads of one backbone only",
            )
        ops, statistics = self._ops(), apart(self._statistics)
        for label, more in other._statistics.items():
            statistics[label] = joined(statistics[label], more, ops) if label in statistics else more
        unlabelled = [seen for seen in (self._unlabelled, other._unlabelled) if seen is not None]
        self._refit(statistics, self.n_features_in_, np.concatenate(unlabelled) if unlabelled else None)
        return self

    def adapt(self, Z: ArrayLike) -> Self:
        """A new head that has also looked at unlabelled embeddings; this one stays as it is.

        Transductive: each unlabelled sample pulls the class means by its probabilities. How much it counts the head
        decides, and tells in `adaptation_`: less the more labelled samples a class has, and less the less equally
        frequent the classes seem to be in `Z`.

        Parameters
        ----------
        Z : array-like (N, D)
            Embeddings without labels, such as those about to be recognised. Up to five a class change nothing; from ten
            a class on they count in full.
        """
        self._fitted()
        Z = self._checked(Z, self.n_features_in_)
        unlabelled, _ = self._ops().absorb(Z, np.array([0, len(Z)], np.int32))
        head = copy.copy(self)
        head._refit(self._statistics, self.n_features_in_, unlabelled)
        return head

    # --- predicting -------------------------------------------------------------------------------

    def predict(self, Z: ArrayLike) -> NDArray[Any]:
        """The most probable label of each embedding: (N, D) -> (N,)."""
        fitted = self._fitted()
        return np.asarray(fitted.classes[self._answers(fitted, Z).best[:, 0]])

    def predict_proba(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class, in the order of `classes_`: (N, D) -> (N, K), rows sum to 1."""
        return self._answers(self._fitted(), Z).probabilities

    def predict_log_proba(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Logarithm of `predict_proba`: (N, D) -> (N, K)."""
        return _log_softmax(self._answers(self._fitted(), Z).logits)

    def decision_function(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Logits: (N, D) -> (N, K); with two classes (N,), second less first, as in scikit-learn."""
        logits = self._answers(self._fitted(), Z).logits
        return np.asarray(logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits)

    def cosines(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Cosine of each embedding with each class mean, in the order of `classes_`: (N, D) -> (N, K)."""
        answers = self.predict_all(Z)
        assert answers.cosines is not None  # asked for
        return answers.cosines

    def predict_all(self, Z: ArrayLike | Pending) -> Prediction:
        """Logits, `predict_proba`, the most probable class and `cosines` together, for the price of one."""
        return self._answers(self._fitted(), Z, cosines=True)

    def open_score(self, Z: ArrayLike) -> NDArray[np.float64]:
        """Cosine of each embedding with its nearest class mean: (N, D) -> (N,); compare with `threshold_`.

        Below the threshold it is of no known class; a nan threshold refuses nothing.
        """
        return np.asarray(self.cosines(Z).max(axis=1))

    def score(self, Z: ArrayLike, y: ArrayLike) -> float:
        """Share of embeddings whose predicted label is `y`, in [0, 1]."""
        predicted = self.predict(Z)
        return float(np.mean(predicted == checked_labels(y, len(predicted), type(self).__name__)))

    # --- keeping ----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head to a file (safetensors), whole or not at all.

        Labels must be whole numbers, text or booleans.
        """
        self._fitted()
        params = {name: value for name, value in self.get_params().items() if name != "device"}
        storage.write(path, params, self._statistics, self._unlabelled)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, device: str | None = None) -> Self:
        """Read a head that `save` wrote; it goes on learning where it stopped, on `device`.

        Raises
        ------
        MissingFileError, BundleError
            If there is no such file, or it is not a head.
        """
        params, statistics, unlabelled, dim = storage.read(path)
        head = cls(**params, device=device)
        head._refit(statistics, dim, unlabelled)
        return head

    # --- inside -----------------------------------------------------------------------------------

    def _ops(self) -> Ops:
        return find_ops(self.device)

    def _add(
        self,
        Z: ArrayLike,
        y: ArrayLike,
        known: dict[Any, ClassStatistics],
        dim: int | None,
        progress: Progress | None,
    ) -> Self:
        rows = embedding_rows(Z, expected=dim, name=type(self).__name__)
        labels = checked_labels(y, len(rows), type(self).__name__)
        if progress is not None and not callable(progress):
            raise OptionError(
                f"progress must be callable (got {progress!r})", hint="progress=print shows what it tells"
            )
        before = getattr(self, "_statistics", None)

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            if getattr(self, "_statistics", None) is not before:  # or what came meanwhile would be lost
                raise FieldshotError(
                    f"{type(self).__name__} must learn one thing after the other (got a change while it was learning)",
                    hint="change it once fit or partial_fit has returned, or change a copy.copy of it",
                )

        statistics = learned(known, rows, labels, self._ops(), tell)
        self._refit(statistics, rows.shape[1], self._unlabelled if known else None)
        return self

    def _refit(self, statistics: dict[Any, ClassStatistics], dim: int, unlabelled: Float32 | None) -> None:
        """Solve for `statistics`, then take them over; an error leaves the head as it was."""
        prior = self._prior(dim)
        classes = in_order(list(statistics))
        if not classes:
            # The last class was forgotten: as before the first fit.
            for name in ("_state", *_LEARNED):
                delattr(self, name)
            self._statistics, self._unlabelled = {}, None
            return
        ops = self._ops()
        support = pooled([statistics[label] for label in classes], self._held_out(), ops)
        solution = ops.fit(support, prior)
        unknown = open_set(solution.known, solution.unknown, len(classes), self.false_accept_rate)
        weights, bias = solution.weights, solution.bias
        temperature = solution.temperature * whole_support_factor(support.counts)
        adaptation = None
        if unlabelled is not None:
            weights, bias, temperature, adaptation = adapted(unlabelled, solution, temperature, support, prior, ops)
        classifier = Classifier(weights, bias, solution.prototypes, temperature)
        fitted = _Fitted(label_array(classes), classifier, neighbours(support, solution)).on(ops)
        self._statistics, self._unlabelled = statistics, unlabelled
        self.classes_, self.n_features_in_ = fitted.classes, dim
        self.open_set_, self.adaptation_ = unknown, adaptation
        self.threshold_ = unknown.threshold
        self._state = fitted

    def _held_out(self) -> int:
        """A temperature and a threshold need no more samples, unless one of so many is to be seen."""
        return max(_HELD_OUT, math.ceil(1.0 / self.false_accept_rate) if self.false_accept_rate else 0)

    def _prior(self, dim: int) -> Prior:
        # Below one degree of freedom the covariance is more than float32 products can tell.
        for name, least in (("mean_prior", 0.0), ("covariance_prior", 1.0)):
            if not getattr(self, name) > 0 or getattr(self, name) < least:
                raise OptionError(
                    f"{name} must be {f'at least {least:g}' if least else 'above 0'} (got {getattr(self, name)!r})",
                    hint="leave it at its default",
                )
        if self.false_accept_rate is not None and not 0 < self.false_accept_rate < 1:
            raise OptionError(
                f"false_accept_rate must be between 0 and 1 (got {self.false_accept_rate!r})", hint="0.05 is 5 %"
            )
        return Prior(
            self.mean_prior,
            self.covariance_prior,
            _PULL,
            _SPREAD,
            _SPREAD_WEIGHT,
            _TEMPERATURE / dim,
            _TEMPERATURE_WEIGHT,
        )

    def _answers(self, fitted: _Fitted, Z: ArrayLike | Pending, *, cosines: bool = False) -> Prediction:
        if fitted.ops is None:
            self._state = fitted = fitted.on(self._ops())
        assert fitted.ops is not None
        dim = fitted.classifier.weights.shape[1]
        if isinstance(Z, Pending) and isinstance(fitted.ops, KernelOps) and fitted.ops.runner is Z.runner:
            answers, Z = fitted.ops.predict_pending(fitted.loaded[0], Z, cosines=cosines)
            Z = self._checked(Z, dim)  # after the fact: before they were nowhere to look at
        else:
            Z = self._checked(Z.fetch() if isinstance(Z, Pending) else Z, dim)
            answers = fitted.ops.predict(fitted.loaded[0], Z, cosines=cosines)
        if fitted.neighbours is None:
            return answers
        logits = fitted.neighbours.beside(answers.logits, fitted.ops.predict(fitted.loaded[1], Z).logits)
        best = logits.argmax(axis=1)[:, None].astype(np.int32)
        return Prediction(logits, softmax(logits), best, answers.cosines)

    def _checked(self, Z: ArrayLike, dim: int) -> NDArray[Any]:
        return checked_embeddings(Z, expected=dim, name=type(self).__name__)

    def _fitted(self) -> _Fitted:
        if not self.__sklearn_is_fitted__():
            raise not_fitted(type(self).__name__)
        return self._state

    def __getattr__(self, name: str) -> Any:  # asked only where there is none
        if name in _LEARNED:
            raise not_fitted(type(self).__name__)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    # What a device holds stays there: a flat copy shares it, a pickle leaves it behind and loads it again.

    def __copy__(self) -> Self:
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if "_state" in state:
            state["_state"] = state["_state"][:3]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_state" in state:
            state["_state"] = _Fitted(*state["_state"])
        self.__dict__.update(state)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
