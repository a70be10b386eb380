"""A slide's unremarkable nuclei: which they are, and what is usual among them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

SPINDLE = 0.5
"""Smallest over largest diameter below which a nucleus is that of a fibroblast or vessel."""

RAGGED = 0.15
"""An ellipse deviation past this is that of several nuclei in one outline, or of none."""

LYMPHOCYTE_UM = 8.5
"""A lymphocyte's nucleus is about 7 um across and rarely wider than this."""

LYMPHOCYTE_ROUND = 0.75
"""Its smallest over its largest diameter is at least this."""

FALSE_DISCOVERY = 0.10
"""Share of the flagged that may be unremarkable."""

LEAST_THRESHOLD, MOST_THRESHOLD = 1.282, 3.1
"""One-sided 10 % and 0.1 % of a normal distribution. However many are abnormal, at most one in ten
unremarkable nuclei is flagged; where none is, one in a thousand."""

UNKNOWN = 1e9
"""A scale so large that nothing departs; not infinite, which JSON does not know."""

_MAD_TO_SD = 1.4826
_LEAST_SHARE = 0.05
_LEAST_APART = 0.3
_FURTHEST = 4.0
_SMALLEST_VARIANCE = 0.05
_LOWER_SHARES = (0.2, 0.4, 0.6, 0.8, 0.9)
_MOST_SPLIT = 4_000
_DOUBT = 0.3
_FEWEST_LARGE = 20


@dataclass(frozen=True, slots=True)
class Standard:
    """What is usual: a robust mean and standard deviation of each feature."""

    middle: tuple[float, ...]
    scale: tuple[float, ...]


def robust_standard(
    values: NDArray[np.float64], weights: NDArray[np.float64], least: NDArray[np.float64]
) -> Standard:
    """Weighted median and MAD * 1.4826 of the F columns of N x F `values`; NaN is left out.

    A scale is at least `least` (F); a column without any value has a scale of `UNKNOWN`, against
    which nothing departs.
    """
    middles, scales = [], []
    for column, floor in zip(values.T, least, strict=True):
        known = np.isfinite(column) & (weights > 0)
        if not known.any():
            middles.append(0.0)
            scales.append(UNKNOWN)
            continue
        middle = _weighted_median(column[known], weights[known])
        spread = _weighted_median(np.abs(column[known] - middle), weights[known])
        middles.append(middle)
        scales.append(max(_MAD_TO_SD * spread, float(floor)))
    return Standard(tuple(middles), tuple(scales))


def choose_core(
    area_um: NDArray[np.float64],
    slender: NDArray[np.float64],
    deviation: NDArray[np.float64],
    dark: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """N; all but spindles, small round dark nuclei, and outlines that are not of one nucleus.

    Any slide has more or fewer of those. `slender` is the smallest over the largest diameter,
    `deviation` that from an ellipse. Dark is more than a robust standard deviation above the median
    of the nuclei that are too wide for a lymphocyte.
    """
    core = np.asarray(np.isfinite(area_um) & ~(slender < SPINDLE) & ~(deviation > RAGGED))
    small = area_um < np.pi / 4 * LYMPHOCYTE_UM**2
    against = core & ~small & np.isfinite(dark)
    if against.sum() < _FEWEST_LARGE:
        against = core & np.isfinite(dark)
    if not against.any():
        return core
    middle = np.median(dark[against])
    limit = middle + _MAD_TO_SD * np.median(np.abs(dark[against] - middle))
    return np.asarray(core & ~(small & (slender >= LYMPHOCYTE_ROUND) & (dark > limit)))


def unremarkable_share(
    features: NDArray[np.float64], least: NDArray[np.float64]
) -> NDArray[np.float64]:
    """N; how surely each nucleus is of the unremarkable population, 0 to 1.

    `features` (N x F) are larger where more abnormal; `least` (F) are their smallest scales.
    Medians fail where half of what is looked at is abnormal: they lie between both. But a nucleus
    that departs in size, darkness and shape at once departs much more clearly in all of them
    together. So two normal distributions in F dimensions are fitted by expectation maximisation
    (Dempster, Laird and Rubin 1977), from several guesses of how many are abnormal, and those
    furthest apart are taken. From `least_separation` on, what is of the upper one does not count;
    0.3 below that it counts like any other, and in between the less the further they are apart.
    Where they are one, its few abnormal nuclei do not move its medians.
    """
    usual = robust_standard(features, np.ones(len(features)), least)
    z = np.clip((features - usual.middle) / usual.scale, -_FURTHEST, _FURTHEST)
    z = np.where(np.isfinite(z), z, 0)
    few = z[:: -(-len(z) // _MOST_SPLIT) or 1]
    splits = [split for share in _LOWER_SHARES if (split := _split(few, share))]
    if not splits:
        return np.ones(len(features))
    best = max(splits, key=lambda split: split.distance)
    sureness = (best.distance - least_separation(len(few))) / _DOUBT + 1
    if sureness <= 0:
        return np.ones(len(features))
    return np.asarray(1 - min(sureness, 1.0) * best.upper(z))


def least_separation(count: int) -> float:
    """How far apart two fitted populations must be, in standard deviations, to be surely two.

    Two can always be fitted to one. Of single populations that were simulated (three features,
    normal, skewed either way like a gamma distribution of shape 4, or correlated at 0.3 and 0.5)
    nine in ten had a largest distance below 2.05, 2.3 and 2.8 for N of 4,000, 1,000 and 200: a few
    hundred nuclei can be taken for two populations. On painted slides it was at most 2.1 of many
    nuclei none of which is abnormal, in whatever mixture, and 2.5 to 3.1 where a tenth to three
    quarters of the large ones are; where small dark ones of glands are most, none stand apart.
    """
    return 2.0 + 8 / math.sqrt(max(count, 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """Two normal distributions fitted to points in F dimensions."""

    mixture: GaussianMixture
    distance: float
    """Along the sum of the features, each in units of its standard deviation within the two."""

    def upper(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """N; the probability of being of the upper one."""
        with threadpool_limits(1):
            chances: NDArray[np.float64] = self.mixture.predict_proba(z)
        return chances[:, 1]


def _split(z: NDArray[np.float64], lower_share: float) -> _Split | None:
    """Fit both to N x F, the first guess being that the share with the least sums is the lower.

    None where the upper does not end clearly larger in every feature, or either is rare.
    """
    from sklearn.mixture import GaussianMixture

    total = z.sum(axis=1)
    above = total > np.quantile(total, lower_share)
    parts = (z[~above], z[above])
    if min(map(len, parts)) < 2:
        return None
    floor = _SMALLEST_VARIANCE * np.eye(z.shape[1])
    mixture = GaussianMixture(
        2,
        means_init=[part.mean(axis=0) for part in parts],
        weights_init=[lower_share, 1 - lower_share],
        precisions_init=[np.linalg.inv(np.cov(part.T) + floor) for part in parts],
        init_params="random_from_data",  # nothing of it is left: k-means would be
        random_state=0,
        reg_covar=_SMALLEST_VARIANCE,
        max_iter=300,
        tol=1e-3,
    )
    # Sums of several threads differ in the last bits with their number.
    with threadpool_limits(1):
        mixture.fit(z)
    covariance = mixture.covariances_.mean(axis=0)
    scale = np.sqrt(np.diag(covariance))
    apart = (mixture.means_[1] - mixture.means_[0]) / scale
    spread = np.sqrt((covariance / np.outer(scale, scale)).sum())
    if mixture.weights_.min() < _LEAST_SHARE or apart.min() < _LEAST_APART:
        return None
    return _Split(mixture, float(apart.sum() / spread))


def false_discovery_threshold(scores: NDArray[np.float64]) -> float:
    """The lowest score above which at most `FALSE_DISCOVERY` are expected to be unremarkable.

    `scores` are N, standardised so that unremarkable nuclei have mean 0 and standard deviation 1.
    Those below 0 are half of all unremarkable ones, which says how many there are (Storey 2002);
    of them a normal distribution's tail lies above a threshold (empirical null; Efron 2004).
    Stays between `LEAST_THRESHOLD` and `MOST_THRESHOLD`.
    """
    unremarkable = min(2 * np.count_nonzero(scores < 0), len(scores))
    for threshold in np.linspace(LEAST_THRESHOLD, MOST_THRESHOLD, 60):
        above = np.count_nonzero(scores > threshold)
        if above and unremarkable * ndtr(-threshold) <= FALSE_DISCOVERY * above:
            return float(threshold)
    return MOST_THRESHOLD


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(below, below[-1] / 2)]])
