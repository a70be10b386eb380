"""Maps that make a score mean what it says: temperature, Platt and isotonic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit

from slidetriage.errors import ModelError

from .inputs import as_class_probabilities, as_classes, as_labels, as_probabilities
from .logistic import fit_line

Kind = Literal["temperature", "platt", "isotonic"]

CERTAIN = 1e-7
"""Probabilities are kept this far from 0 and 1 before logits are taken; float32 knows no closer."""

_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A fitted map from a model's probability to a calibrated one; plain numbers only.

    Temperature: sigmoid(logit(p) / T), or softmax(log p / T) for N x C. Platt:
    sigmoid(slope * logit(p) + intercept). Isotonic: straight lines between knots. Temperature
    keeps the order of scores exactly; isotonic may tie neighbours.
    """

    kind: Kind
    numbers: tuple[float, ...]
    """(T,); (slope, intercept); or the knots' places, rising, followed by their values."""

    def __post_init__(self) -> None:
        _check(self.kind, self.numbers)

    def apply(self, score: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities of N, or for temperature also of N x C."""
        if np.ndim(score) == 2 and self.kind == "temperature":
            logits = _class_logits(as_class_probabilities(score))
            return np.asarray(np.exp(log_softmax(logits / self.numbers[0], axis=1)))  # N x C
        p = as_probabilities(score)
        if self.kind == "isotonic":
            places, values = np.split(np.array(self.numbers), 2)
            return np.asarray(np.interp(p, places, values))
        slope, intercept = self.numbers if self.kind == "platt" else (1 / self.numbers[0], 0.0)
        return np.asarray(expit(slope * as_logits(p) + intercept))

    def to_json(self) -> dict[str, object]:
        """As plain JSON values."""
        return {"kind": self.kind, "numbers": list(self.numbers)}

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Calibrator:
        """Back from `to_json`; raises ModelError for anything else."""
        kind, numbers = plain.get("kind"), plain.get("numbers")
        if set(plain) != {"kind", "numbers"} or not isinstance(numbers, list | tuple):
            raise _damaged(f"it holds {sorted(plain)}")
        if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            raise _damaged("one of its numbers is none")
        return cls(cast(Kind, kind), tuple(float(n) for n in numbers))


def as_logits(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log odds of probabilities kept off 0 and 1."""
    return np.asarray(logit(np.clip(probability, CERTAIN, 1 - CERTAIN)))


def fit_temperature(label: ArrayLike, score: ArrayLike) -> Calibrator:
    """Temperature scaling (Guo et al. 2017): the T of greatest likelihood on held-out rows.

    `score` is N probabilities with 0/1 labels, or N x C with class numbers. T stays within 0.05
    and 20, so that held-out scores without a mistake still give a map.
    """
    if np.ndim(score) == 2:
        logits = _class_logits(as_class_probabilities(score))
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


def _class_logits(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.clip(probability, CERTAIN, 1))  # N x C


def _check(kind: object, numbers: tuple[float, ...]) -> None:
    if kind not in get_args(Kind):
        raise _damaged(f"its kind is {kind!r}")
    if not all(math.isfinite(n) for n in numbers):
        raise _damaged("one of its numbers is not finite")
    if kind == "temperature" and (len(numbers) != 1 or numbers[0] <= 0):
        raise _damaged("a temperature is one number above 0")
    if kind == "platt" and len(numbers) != 2:
        raise _damaged("Platt's map has a slope and an intercept")
    if kind == "isotonic":
        if len(numbers) < 2 or len(numbers) % 2:
            raise _damaged("an isotonic map has as many places as values")
        places, values = np.split(np.array(numbers), 2)
        if (np.diff(places) <= 0).any() or (np.diff(values) < 0).any():
            raise _damaged("an isotonic map must rise")
        if values.min() < 0 or values.max() > 1:
            raise _damaged("an isotonic map gives probabilities")


def _damaged(why: str) -> ModelError:
    return ModelError(f"The calibration is not one: {why}.", mend="Fit it again.")
