"""Logistic regression of one variable by Newton's method, without a penalty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from slidetriage.models.trust.inputs import refuse

_STEPS = 100
_STEEPEST = 1e4


class LogisticLine(NamedTuple):
    """log odds = intercept + slope * x."""

    slope: float
    intercept: float


def fit_line(x: NDArray[np.float64], target: NDArray[np.float64]) -> LogisticLine:
    """The line of greatest likelihood for N values and N targets from 0 to 1.

    Raises UsageError where there is none: `x` is constant, or parts the targets without overlap.
    """
    middle, spread = float(x.mean()), float(x.std())
    if spread == 0:
        raise refuse(
            "Every score is the same, so no line can be fitted through them.",
            "Check the model; a calibration needs scores that differ.",
        )
    design = np.stack([(x - middle) / spread, np.ones_like(x)], axis=1)  # N x 2
    weights = np.zeros(2)
    for _ in range(_STEPS):
        step = _newton_step(design, target, weights)
        weights = weights + step
        if np.abs(weights).max() > _STEEPEST:
            break
        if np.abs(step).max() < 1e-10:
            slope = float(weights[0]) / spread
            return LogisticLine(slope, float(weights[1]) - slope * middle)
    raise refuse(
        "The scores part the labels without overlap, so the best line is infinitely steep.",
        "Calibrate on more patients, or by temperature, which is kept within bounds.",
    )


def fit_intercept(x: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """The intercept of greatest likelihood where the slope on `x` is held at 1."""
    intercept = 0.0
    for _ in range(_STEPS):
        p = expit(x + intercept)
        gradient, curvature = float(np.sum(target - p)), float(np.sum(p * (1 - p)))
        # Far out the curve is flat and a full step would overshoot.
        step = float(np.clip(gradient / max(curvature, 1e-12), -2, 2))
        intercept += step
        if abs(step) < 1e-12:
            break
    return intercept


def _newton_step(
    design: NDArray[np.float64], target: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A Newton step, halved until the likelihood does not fall."""
    score = design @ weights
    p = expit(score)
    information = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)  # 2 x 2
    step = np.linalg.solve(information, design.T @ (target - p))
    before = _log_likelihood(score, target)
    for _ in range(30):
        if _log_likelihood(design @ (weights + step), target) >= before - 1e-12 * abs(before):
            break
        step = step / 2
    return np.asarray(step)


def _log_likelihood(score: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float(np.sum(target * score - np.logaddexp(0, score)))
