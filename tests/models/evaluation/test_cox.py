"""Cox regression on the 6-MP trial, against a plain likelihood, and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from leukaemia import EVENT, GROUP, TIME
from slidetriage.errors import UsageError
from slidetriage.models.evaluation import fit_cox
from slidetriage.models.evaluation.cox import Ties

PLACEBO = (GROUP == "placebo").astype(float)


@pytest.mark.parametrize(
    ("ties", "beta", "error"), [("efron", 1.572, 0.4124), ("breslow", 1.509, 0.4096)]
)
def test_published_coefficients(ties: Ties, beta: float, error: float) -> None:
    fit = fit_cox(TIME, EVENT, PLACEBO, names=("placebo",), ties=ties)
    term = fit.terms[0]
    assert term.coefficient == pytest.approx(beta, abs=5e-4)
    assert term.standard_error == pytest.approx(error, abs=1e-4)
    assert term.hazard_ratio == pytest.approx(np.exp(beta), rel=1e-3)
    assert term.low == pytest.approx(np.exp(beta - 1.96 * error), rel=2e-3)
    assert (fit.rows, fit.events, term.name) == (42, 30, "placebo")
    if ties == "efron":
        assert 2 * (fit.log_likelihood - fit.null_log_likelihood) == pytest.approx(16.35, abs=5e-3)
        assert fit.likelihood_ratio_p == pytest.approx(5.26e-5, rel=2e-3)


def plain_likelihood(
    time: NDArray[np.float64], event: NDArray[np.bool_], x: NDArray[np.float64], ties: Ties
) -> tuple[NDArray[np.float64], float]:
    """The greatest of the log partial likelihood written out row by row, by a general search."""

    def loss(beta: NDArray[np.float64]) -> float:
        weight, total = np.exp(x @ beta), 0.0
        for t in np.unique(time[event]):
            dead = (time == t) & event
            total += (x[dead] @ beta).sum()
            for turn in range(dead.sum()):
                gone = turn / dead.sum() * weight[dead].sum() if ties == "efron" else 0
                total -= np.log(weight[time >= t].sum() - gone)
        return -total

    best = minimize(loss, np.zeros(x.shape[1]), method="BFGS", options={"gtol": 1e-8})
    return best.x, -best.fun


@pytest.mark.parametrize(("ties", "seed"), list(itertools.product(["efron", "breslow"], range(2))))
def test_against_the_plain_likelihood(ties: Ties, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(60, 12, 70), rng.random(70) < 0.4], axis=1)
    time = np.ceil(rng.exponential(20 * np.exp(-0.03 * (x[:, 0] - 60) - 0.5 * x[:, 1])))
    event = rng.random(70) < 0.6
    fit = fit_cox(time, event, x, ties=ties)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    beta, value = plain_likelihood(time, event, scaled, ties)
    assert [t.coefficient for t in fit.terms] == pytest.approx(beta / x.std(axis=0), abs=1e-5)
    assert fit.log_likelihood == pytest.approx(value)


def test_breslow_and_efron_agree_without_ties() -> None:
    rng = np.random.default_rng(0)
    time, x = rng.exponential(1, 50), rng.normal(size=50)
    event = rng.random(50) < 0.7
    one, other = (fit_cox(time, event, x, ties=ties) for ties in ("efron", "breslow"))
    assert one.terms == other.terms


def test_intervals_hold_the_truth() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(120):
        x = rng.normal(size=100)
        death, end = rng.exponential(np.exp(-0.7 * x)), rng.exponential(2, 100)
        term = fit_cox(np.minimum(death, end), death <= end, x).terms[0]
        held += term.low <= np.exp(0.7) <= term.high
    assert 0.9 <= held / 120 <= 0.99


def test_scale_and_place_of_a_covariate_do_not_matter() -> None:
    fit = fit_cox(TIME, EVENT, PLACEBO * 1e4 + 1e6)
    assert fit.terms[0].coefficient * 1e4 == pytest.approx(1.572, abs=5e-4)


def test_risk_of_new_rows() -> None:
    fit = fit_cox(TIME, EVENT, np.stack([PLACEBO, np.arange(42) % 5], axis=1))
    b = [term.coefficient for term in fit.terms]
    assert fit.risk([[1, 0], [0, 3]]) == pytest.approx([b[0], 3 * b[1]])
    with pytest.raises(UsageError, match="1 covariates, the fit has 2"):
        fit.risk([1.0, 2.0])


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="no bound"):
        fit_cox([1, 2, 3, 4], [1, 1, 0, 0], [1, 1, 0, 0])
    with pytest.raises(UsageError, match="determine one another"):
        fit_cox(TIME, EVENT, np.stack([PLACEBO, 1 - PLACEBO], axis=1))
    with pytest.raises(UsageError, match="age is 3 in every row"):
        fit_cox(TIME, EVENT, np.full(42, 3), names=("age",))
    with pytest.raises(UsageError, match="no events"):
        fit_cox(TIME, EVENT * 0, PLACEBO)
    with pytest.raises(UsageError, match="covariates is NaN"):
        fit_cox([1, 2], [1, 1], [np.nan, 1])
    with pytest.raises(UsageError, match=r"shape \(3, 1\) for 2 rows"):
        fit_cox([1, 2], [1, 1], [1, 2, 3])
