"""Confidence intervals: the bootstrap over patients, and Wilson's for a share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from slidetriage.errors import UsageError
from slidetriage.models.trust.inputs import as_names, as_patients, as_share, refuse

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its percentile interval over resamples of patients."""

    value: float
    """On the table as it is."""
    low: float
    high: float
    """NaN, as `low`, where fewer than half of the resamples gave a value."""
    level: float
    repeats: int
    repeats_used: int
    """Resamples on which the figure had a value; the interval is over these alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A curve with its pointwise percentile interval over resamples of patients."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    repeats_used: int


class PatientBootstrap:
    """Resamples of a table in which patients, with all their rows, are drawn with replacement.

    With `strata` (as a rule the label) the draw is made among the patients who hold the same set
    of strata, so that each resample keeps every class that the table has. The share of positives
    then hardly varies between resamples: the interval of a figure that depends on it (predictive
    values, Brier score) is for a table of that share.

    Every interval of one object is over the same resamples, so that differences are paired.
    """

    def __init__(
        self,
        patients: ArrayLike,
        *,
        strata: ArrayLike | None = None,
        repeats: int = 2000,
        seed: int,
    ) -> None:
        names = as_patients(patients)
        unique, number = np.unique(names, return_inverse=True)  # P, N
        if len(unique) < 2:
            raise refuse(
                f"The table has {len(unique)} patients; resampling needs two.",
                "Report the figure without an interval.",
            )
        if repeats < 1:
            raise refuse(f"repeats is {repeats}.", "Give at least 1, as a rule 2000.")
        self.repeats = repeats
        self._seed = seed
        self._rows = len(names)
        self._order = np.argsort(number, kind="stable")  # N rows, patient after patient
        self._counts = np.bincount(number)  # P
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]])  # P
        self._pools = _pool_patients(number, strata, len(unique))

    def draws(self) -> Iterator[Rows]:
        """The resamples one after the other, each as row numbers; the same ones at every call."""
        rng = np.random.default_rng(self._seed)
        for _ in range(self.repeats):
            drawn = np.concatenate([rng.choice(pool, len(pool)) for pool in self._pools])  # P
            counts = self._counts[drawn]
            skip = self._starts[drawn] - np.concatenate([[0], np.cumsum(counts)[:-1]])
            yield self._order[np.repeat(skip, counts) + np.arange(counts.sum())]

    def interval(self, statistic: Callable[[Rows], float], *, level: float = 0.95) -> Interval:
        """The figure `statistic(rows)` on all rows, with its percentile interval.

        A resample on which it is NaN or raises UsageError (one class only, say) has no value; on
        the whole table the same error is the caller's to see.
        """
        value = float(statistic(np.arange(self._rows)))
        found = np.array([_try(statistic, rows) for rows in self.draws()])
        used = int(np.isfinite(found).sum())
        low, high = _percentiles(found[:, None], as_share(level, "level"))
        return Interval(value, float(low[0]), float(high[0]), level, self.repeats, used)

    def band(self, curve: Callable[[Rows], NDArray[np.float64]], *, level: float = 0.95) -> Band:
        """The curve `curve(rows)` (G values at fixed places) with its pointwise interval."""
        value = np.asarray(curve(np.arange(self._rows)), np.float64)  # G
        found = []
        for rows in self.draws():
            try:
                found.append(np.asarray(curve(rows), np.float64))
            except UsageError:
                found.append(np.full_like(value, np.nan))
        table = np.stack(found)  # repeats x G
        low, high = _percentiles(table, as_share(level, "level"))
        used = int(np.isfinite(table).all(axis=1).sum())
        return Band(value, low, high, level, used)


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's (1927) score interval of a share, element by element; NaN without trials."""
    z = float(norm.ppf((1 + as_share(level, "level")) / 2))
    hits, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    if np.any((hits < 0) | (hits > n)):
        raise refuse("There are more successes than trials, or fewer than 0.", "Check the counts.")
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is the NaN that is promised
        share = hits / n
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _pool_patients(
    number: NDArray[np.intp], strata: ArrayLike | None, patients: int
) -> list[NDArray[np.intp]]:
    """Patients grouped by the set of strata that their rows hold."""
    if strata is None:
        return [np.arange(patients)]
    names = as_names(strata, "strata", count=len(number))
    held: list[set[str]] = [set() for _ in range(patients)]
    for patient, name in zip(number, names, strict=True):
        held[patient].add(str(name))
    pools: dict[frozenset[str], list[int]] = {}
    for patient, names_held in enumerate(held):
        pools.setdefault(frozenset(names_held), []).append(patient)
    return [np.array(pool, np.intp) for pool in pools.values()]


def _try(statistic: Callable[[Rows], float], rows: Rows) -> float:
    try:
        return float(statistic(rows))
    except UsageError:
        return float("nan")


def _percentiles(
    found: NDArray[np.float64], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentiles of each column of repeats x G; NaN where under half of the rows have a value."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = (np.full(found.shape[1], np.nan) for _ in range(2))
    finite = np.isfinite(found)
    enough = finite.sum(axis=0) * 2 >= len(found)
    for column in np.flatnonzero(enough):
        low[column], high[column] = np.quantile(found[finite[:, column], column], tails)
    return low, high
