"""Heads that people use instead, each in its usual setting: they see the support set and nothing else.

All but the nearest neighbours are linear in their features: a solver turns the features of the support (N, D) and its
classes (N,) of 0..K-1 into weights (K, D) and bias (K,), and probabilities are the softmax of the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fieldshot.errors import MissingDependencyError
from fieldshot.evaluation.features import Centred, Features, centred, class_means, power, softmax, unit

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32, Float64, Index

__all__ = ["BASELINES", "Linear", "Neighbours", "baselines", "lda", "linear_svm", "logistic", "nearest_mean", "ridge"]

# Features (N, D) and classes (N,) -> weights (K, D), bias (K,).
Solver = Callable[["Float64", "Index"], tuple["Float64", "Float64"]]


class Linear:
    """A linear classifier of transformed embeddings.

    Parameters
    ----------
    solve : callable
        (features (N, D), classes (N,)) -> (weights (K, D), bias (K,)).
    features : callable
        Embeddings (N, D) -> float64 (N, D).
    centre : bool
        Centre the features by the mean of the support's class means.
    """

    def __init__(self, solve: Solver, features: Features = unit, *, centre: bool = False) -> None:
        self._solve = solve
        self._features = features
        self._centre = centre

    def fit(self, Z: Float32, y: Index) -> Linear:
        """Learn from embeddings (N, D) of classes (N,)."""
        self._map = centred(self._features, Z, y) if self._centre else self._features
        self._weights, self._bias = self._solve(self._map(Z), y)
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Probabilities (M, K) of embeddings (M, D)."""
        return softmax(self._map(Z) @ self._weights.T + self._bias)


class Neighbours:
    """Votes of the nearest neighbours by Euclidean distance of unit embeddings.

    Between classes with as many votes the nearest neighbour decides: at one shot of five classes it is the nearest
    sample, where plain votes would be drawn.

    Parameters
    ----------
    neighbours : int
        At most; all of the support where it has fewer.
    """

    def __init__(self, neighbours: int = 5) -> None:
        self._neighbours = neighbours

    def fit(self, Z: Float32, y: Index) -> Neighbours:
        """Keep embeddings (N, D) and classes (N,)."""
        self._samples = unit(Z)
        self._members = np.eye(int(y.max()) + 1)[y]
        return self

    def predict_proba(self, Z: Float32) -> Float64:
        """Shares of the votes (M, K)."""
        # Among unit vectors the largest cosine is the least distance, except for a row of zeros.
        nearness = 2 * unit(Z) @ self._samples.T - np.sum(self._samples**2, axis=1)
        order = np.argsort(-nearness, axis=1, kind="stable")[:, : self._neighbours]
        votes = 1 + 1e-3 * 0.5 ** np.arange(order.shape[1])
        shares = np.einsum("mjk,j->mk", self._members[order], votes)
        return np.asarray(shares / votes.sum())


def nearest_mean(X: Float64, y: Index) -> tuple[Float64, Float64]:
    """Softmax of minus the squared distances from the class means (Snell et al. 2017, eq. 2 and 8)."""
    means = class_means(X, y)
    return 2 * means, -np.sum(means**2, axis=1)


def logistic(X: Float64, y: Index, C: float) -> tuple[Float64, Float64]:
    """Multinomial logistic regression with intercept; penalty ``|W|^2 / (2 C)`` against the summed log-loss."""
    X, span = _in_span(X)
    # Newton comes to the same optimum as the default solver, in half its time at these sizes.
    model = _scikit_learn("logistic")(C=C, max_iter=1000, solver="newton-cg").fit(X, y)
    weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:  # of two classes, the logit of the second
        weights, bias = np.vstack([0 * weights, weights]), np.append(0 * bias, bias)
    return weights @ span, bias


def linear_svm(X: Float64, y: Index, C: float) -> tuple[Float64, Float64]:
    """One-against-the-rest linear SVM with squared hinge loss (LIBLINEAR); outputs are the margins.

    Two classes have one margin m; as in one against the rest, they get -m and m.
    """
    X, span = _in_span(X)
    model = _scikit_learn("svm")(C=C, dual="auto", max_iter=10_000, random_state=0).fit(X, y)
    weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:
        weights, bias = np.vstack([-weights, weights]), np.append(-bias, bias)
    return weights @ span, bias


def ridge(X: Float64, y: Index, penalty: float) -> tuple[Float64, Float64]:
    """Least squares on targets 1 (of the class) and -1 with an intercept, which is not penalised.

    Minimises ``|X W^T + b - Y|^2 + penalty |W|^2``: MetaOptNet's ridge head (Lee et al. 2019; Bertinetto et al. 2019).
    """
    targets = 2 * np.eye(int(y.max()) + 1)[y] - 1
    centre, level = X.mean(axis=0), targets.mean(axis=0)
    X, targets = X - centre, targets - level
    if len(X) < X.shape[1]:
        weights = np.linalg.solve(X @ X.T + penalty * np.eye(len(X)), targets).T @ X
    else:
        weights = np.linalg.solve(X.T @ X + penalty * np.eye(X.shape[1]), X.T @ targets).T
    return weights, level - weights @ centre


def lda(X: Float64, y: Index) -> tuple[Float64, Float64]:
    """Linear discriminant analysis with equal priors and the Ledoit-Wolf covariance of all classes together.

    Residuals R from the class means (N, D), S = R^T R / N, shrunk to ``(1 - a) S + a tr(S) / D I`` with the intensity
    a of Ledoit and Wolf 2004 (Lemma 3.2 to 3.5). Outputs are log-likelihoods less what all classes share. Where the
    residuals are all zero, as at one shot, the covariance is the identity.
    """
    means = class_means(X, y)
    centre = means.mean(axis=0)
    offsets, residuals = means - centre, X - means[y]
    samples, dimension = X.shape
    spread = float(np.sum(residuals**2)) / (samples * dimension)
    if spread <= np.finfo(np.float64).eps / dimension:
        weights = offsets
    else:
        intensity = _ledoit_wolf(residuals)
        round_, factor = intensity * spread, (1 - intensity) / samples
        if samples < dimension:  # Woodbury
            inner = round_ * np.eye(samples) + factor * residuals @ residuals.T
            seen = np.linalg.solve(inner, factor * residuals @ offsets.T)
            weights = (offsets - seen.T @ residuals) / round_
        else:
            covariance = round_ * np.eye(dimension) + factor * residuals.T @ residuals
            weights = np.linalg.solve(covariance, offsets.T).T
    return weights, -weights @ centre - np.sum(weights * offsets, axis=1) / 2


def _ledoit_wolf(R: Float64) -> float:
    """Shrinkage intensity of centred samples (N, D), as `sklearn.covariance.ledoit_wolf_shrinkage` but in N x N.

    The sum of ``(R * R)^T (R * R)`` is that of the samples' fourth powers of length, and the Frobenius norm of
    ``R^T R`` is that of ``R R^T``.
    """
    samples, dimension = R.shape
    lengths = np.sum(R**2, axis=1)
    gram = R @ R.T if samples < dimension else R.T @ R
    norm = float(np.sum(gram**2)) / samples**2
    error = float(np.sum(lengths**2)) / samples**2 - norm / samples
    distance = norm - (float(lengths.sum()) / samples) ** 2 / dimension
    # Not quite zero, where too few residuals leave it undecided, so that the covariance has an inverse.
    return float(np.clip(error / distance, 1e-6, 1.0)) if distance > 0 else 1.0


def _in_span(X: Float64) -> tuple[Float64, Float64]:
    """Samples in an orthonormal basis of their span (N, R), and the basis (R, D); as they are where N >= D.

    Exact for a model of inner products with an L2 penalty: its weights lie in the span. It makes a fit of few
    samples many times as fast. The basis comes from the Gram matrix, which is cheaper than a QR of the samples.
    """
    samples, dimension = X.shape
    if samples >= dimension:
        return X, np.eye(dimension)
    values, vectors = np.linalg.eigh(X @ X.T)
    kept = values >= 1e-12 * values[-1]
    lengths = np.sqrt(np.maximum(values[kept], np.finfo(np.float64).tiny))  # samples may all be zero
    return vectors[:, kept] * lengths, (vectors[:, kept] / lengths).T @ X


def _scikit_learn(name: str) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise MissingDependencyError(
            f"scikit-learn must be installed to compare with its heads (got: {error})",
            hint="pip install 'fieldshot[eval]'",
        ) from error
    return {"logistic": LogisticRegression, "svm": LinearSVC}[name]


def baselines(base_mean: Float32 | None = None) -> dict[str, Callable[[], Linear | Neighbours]]:
    """Name -> what makes a fresh one, in the order of tables.

    Parameters
    ----------
    base_mean : float32 (D,), optional
        Mean embedding of the pictures that the backbone was trained with. Only with it is there a "SimpleShot"
        (embeddings less that mean, unit length, nearest mean: Wang et al. 2019, CL2N); with the support's mean in its
        place it would be the centred nearest mean.
    """
    found: dict[str, Callable[[], Linear | Neighbours]] = {
        "nearest mean, L2": partial(Linear, nearest_mean),
        "nearest mean, centred": partial(Linear, nearest_mean, centre=True),
        "nearest mean, power + centred": partial(Linear, nearest_mean, power, centre=True),
    }
    if base_mean is not None:
        found["SimpleShot"] = partial(Linear, nearest_mean, Centred(np.float64, np.asarray(base_mean)))
    found["5-NN"] = Neighbours
    for C in (1, 10, 100):
        found[f"logistic C={C}"] = partial(Linear, partial(logistic, C=C))
    for C in (1, 10, 100):
        found[f"logistic C={C}, centred"] = partial(Linear, partial(logistic, C=C), centre=True)
    found["linear SVM"] = partial(Linear, partial(linear_svm, C=1.0))
    for penalty in (0.1, 0.3, 1):
        found[f"ridge {penalty}"] = partial(Linear, partial(ridge, penalty=penalty))
    found["LDA, Ledoit-Wolf"] = partial(Linear, lda)
    return found


BASELINES = baselines()
