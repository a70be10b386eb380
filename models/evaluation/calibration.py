"""Fitting the maps that make a score mean what it says: temperature, Platt and isotonic."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from slidetriage.models.trust import Calibrator, as_class_logits, as_logits
from slidetriage.models.trust.inputs import (
    as_class_probabilities,
    as_classes,
    as_labels,
    as_probabilities,
)

from .logistic import fit_line

_TEMPERATURES = (0.05, 20.0)


def fit_temperature(label: ArrayLike, score: ArrayLike) -> Calibrator:
    """Temperature scaling (Guo et al. 2017): the T of greatest likelihood on held-out rows.

    `score` is N probabilities with 0/1 labels, or N x C with class numbers. T stays within 0.05
    and 20, so that held-out scores without a mistake still give a map.
    """
    if np.ndim(score) == 2:
        logits = as_class_logits(as_class_probabilities(score))
        true = as_classes(label, logits.shape[1], count=len(logits))
    else:
        p = as_probabilities(score)
        true = as_labels(label, count=len(p)).astype(np.int64)
        logits = np.stack([np.zeros_like(p), as_logits(p)], axis=1)  # N x 2
    rows = np.arange(len(true))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature), axis=1)
        return -float(scaled[rows, true].mean())

    low, high = (math.log(t) for t in _TEMPERATURES)
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-8})
    return Calibrator("temperature", (math.exp(float(best.x)),))


def fit_platt(label: ArrayLike, score: ArrayLike) -> Calibrator:
    """Platt's (1999) line on the logits, with his smoothed targets, for N probabilities."""
    positive = as_labels(label)
    x = as_logits(as_probabilities(score, count=len(positive)))
    ups = int(positive.sum())
    downs = len(positive) - ups
    target = np.where(positive, (ups + 1) / (ups + 2), 1 / (downs + 2))
    return Calibrator("platt", tuple(fit_line(x, target)))


def fit_isotonic(
    label: ArrayLike, score: ArrayLike, *, bounds: tuple[float, float] | None = None
) -> Calibrator:
    """The best rising step map (pool adjacent violators), flat beyond the scores seen.

    `bounds` are the least and greatest probability it may give; by default 1 / (N + 2) and
    1 less that, since N rows cannot show that something never happens.
    """
    from sklearn.isotonic import IsotonicRegression

    positive = as_labels(label)
    p = as_probabilities(score, count=len(positive))
    least, most = bounds or (1 / (len(p) + 2), 1 - 1 / (len(p) + 2))
    fitted = IsotonicRegression(y_min=least, y_max=most, out_of_bounds="clip").fit(p, positive)
    knots = [*fitted.X_thresholds_.tolist(), *fitted.y_thresholds_.tolist()]
    return Calibrator("isotonic", tuple(float(k) for k in knots))
