"""A slide's unremarkable nuclei: which they are, and what is usual among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

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
_TURNS = 4
_FURTHEST = 3.0
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

    `features` (N x F) are larger where more abnormal. Medians fail where half of what is looked at
    is abnormal: they lie between both. But a nucleus that departs in size, darkness and shape at
    once departs much more clearly in the sum of its z-scores. So two normal distributions are
    fitted to that sum by expectation maximisation (Dempster, Laird and Rubin 1977). If they are
    further apart than `least_separation` and neither is rare, the lower is the unremarkable one;
    the z-scores are then taken against it, and both are fitted again. Otherwise all are one
    population, whose few abnormal ones do not move its medians.
    """
    share = np.ones(len(features))
    for turn in range(_TURNS):
        usual = robust_standard(features, share, least)
        z = np.clip((features - usual.middle) / usual.scale, -_FURTHEST, _FURTHEST)
        total = np.where(np.isfinite(z), z, 0).sum(axis=1)
        split = _split(total)
        # Later turns would find themselves confirmed: only the first is impartial.
        one = split.distance < least_separation(len(total)) or split.rarer < _LEAST_SHARE
        if turn == 0 and one:
            return share
        share = split.lower
    return share


def least_separation(count: int) -> float:
    """How far apart two fitted populations must be, in standard deviations, to be taken as two.

    Two can always be fitted to one. Of single populations that were simulated (three features,
    normal, skewed like a gamma distribution of shape 4, or correlated at 0.3) 99 % had a distance
    below 1.5 + 10 / sqrt(N), for N from 200 to 5,000. On painted slides it was 1.0 to 1.6 where no
    nucleus is abnormal and 2.6 to 3.8 where a third and more are.
    """
    return 1.5 + 10 / math.sqrt(max(count, 1))


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """Two normal distributions fitted to numbers."""

    lower: NDArray[np.float64]
    """N; the probability of being of the lower one."""
    distance: float
    """Of their means, in standard deviations (root of the mean variance)."""
    rarer: float
    """The smaller share."""


def _split(total: NDArray[np.float64]) -> _Split:
    from sklearn.mixture import GaussianMixture

    if np.ptp(total) == 0:
        return _Split(np.ones(len(total)), 0.0, 0.0)
    starts = np.quantile(total, [0.25, 0.75])[:, None]
    mixture = GaussianMixture(
        2,
        means_init=starts,
        weights_init=[0.5, 0.5],
        precisions_init=np.full((2, 1, 1), 1 / max(float(total.var()), 1e-6)),
        init_params="random_from_data",  # nothing of it is left: k-means would be
        random_state=0,
        reg_covar=0.05,
        max_iter=300,
        tol=1e-4,
    )
    # Sums of several threads differ in the last bits with their number.
    with threadpool_limits(1):
        mixture.fit(total[:, None])
        chances = mixture.predict_proba(total[:, None])
    means, variances = mixture.means_[:, 0], mixture.covariances_[:, 0, 0]
    low, high = np.argsort(means)
    lower = chances[:, low]
    # The wider of two distributions also wins far out on the other one's side.
    lower = np.where(total <= means[low], 1, np.where(total >= means[high], 0, lower))
    distance = (means[high] - means[low]) / np.sqrt(variances.mean())
    return _Split(lower, float(distance), float(mixture.weights_.min()))


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
