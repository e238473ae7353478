"""What is said of episodes: accuracy with its interval, the worst of them, calibration, how hard they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fieldshot.evaluation.features import unit

if TYPE_CHECKING:
    from fieldshot.ops.interface import Float32, Float64, Index

__all__ = ["brier", "calibration_bins", "calibration_error", "hardness", "mean_interval", "worst_decile"]

_BINS = 15


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of values and the half width of its 95 % confidence interval (normal approximation); nan of one value."""
    array = np.asarray(values, dtype=np.float64)
    deviation = array.std(ddof=1) if len(array) > 1 else np.nan
    return float(array.mean()), float(1.96 * deviation / np.sqrt(len(array)))


def worst_decile(values: Sequence[float]) -> float:
    """Mean of the lowest tenth of values, rounded up to whole values: of 15 the lowest two."""
    array = np.sort(np.asarray(values, dtype=np.float64))
    return float(array[: -(-len(array) // 10)].mean())


def calibration_bins(probabilities: Float64, truth: Index) -> Float64:
    """Sums that the calibration error is made of; those of several episodes add up.

    Parameters
    ----------
    probabilities : ndarray (M, K)
    truth : ndarray (M,)
        True classes, 0..K-1.

    Returns
    -------
    ndarray (3, 15), float64
        Of each of 15 equal bins of the highest probability, (0, 1/15] first: how many predictions fall into it,
        the sum of their probabilities, how many of them are right.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    places = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    return np.stack([np.bincount(places, w, minlength=_BINS) for w in (np.ones_like(confidence), confidence, right)])


def calibration_error(bins: Float64) -> float:
    """Expected calibration error: sum over bins of n_b / n |accuracy_b - confidence_b| (Guo et al., ICML 2017, eq. 3).

    Parameters
    ----------
    bins : ndarray (3, 15)
        As `calibration_bins` gives them.
    """
    count, confidence, right = bins
    return float(np.abs(right - confidence).sum() / count.sum())


def brier(probabilities: Float64, truth: Index) -> float:
    """Mean over samples of the squared distance of probabilities (M, K) from the truth (M,): in [0, 2] (Brier 1950)."""
    errors = np.array(probabilities)
    errors[np.arange(len(truth)), truth] -= 1.0
    return float((errors * errors).sum(axis=1).mean())


def hardness(support: Float32, classes: Index, queries: Float32, truth: Index) -> float:
    """How hard an episode is by itself, whatever classifies it: mean over queries of log((1 - p) / p).

    p is the probability of the true class under the softmax of the cosines with the class means, temperature 1
    (Dhillon et al., ICLR 2020, section 4.4, with the backbone's own embeddings as the generic ones).

    Parameters
    ----------
    support, queries : ndarray (N, D), (M, D)
        Embeddings of length 1.
    classes, truth : ndarray (N,), (M,)
        Their classes, 0..K-1, each of which the support has.
    """
    members = np.zeros((int(classes.max()) + 1, len(classes)), np.float32)
    members[classes, np.arange(len(classes))] = 1.0
    exponentials = np.exp((queries @ unit(members @ support, np.float32).T).astype(np.float64))
    rows = np.arange(len(truth))
    true = exponentials[rows, truth]
    return float(np.log((exponentials.sum(axis=1) - true) / true).mean())
