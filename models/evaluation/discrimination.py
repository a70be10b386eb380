"""How well scores tell two classes apart: ranks, curves, and figures at a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from slidetriage.models.trust.inputs import as_labels, as_numbers


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """Sensitivity against 1 - specificity; a row is positive if scored at least the threshold."""

    threshold: NDArray[np.float64]
    """Falling; the first is infinite: nothing is positive."""
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecallCurve:
    """Positive predictive value against sensitivity, over every threshold that occurs."""

    threshold: NDArray[np.float64]
    """Falling."""
    ppv: NDArray[np.float64]
    sensitivity: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at one threshold, and the figures that follow; NaN where nothing is divided by."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are called positive (recall)."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        """Share of the negatives that are called negative."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def ppv(self) -> float:
        """Share of those called positive that are (precision)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def npv(self) -> float:
        """Share of those called negative that are."""
        return _ratio(self.true_negative, self.true_negative + self.false_negative)

    @property
    def accuracy(self) -> float:
        """Share called as they are."""
        right = self.true_positive + self.true_negative
        return _ratio(right, right + self.false_positive + self.false_negative)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and positive predictive value."""
        twice = 2 * self.true_positive
        return _ratio(twice, twice + self.false_positive + self.false_negative)


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive outscores a negative, ties counted half.

    From ranks (Mann-Whitney), so that it is exact and quick enough for a bootstrap. The score may
    be any finite number.
    """
    positive, scores = _pair(label, score)
    ranks = rankdata(scores)  # N
    count = int(positive.sum())
    total = float(ranks[positive].sum()) - count * (count + 1) / 2
    return total / (count * (len(scores) - count))


def roc_curve(label: ArrayLike, score: ArrayLike) -> RocCurve:
    """The ROC curve with every threshold that turns it."""
    from sklearn.metrics import roc_curve as sklearn_roc_curve

    positive, scores = _pair(label, score)
    false_positive, sensitivity, threshold = sklearn_roc_curve(positive, scores)
    return RocCurve(np.asarray(threshold), np.asarray(sensitivity), 1 - np.asarray(false_positive))


def sensitivity_on_grid(
    label: ArrayLike, score: ArrayLike, specificity: ArrayLike
) -> NDArray[np.float64]:
    """Sensitivity at each of G given specificities, by straight lines along the ROC curve.

    Meant for a bootstrap band, where curves must stand on one grid. Where the curve climbs
    upright, the higher end counts.
    """
    curve = roc_curve(label, score)
    grid = as_numbers(specificity, "specificity")
    # Of several points at one place interp takes the last, which is the highest.
    return np.asarray(np.interp(1 - grid, 1 - curve.specificity, curve.sensitivity))


def precision_recall_curve(label: ArrayLike, score: ArrayLike) -> PrecisionRecallCurve:
    """Positive predictive value and sensitivity at each distinct score."""
    positive, scores = _pair(label, score)
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # ends of runs of ties
    hits = np.cumsum(positive[order])[last]
    return PrecisionRecallCurve(scores[order][last], hits / (last + 1), hits / positive.sum())


def ppv_on_grid(label: ArrayLike, score: ArrayLike, sensitivity: ArrayLike) -> NDArray[np.float64]:
    """Positive predictive value where each of G given sensitivities is first reached.

    Meant for a bootstrap band, where curves must stand on one grid.
    """
    curve = precision_recall_curve(label, score)
    grid = as_numbers(sensitivity, "sensitivity")
    reached = np.searchsorted(curve.sensitivity, grid - 1e-12, side="left")
    return np.asarray(curve.ppv[np.minimum(reached, len(curve.ppv) - 1)])


def average_precision(label: ArrayLike, score: ArrayLike) -> float:
    """Mean positive predictive value over the positives, in steps (no interpolation)."""
    curve = precision_recall_curve(label, score)
    return float(np.sum(np.diff(curve.sensitivity, prepend=0) * curve.ppv))


def confusion_at(label: ArrayLike, score: ArrayLike, threshold: float) -> Confusion:
    """Counts when every row scored at least `threshold` is called positive; one class will do."""
    positive = as_labels(label, both=False)
    called = as_numbers(score, "score", count=len(positive)) >= threshold
    return Confusion(
        int((positive & called).sum()),
        int((~positive & called).sum()),
        int((~positive & ~called).sum()),
        int((positive & ~called).sum()),
    )


def _pair(label: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    positive = as_labels(label)
    return positive, as_numbers(score, "score", count=len(positive))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
