"""Survival by groups: Kaplan-Meier curves, the log-rank test and groups of risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm

from slidetriage.models.trust.inputs import as_names, as_numbers, as_share, refuse


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalCurve:
    """Kaplan-Meier estimate at the E times of events; it is 1 before the first."""

    time: NDArray[np.float64]
    survival: NDArray[np.float64]
    """Share alive just after the time."""
    standard_error: NDArray[np.float64]
    """Greenwood's (1926), of `survival`; NaN once nobody is left."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_risk: NDArray[np.int64]
    """Just before the time."""
    events: NDArray[np.int64]
    censored: NDArray[np.float64]
    """Times of those who left without an event, for the ticks of a plot."""

    @property
    def median(self) -> float:
        """First time at which half or fewer are alive; infinite if never reached."""
        reached = np.flatnonzero(self.survival <= 0.5 + 1e-12)
        return float(self.time[reached[0]]) if len(reached) else float("inf")

    def at(self, times: ArrayLike) -> NDArray[np.float64]:
        """Share alive just after each of the given times; after the last one seen it stays."""
        last = np.searchsorted(self.time, as_numbers(times, "times"), side="right")
        return np.concatenate([[1.0], self.survival])[last]

    def before(self, times: ArrayLike) -> NDArray[np.float64]:
        """Share alive just before each of the given times."""
        last = np.searchsorted(self.time, as_numbers(times, "times"), side="left")
        return np.concatenate([[1.0], self.survival])[last]


@dataclass(frozen=True, slots=True)
class LogRank:
    """The log-rank test of k groups."""

    chi2: float
    degrees: int
    p: float
    groups: tuple[str, ...]
    observed: tuple[float, ...]
    """Events in each group."""
    expected: tuple[float, ...]
    """Events each would have had if all died alike."""


def as_survival(time: ArrayLike, event: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """N times of 0 or more and N events (True = it happened, False = censored), checked."""
    raw = np.asarray(time)
    events = as_numbers(event, "event")
    if raw.ndim == 1 and raw.dtype.kind == "f" and len(raw) == len(events):
        orphans = np.flatnonzero(np.isnan(raw) & (events == 1))
        if len(orphans):
            raise refuse(
                f"{len(orphans)} events have no time, the first in row {orphans[0]} (from 0).",
                "Give the time of each event, or leave these rows out and say so.",
                code="E_SURVIVAL",
            )
    times = as_numbers(time, "time", count=len(events))
    if not np.isin(events, (0, 1)).all():
        raise refuse("event holds values other than 0 and 1.", "Give 1 = event, 0 = censored.")
    if len(times) == 0 or (times < 0).any():
        raise refuse("time is empty or negative.", "Give one time of 0 or more per row.")
    return times, events == 1


def kaplan_meier(
    time: ArrayLike,
    event: ArrayLike,
    *,
    level: float = 0.95,
    interval: Literal["log-log", "plain"] = "log-log",
) -> SurvivalCurve:
    """The product-limit estimate, censored rows counting as at risk at their own time.

    The interval takes Greenwood's variance, as it is ("plain", cut to 0 and 1) or of
    log(-log S) (Kalbfleisch and Prentice), which stays within 0 and 1 and suits small groups.
    """
    times, events = as_survival(time, event)
    z = float(norm.ppf((1 + as_share(level, "level")) / 2))
    when, died, at_risk = _life_table(times, events)
    survival: NDArray[np.float64] = np.cumprod(1 - died / at_risk, dtype=np.float64)  # E
    left = at_risk - died
    with np.errstate(divide="ignore", invalid="ignore"):  # nobody left at the last event
        variance = np.cumsum(died / (at_risk * left.astype(np.float64)))  # of log S
        error = np.where(left > 0, survival * np.sqrt(variance), np.nan)
        if interval == "plain":
            low, high = survival - z * error, survival + z * error
        else:
            spread = z * np.sqrt(variance) / np.log(survival)
            low, high = survival ** np.exp(-spread), survival ** np.exp(spread)
    low, high = (np.where(left > 0, np.clip(side, 0, 1), np.nan) for side in (low, high))
    return SurvivalCurve(when, survival, error, low, high, at_risk, died, np.sort(times[~events]))


def log_rank(time: ArrayLike, event: ArrayLike, group: ArrayLike) -> LogRank:
    """Mantel's log-rank test (Peto and Peto 1972) that k groups die alike, k - 1 degrees.

    The variance is the hypergeometric one, exact under ties.
    """
    times, events = as_survival(time, event)
    names, member = np.unique(as_names(group, "group", count=len(times)), return_inverse=True)
    if len(names) < 2 or not events.any():
        raise refuse(
            f"{len(names)} groups with {int(events.sum())} events cannot be compared.",
            "Give two or more groups and at least one event.",
            code="E_SURVIVAL",
        )
    k = len(names)
    observed, expected, covariance = np.zeros(k), np.zeros(k), np.zeros((k, k))
    for when in np.unique(times[events]):
        n = np.bincount(member[times >= when], minlength=k).astype(np.float64)  # at risk, k
        d = np.bincount(member[(times == when) & events], minlength=k)
        total, deaths = n.sum(), d.sum()
        observed += d
        expected += deaths * n / total
        if total > 1:
            scale = deaths * (total - deaths) / (total - 1) / total**2
            covariance += scale * (total * np.diag(n) - np.outer(n, n))
    excess = (observed - expected)[:-1]
    statistic = float(excess @ np.linalg.pinv(covariance[:-1, :-1]) @ excess)
    return LogRank(
        chi2=statistic,
        degrees=k - 1,
        p=float(chi2.sf(statistic, k - 1)),
        groups=tuple(names.tolist()),
        observed=tuple(observed.tolist()),
        expected=tuple(expected.tolist()),
    )


def risk_boundaries(training_risk: ArrayLike, *, groups: int = 2) -> tuple[float, ...]:
    """The quantiles that part training risks into equal groups: the median, tertiles and so on."""
    risk = as_numbers(training_risk, "risk")
    if groups < 2 or len(np.unique(risk)) < groups:
        raise refuse(
            f"{len(np.unique(risk))} distinct risks cannot be parted into {groups} groups.",
            "Ask for at least two groups, and for no more than there are risks.",
        )
    return tuple(np.quantile(risk, np.arange(1, groups) / groups).tolist())


def risk_groups(risk: ArrayLike, boundaries: tuple[float, ...]) -> NDArray[np.int64]:
    """The group of each of N risks, 0 lowest; a risk on a boundary goes to the lower group."""
    return np.searchsorted(boundaries, as_numbers(risk, "risk"), side="left").astype(np.int64)


def _life_table(
    times: NDArray[np.float64], events: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct times of events, events then, and how many were at risk just before."""
    when, died = np.unique(times[events], return_counts=True)
    at_risk = len(times) - np.searchsorted(np.sort(times), when, side="left")
    return when, died.astype(np.int64), at_risk.astype(np.int64)
