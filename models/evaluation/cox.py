"""Cox regression for a few covariates: Newton's method on the partial likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2, norm

from slidetriage.models.trust.inputs import as_numbers, refuse

from .survival import as_survival

Ties = Literal["efron", "breslow"]

_STEPS = 50
_STEEPEST = 20.0
"""Log hazard ratio per standard deviation; past it the likelihood only ever rises."""
_LEAST_DEFINED = 1e12


@dataclass(frozen=True, slots=True)
class CoxTerm:
    """What one covariate does to the hazard, the others held."""

    name: str
    coefficient: float
    """log hazard ratio per unit."""
    standard_error: float
    hazard_ratio: float
    low: float
    """Of the hazard ratio's 95 % interval (Wald), as `high`."""
    high: float
    p: float
    """Of Wald's test, two-sided."""


@dataclass(frozen=True, slots=True)
class CoxFit:
    """A fitted proportional-hazards model."""

    terms: tuple[CoxTerm, ...]
    ties: Ties
    rows: int
    events: int
    log_likelihood: float
    null_log_likelihood: float

    @property
    def likelihood_ratio_p(self) -> float:
        """Of the likelihood-ratio test that no covariate does anything."""
        twice = 2 * (self.log_likelihood - self.null_log_likelihood)
        return float(chi2.sf(max(twice, 0.0), len(self.terms)))

    def risk(self, covariates: ArrayLike) -> NDArray[np.float64]:
        """Log hazard ratio of each of N rows against a row of zeros, from N x P (or N) values."""
        x = _as_design(covariates)
        if x.shape[1] != len(self.terms):
            raise refuse(
                f"There are {x.shape[1]} covariates, the fit has {len(self.terms)}.",
                f"Give {', '.join(term.name for term in self.terms)}.",
            )
        return np.asarray(x @ np.array([term.coefficient for term in self.terms]))


def fit_cox(
    time: ArrayLike,
    event: ArrayLike,
    covariates: ArrayLike,
    *,
    names: tuple[str, ...] | None = None,
    ties: Ties = "efron",
) -> CoxFit:
    """The proportional-hazards model of greatest partial likelihood (Cox 1972).

    Parameters
    ----------
    time, event
        N times of 0 or more; N events, 1 = it happened, 0 = censored.
    covariates
        N x P numbers, or N for one. Not penalised: meant for a few, with ten events or more each.
    names
        P names for the terms.
    ties
        How events at the same time are treated: Efron (1977), close to exact, or Breslow (1974).

    Raises
    ------
    UsageError
        Bad columns, no events, a constant covariate, covariates that determine one another, or
        one that parts the rows so that its hazard ratio has no bound.
    """
    times, events = as_survival(time, event)
    x = _as_design(covariates)
    labels = names or tuple(f"x{i}" for i in range(x.shape[1]))
    _check(times, events, x, labels)
    middle, spread = x.mean(axis=0), x.std(axis=0)
    table = _arrange(times, events, (x - middle) / spread)
    beta = np.zeros(x.shape[1])
    state = null = _evaluate(table, beta, ties)
    if np.linalg.cond(null.information) > _LEAST_DEFINED:
        raise refuse(
            "The covariates determine one another, or one never varies among those at risk.",
            "Leave one of them out.",
            code="E_SURVIVAL",
        )
    for _ in range(_STEPS):
        step = np.linalg.lstsq(state.information, state.gradient)[0]
        following = _evaluate(table, beta + step, ties)
        while following.value < state.value - 1e-9 * abs(state.value) and np.abs(step).max() > 1e-9:
            step = step / 2
            following = _evaluate(table, beta + step, ties)
        beta, state = beta + step, following
        if np.abs(beta).max() > _STEEPEST or not np.linalg.cond(state.information) < _LEAST_DEFINED:
            break
        if np.abs(step).max() < 1e-9:
            errors = np.sqrt(np.diag(np.linalg.inv(state.information)))
            terms = _describe(labels, beta / spread, errors / spread)
            return CoxFit(terms, ties, len(x), int(events.sum()), state.value, null.value)
    raise refuse(
        "The hazard ratio of a covariate has no bound: it parts the events from the rest.",
        "Leave the covariate out, or bring more events.",
        code="E_SURVIVAL",
    )


class _Table(NamedTuple):
    """Rows from the latest time to the earliest, so that a risk set is a beginning of it."""

    x: NDArray[np.float64]
    deaths: list[NDArray[np.intp]]
    """For each distinct time of events, the rows that die then."""
    at_risk: list[int]
    """For each, how many rows from the beginning are at risk."""


class _State(NamedTuple):
    """Log partial likelihood, its gradient, and the information (minus its curvature)."""

    value: float
    gradient: NDArray[np.float64]
    information: NDArray[np.float64]


def _arrange(
    times: NDArray[np.float64], events: NDArray[np.bool_], x: NDArray[np.float64]
) -> _Table:
    order = np.argsort(-times, kind="stable")
    falling, died = times[order], events[order]
    when = np.unique(falling[died])
    deaths = [np.flatnonzero((falling == t) & died) for t in when]
    at_risk = [int(np.searchsorted(-falling, -t, side="right")) for t in when]
    return _Table(x[order], deaths, at_risk)


def _evaluate(table: _Table, beta: NDArray[np.float64], ties: Ties) -> _State:
    x = table.x  # N x P
    score = x @ beta
    weight = np.exp(score - score.max())  # N; the shift cancels in every ratio
    first = np.cumsum(weight[:, None] * x, axis=0)  # N x P, sums over risk sets
    second = np.cumsum(weight[:, None, None] * x[:, :, None] * x[:, None, :], axis=0)  # N x P x P
    zeroth = np.cumsum(weight)  # N
    value, gradient, information = 0.0, np.zeros(x.shape[1]), np.zeros((x.shape[1],) * 2)
    for dead, count in zip(table.deaths, table.at_risk, strict=True):
        w, own = weight[dead], x[dead]
        own_first, own_second = w @ own, (w[:, None] * own).T @ own
        value += float(score[dead].sum())
        gradient += own.sum(axis=0)
        for turn in range(len(dead)):
            # Efron: of d who die together, those already gone weigh on average turn / d.
            gone = turn / len(dead) if ties == "efron" else 0.0
            total = zeroth[count - 1] - gone * w.sum()
            mean = (first[count - 1] - gone * own_first) / total
            value -= float(np.log(total) + score.max())
            gradient -= mean
            information += (second[count - 1] - gone * own_second) / total - np.outer(mean, mean)
    return _State(value, gradient, information)


def _describe(
    names: tuple[str, ...], beta: NDArray[np.float64], errors: NDArray[np.float64]
) -> tuple[CoxTerm, ...]:
    z = float(norm.ppf(0.975))
    return tuple(
        CoxTerm(
            name=name,
            coefficient=float(b),
            standard_error=float(e),
            hazard_ratio=float(np.exp(b)),
            low=float(np.exp(b - z * e)),
            high=float(np.exp(b + z * e)),
            p=float(2 * norm.sf(abs(b / e))),
        )
        for name, b, e in zip(names, beta, errors, strict=True)
    )


def _as_design(covariates: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(covariates)
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] == 0:
        raise refuse(f"covariates has shape {x.shape}.", "Give N x P numbers.")
    return as_numbers(x.ravel(), "covariates").reshape(x.shape)


def _check(
    times: NDArray[np.float64],
    events: NDArray[np.bool_],
    x: NDArray[np.float64],
    names: tuple[str, ...],
) -> None:
    if len(x) != len(times) or len(names) != x.shape[1]:
        raise refuse(
            f"covariates has shape {x.shape} for {len(times)} rows and {len(names)} names.",
            "Give one row per time and one name per column.",
        )
    if not events.any():
        raise refuse("There are no events.", "Bring rows with events.", code="E_SURVIVAL")
    for name, column in zip(names, x.T, strict=True):
        if column.min() == column.max():
            raise refuse(
                f"{name} is {column[0]:g} in every row.", "Leave it out.", code="E_SURVIVAL"
            )
