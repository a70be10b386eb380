"""Telling abnormal nuclei by rule: how far each departs from its slide's unremarkable ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .measuring import (
    AREA,
    ELLIPSE_DEVIATION,
    HAEMATOXYLIN,
    MAX_DIAMETER,
    MIN_DIAMETER,
    NEAREST_3,
    SIZE_SPREAD,
)
from .reference import (
    MOST_THRESHOLD,
    RAGGED,
    SPINDLE,
    UNKNOWN,
    Standard,
    choose_core,
    false_discovery_threshold,
    robust_standard,
    unremarkable_share,
)
from .table import Assessment

Columns = Mapping[str, NDArray[np.float32]]
"""Measurements by name, N values each."""

REASONS = (
    "enlarged",
    "hyperchromatic",
    "irregular outline",
    "pleomorphic surroundings",
    "crowded",
)
"""In the order of the features; the first three are the nucleus's own."""

CLASS_NAMES = ("Nucleus", "Abnormal nucleus")
CLASS_COLORS = ((78, 121, 167), (225, 87, 33))

WEIGHTS = (1.0, 1.0, 1.0, 0.25, 0.25)
"""Of the five robust z-scores in the sum. What surrounds a nucleus says little about the nucleus:
the two last break ties and are named, but cannot raise a flag alone."""

LEAST_NAMED = 1.0
"""A departure of fewer robust standard deviations is not named as a reason."""

FEWEST = 50
"""With fewer nuclei of its own a slide's reference is `TYPICAL` in size and shape."""

TYPICAL = Standard((3.7, 0.0, -3.4), (0.3, 0.12, 0.3))
"""Of the logarithm of the area (40 um^2), haematoxylin (unused: stains differ) and the logarithm of
the ellipse deviation (0.033): unremarkable epithelial nuclei."""

_BOUNDS = (-3.0, 6.0)
_SMALLEST_SCALE = np.array([0.05, 0.02, 0.05, 0.05, 0.05])
_OWN = 3
_ROWS = 65_536
_MOST_FITTED = 50_000


class Assessor(Protocol):
    """Says of each nucleus by itself how abnormal it is; chunks of a slide can be given in turn."""

    def assess(self, measurements: Columns) -> Assessment:
        """Assess N nuclei by their measurements."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """What is usual among a slide's unremarkable nuclei; an `Assessor`."""

    features: Standard
    """Of size, darkness, irregularity, spread of size around, and closeness (`features_of`)."""
    score: Standard
    """Of the weighted sum of z-scores."""
    threshold: float
    """A nucleus is flagged above this abnormality."""
    count: int
    """How many nuclei are taken as unremarkable."""
    own: bool
    """Whether size and shape are the slide's own rather than `TYPICAL`."""

    def assess(self, measurements: Columns) -> Assessment:
        """Assess N nuclei; the abnormality is in standard deviations of the unremarkable ones.

        Not flagged, however high their score, are nuclei smaller than usual (lymphocytes, dying
        cells and fibroblasts cut across are dark or ragged too) and outlines too ragged to be of
        one nucleus. A slender one, more likely a fibroblast's, is flagged from `MOST_THRESHOLD`.
        """
        count = len(measurements[AREA])
        abnormality, flagged = np.empty(count, np.float32), np.empty(count, np.bool_)
        reasons = np.empty((count, 3), np.int8)
        for first in range(0, count, _ROWS):
            part = slice(first, first + _ROWS)
            features = features_of(measurements, part)
            z = _depart(features, self.features)
            total = (_sum_up(z) - self.score.middle[0]) / self.score.scale[0]
            abnormality[part] = total
            slender = _slenderness(measurements, part) < SPINDLE
            limit = np.where(slender, max(self.threshold, MOST_THRESHOLD), self.threshold)
            doubtful = (z[:, 0] < 0) | (features[:, 2] > math.log(RAGGED))
            flagged[part] = (total > limit) & ~doubtful
            reasons[part] = _strongest(z, flagged[part])
        classes = flagged.astype(np.uint8)
        return Assessment(
            abnormality, classes, CLASS_NAMES, CLASS_COLORS, flagged, reasons, REASONS
        )


def fit_reference(measurements: Columns) -> Reference:
    """Learn what is usual from all nuclei of a slide (of more than 50,000 from every k-th).

    Spindles and lymphocyte-like nuclei are left out, then abnormal ones as far as they form a
    population of their own (`reference`).
    """
    chosen = slice(None, None, -(-len(measurements[AREA]) // _MOST_FITTED) or 1)
    features = features_of(measurements, chosen)
    area, deviation = np.exp(features[:, 0]), np.exp(features[:, 2])
    slender = _slenderness(measurements, chosen)
    features = features[choose_core(area, slender, deviation, features[:, 1])]
    own = len(features) >= FEWEST
    share = np.ones(len(features))
    if own:
        share = unremarkable_share(features[:, :_OWN], _SMALLEST_SCALE[:_OWN])
    usual = robust_standard(features, share, _SMALLEST_SCALE)
    if not own:
        usual = _typical(usual)
    sums = _sum_up(_depart(features, usual))
    # Of few nuclei the sum's spread is taken as that of independent z-scores.
    score = Standard((0.0,), (float(np.linalg.norm(WEIGHTS)),))
    if own:
        score = robust_standard(sums[:, None], share, np.full(1, 0.5))
    total = (sums - score.middle[0]) / score.scale[0]
    threshold = false_discovery_threshold(total[np.isfinite(total)]) if own else MOST_THRESHOLD
    return Reference(usual, score, threshold, round(float(share.sum())), own)


def features_of(measurements: Columns, part: slice) -> NDArray[np.float64]:
    """N x 5: what is compared, each larger where more abnormal; NaN where it is not known."""
    area, dark, uneven, spread, near = (
        np.asarray(measurements[name][part], np.float64)
        for name in (AREA, HAEMATOXYLIN, ELLIPSE_DEVIATION, SIZE_SPREAD, NEAREST_3)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.stack([np.log(area), dark, np.log(uneven), spread, -np.log(near)], axis=1)
    found[~np.isfinite(found)] = np.nan
    return found


def _slenderness(measurements: Columns, part: slice) -> NDArray[np.float64]:
    """N; the smallest over the largest diameter."""
    least, most = (
        np.asarray(measurements[name][part], np.float64) for name in (MIN_DIAMETER, MAX_DIAMETER)
    )
    return np.asarray(np.divide(least, most, where=most > 0, out=np.full(len(most), np.nan)))


def _depart(features: NDArray[np.float64], usual: Standard) -> NDArray[np.float64]:
    return np.clip((features - usual.middle) / usual.scale, *_BOUNDS)


def _sum_up(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """N; what is not known counts as usual, unless nothing of the nucleus itself is known."""
    total = (np.where(np.isnan(z), 0, z) * WEIGHTS).sum(
        axis=1
    )  # of a product BLAS sums as it likes
    return np.where(np.isnan(z[:, :_OWN]).all(axis=1), np.nan, total)


def _strongest(z: NDArray[np.float64], flagged: NDArray[np.bool_]) -> NDArray[np.int8]:
    """N x 3: the largest contributions to the sum; a flagged nucleus has one, however small."""
    added = np.where(z > 0, z * WEIGHTS, 0)
    part = np.where(z >= LEAST_NAMED, added, 0)
    unnamed = flagged & ~part.any(axis=1)
    part[unnamed] = np.where(added == added.max(axis=1, keepdims=True), added, 0)[unnamed]
    order = np.argsort(-part, axis=1, kind="stable")[:, :3]
    named = np.take_along_axis(part, order, axis=1) > 0
    return np.where(named, order, -1).astype(np.int8)


def _typical(own: Standard) -> Standard:
    """Size and shape typical, darkness against the few others, surroundings left out."""
    middle = (TYPICAL.middle[0], own.middle[1], TYPICAL.middle[2], 0.0, 0.0)
    return Standard(middle, (*TYPICAL.scale, UNKNOWN, UNKNOWN))
