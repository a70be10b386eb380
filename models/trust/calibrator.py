"""A map that makes a score mean what it says; `models.evaluation` fits them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import ModelError

from .inputs import as_class_probabilities, as_probabilities

Kind = Literal["temperature", "platt", "isotonic"]

CERTAIN = 1e-7
"""Probabilities are kept this far from 0 and 1 before logits are taken; float32 knows no closer."""


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
            logits = as_class_logits(as_class_probabilities(score))
            return np.asarray(_softmax(logits / self.numbers[0]))  # N x C
        p = as_probabilities(score)
        if self.kind == "isotonic":
            places, values = np.split(np.array(self.numbers), 2)
            return np.asarray(np.interp(p, places, values))
        slope, intercept = self.numbers if self.kind == "platt" else (1 / self.numbers[0], 0.0)
        return np.asarray(_sigmoid(slope * as_logits(p) + intercept))

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
    p = np.clip(probability, CERTAIN, 1 - CERTAIN)
    return np.asarray(np.log(p) - np.log1p(-p))


def as_class_logits(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of N x C probabilities kept off 0."""
    return np.log(np.clip(probability, CERTAIN, 1))  # N x C


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))  # N x C
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)))


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
