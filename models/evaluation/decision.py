"""What a score is worth in use: decision curve, and the share of slides nobody need look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.models.trust.inputs import as_labels, as_numbers, as_probabilities, refuse

from .discrimination import confusion_at


@dataclass(frozen=True, slots=True, eq=False)
class DecisionCurve:
    """Net benefit, in true positives per row, at G threshold probabilities."""

    threshold: NDArray[np.float64]
    """The probability at which one would act; odds of it weigh false against true positives."""
    model: NDArray[np.float64]
    treat_all: NDArray[np.float64]
    treat_none: NDArray[np.float64]
    """0 throughout."""


@dataclass(frozen=True, slots=True)
class RuleOut:
    """What a threshold spares, on rows that it was not chosen on."""

    threshold: float
    rows: int
    slides_share: float
    """Share of rows scored below the threshold: they need no look."""
    area_share: float
    """Share of the tissue area on those rows; NaN where no areas are known."""
    sensitivity: float
    """Share of positives that are kept."""
    missed: int
    """Positives ruled out."""
    npv: float
    """Share of negatives among those ruled out; NaN where none is."""


def decision_curve(
    label: ArrayLike, score: ArrayLike, *, thresholds: ArrayLike | None = None
) -> DecisionCurve:
    """Net benefit of acting on the score (Vickers and Elkin 2006), of always and of never acting.

    At threshold t it is TP / N - FP / N * t / (1 - t). The score must be a calibrated probability.
    `thresholds` lie at 0 or above and below 1; by default 0.01 to 0.99.
    """
    positive = as_labels(label)
    p = as_probabilities(score, count=len(positive))
    given = np.arange(1, 100) / 100 if thresholds is None else thresholds
    grid = as_numbers(given, "thresholds")  # G
    if ((grid < 0) | (grid >= 1)).any():
        raise refuse("A threshold lies outside 0 to 1.", "Give thresholds from 0 to below 1.")
    price = grid / (1 - grid)  # G
    rising = np.sort(p[positive]), np.sort(p[~positive])
    hits, alarms = (len(side) - np.searchsorted(side, grid, side="left") for side in rising)
    base = positive.mean()
    return DecisionCurve(
        threshold=grid,
        model=np.asarray((hits - alarms * price) / len(p)),
        treat_all=np.asarray(base - (1 - base) * price),
        treat_none=np.zeros_like(grid),
    )


def rule_out(
    label: ArrayLike, score: ArrayLike, threshold: float, *, area_mm2: ArrayLike | None = None
) -> RuleOut:
    """The share of rows, and of tissue, that a threshold chosen elsewhere spares.

    Choose it with `threshold_at_sensitivity` on other patients: on the rows it was chosen on, its
    sensitivity holds by construction. One class will do.
    """
    counts = confusion_at(label, score, threshold)
    spared = as_numbers(score, "score") < threshold  # N
    if len(spared) == 0:
        raise refuse("The table has no rows.", "Give at least one row.")
    return RuleOut(
        threshold=float(threshold),
        rows=len(spared),
        slides_share=float(spared.mean()),
        area_share=_share_of_area(spared, area_mm2),
        sensitivity=counts.sensitivity,
        missed=counts.false_negative,
        npv=counts.npv,
    )


def _share_of_area(spared: NDArray[np.bool_], area_mm2: ArrayLike | None) -> float:
    if area_mm2 is None:
        return float("nan")
    area = as_numbers(area_mm2, "area_mm2", count=len(spared))
    if (area < 0).any() or area.sum() == 0:
        raise refuse(
            "area_mm2 holds a negative area, or none at all.",
            "Give the tissue area of each slide in mm2.",
        )
    return float(area[spared].sum() / area.sum())
