"""Whether scores mean what they say: reliability curve, ECE, Brier score, calibration line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.models.trust import as_logits
from slidetriage.models.trust.inputs import as_labels, as_probabilities, refuse

from .intervals import wilson_interval
from .logistic import fit_intercept, fit_line

Binning = Literal["mass", "width"]


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityCurve:
    """Mean score against the share of positives, in B bins that hold rows."""

    binning: Binning
    edges: NDArray[np.float64]
    """B' + 1 edges of all bins, the empty ones too; a score on an edge belongs to the upper bin."""
    count: NDArray[np.int64]
    mean_score: NDArray[np.float64]
    positives: NDArray[np.float64]
    """Share of positives in the bin."""
    low: NDArray[np.float64]
    """Of Wilson's 95 % interval, as `high`; rows are taken as independent."""
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error, and how it was measured."""

    value: float
    """Mean over rows of |share of positives - mean score| of the row's bin; biased upwards."""
    binning: Binning
    bins: int
    """Bins that hold rows."""


@dataclass(frozen=True, slots=True)
class BrierParts:
    """brier = reliability - resolution + uncertainty + within_bins, exactly."""

    brier: float
    reliability: float
    """Squared distance of each bin's share of positives from its mean score; 0 is best."""
    resolution: float
    """Squared distance of each bin's share of positives from that of all rows; more is better."""
    uncertainty: float
    """p (1 - p) of the table; not the model's doing."""
    within_bins: float
    """What scores that differ within a bin add (Stephenson et al. 2008)."""


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """The logistic line of the labels on the scores' logits (Cox 1958); 1 and 0 are best."""

    slope: float
    """Below 1: scores too extreme. Above 1: too timid."""
    intercept: float
    at_large: float
    """The intercept with the slope held at 1; above 0: scores too low on the whole."""


def reliability_curve(
    label: ArrayLike, score: ArrayLike, *, bins: int = 10, binning: Binning = "mass"
) -> ReliabilityCurve:
    """Bins of equal mass (as nearly as ties allow) or of equal width between 0 and 1."""
    positive, p = _pair(label, score)
    edges, number = _bin(p, bins, binning)
    count = np.bincount(number, minlength=len(edges) - 1)
    held = count > 0
    hits = np.bincount(number, positive, minlength=len(count))[held]
    total = np.bincount(number, p, minlength=len(count))[held]
    n = count[held]
    low, high = wilson_interval(hits, n)
    return ReliabilityCurve(binning, edges, n, total / n, hits / n, low, high)


def calibration_error(
    label: ArrayLike, score: ArrayLike, *, bins: int = 15, binning: Binning = "mass"
) -> CalibrationError:
    """Expected calibration error (Naeini et al. 2015)."""
    curve = reliability_curve(label, score, bins=bins, binning=binning)
    gap = np.abs(curve.positives - curve.mean_score)
    return CalibrationError(float(np.average(gap, weights=curve.count)), binning, len(gap))


def brier_score(label: ArrayLike, score: ArrayLike) -> float:
    """Mean squared distance of the score from the label, 0 (best) to 1."""
    positive, p = _pair(label, score)
    return float(np.mean((p - positive) ** 2))


def brier_parts(
    label: ArrayLike, score: ArrayLike, *, bins: int = 10, binning: Binning = "mass"
) -> BrierParts:
    """Murphy's (1973) decomposition over bins, with the part within bins stated apart."""
    positive, p = _pair(label, score)
    curve = reliability_curve(label, score, bins=bins, binning=binning)
    base = float(positive.mean())
    share = curve.count / len(p)
    reliability = float(np.sum(share * (curve.mean_score - curve.positives) ** 2))
    resolution = float(np.sum(share * (curve.positives - base) ** 2))
    uncertainty = base * (1 - base)
    brier = float(np.mean((p - positive) ** 2))
    within = brier - (reliability - resolution + uncertainty)
    return BrierParts(brier, reliability, resolution, uncertainty, within)


def calibration_line(label: ArrayLike, score: ArrayLike) -> CalibrationLine:
    """Calibration slope and intercept; raises UsageError where scores part the labels."""
    positive = as_labels(label)
    x = as_logits(as_probabilities(score, count=len(positive)))
    target = positive.astype(np.float64)
    line = fit_line(x, target)
    return CalibrationLine(line.slope, line.intercept, fit_intercept(x, target))


def _pair(label: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    positive = as_labels(label, both=False)
    if len(positive) == 0:
        raise refuse("The table has no rows.", "Give at least one row.")
    return positive, as_probabilities(score, count=len(positive))


def _bin(
    p: NDArray[np.float64], bins: int, binning: Binning
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Edges of the bins and the bin of each row."""
    if bins < 1:
        raise refuse(f"bins is {bins}.", "Give at least 1, as a rule 10 to 15.")
    if binning == "width":
        edges = np.linspace(0, 1, bins + 1)
    else:
        inner = np.quantile(p, np.arange(1, bins) / bins)
        edges = np.unique(np.concatenate([[0.0], inner, [1.0]]))
    return edges, np.searchsorted(edges[1:-1], p, side="right")
