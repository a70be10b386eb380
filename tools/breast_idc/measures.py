"""Figures of merit, calibration, thresholds and intervals by bootstrap over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from slidetriage.models import Card

Measure = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]


def measures(threshold: float) -> dict[str, Measure]:
    """Every measure reported, as functions of probabilities and truth."""
    return {
        "AUC": lambda p, y: float(roc_auc_score(y, p)),
        "balanced accuracy": lambda p, y: (
            (sensitivity(p, y, threshold) + specificity(p, y, threshold)) / 2
        ),
        "F1": lambda p, y: f1(p, y, threshold),
        "sensitivity": lambda p, y: sensitivity(p, y, threshold),
        "specificity": lambda p, y: specificity(p, y, threshold),
        "Brier score": lambda p, y: float(np.mean((p - y) ** 2)),
        "expected calibration error": calibration_error,
    }


def triage_measures(card: Card) -> dict[str, Measure]:
    """What the verdicts of a card keep and cost."""
    conformal, rule_out = card.conformal, card.rule_out
    assert conformal is not None
    assert rule_out is not None
    return {
        "conformal coverage": lambda p, y: float(
            conformal.sets(p)[np.arange(len(p)), y.astype(int)].mean()
        ),
        "needs eyes": lambda p, y: float((conformal.sets(p).sum(1) != 1).mean()),
        "ruled out": lambda p, y: float((p < rule_out.value).mean()),
        "sensitivity of rule-out": lambda p, y: sensitivity(p, y, rule_out.value),
    }


def sensitivity(p: NDArray[np.float64], y: NDArray[np.bool_], threshold: float) -> float:
    """Share of the positives that reach the threshold."""
    return float((p[y] >= threshold).mean())


def specificity(p: NDArray[np.float64], y: NDArray[np.bool_], threshold: float) -> float:
    """Share of the negatives that stay below the threshold."""
    return float((p[~y] < threshold).mean())


def balanced_accuracy(p: NDArray[np.float64], y: NDArray[np.bool_], threshold: float) -> float:
    """Mean of sensitivity and specificity."""
    return (sensitivity(p, y, threshold) + specificity(p, y, threshold)) / 2


def f1(p: NDArray[np.float64], y: NDArray[np.bool_], threshold: float) -> float:
    """Harmonic mean of precision and sensitivity; for areas it is the Dice coefficient."""
    called = p >= threshold
    return float(2 * (called & y).sum() / max(1, called.sum() + y.sum()))


def calibration_error(p: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    """Mean gap between stated and found frequency over ten equal bins, weighted by count."""
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[bins == b].sum() - y[bins == b].sum()) for b in range(10)]
    return float(sum(gaps) / len(p))


def with_intervals(
    p: NDArray[np.float64],
    y: NDArray[np.bool_],
    patients: NDArray[np.int64],
    *,
    wanted: Mapping[str, Measure],
    seed: int,
    rounds: int = 1000,
) -> dict[str, tuple[float, float, float]]:
    """Each measure with its 95 % percentile interval, drawing whole patients with replacement."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    draws: list[NDArray[np.intp]] = []
    while len(draws) < rounds:
        chosen = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        if 0 < y[chosen].sum() < len(chosen):
            draws.append(chosen)
    result = {}
    for name, measure in wanted.items():
        low, high = np.percentile([measure(p[d], y[d]) for d in draws], [2.5, 97.5])
        result[name] = measure(p, y), float(low), float(high)
    return result


def best_threshold(p: NDArray[np.float64], y: NDArray[np.bool_]) -> float:
    """The threshold of the best mean of balanced accuracy and F1, smoothed.

    Balanced accuracy alone is flat over a wide range and takes low thresholds that flood a slide
    with false regions; F1 is the Dice coefficient of the regions. The middle of all thresholds
    within 0.005 of the best is taken: the very best one follows the chance of a few tiles.
    """
    candidates = np.linspace(0.02, 0.98, 193)
    both = [(balanced_accuracy(p, y, c) + f1(p, y, c)) / 2 for c in candidates]
    return float(np.round(np.mean(candidates[np.asarray(both) >= max(both) - 0.005]), 3))


def threshold_for_sensitivity(p: NDArray[np.float64], y: NDArray[np.bool_], wanted: float) -> float:
    """The highest threshold, rounded down to 0.001, that keeps the `wanted` sensitivity."""
    positives = np.sort(p[y])
    index = int(np.floor((1 - wanted) * len(positives)))
    return float(np.floor(positives[index] * 1000) / 1000)
