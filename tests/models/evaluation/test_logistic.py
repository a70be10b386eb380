"""The logistic line against scikit-learn without a penalty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from slidetriage.errors import UsageError
from slidetriage.models.evaluation.logistic import fit_intercept, fit_line


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 5, 300)
    y = (rng.random(300) < expit(0.4 * x - 1)).astype(np.float64)
    line = fit_line(x, y)
    other = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(x[:, None], y)
    assert line.slope == pytest.approx(other.coef_[0, 0], abs=1e-4)
    assert line.intercept == pytest.approx(other.intercept_[0], abs=1e-4)


def test_targets_between_0_and_1_balance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=200), rng.random(200)
    line = fit_line(x, y)
    left = y - expit(line.slope * x + line.intercept)
    assert left.sum() == pytest.approx(0, abs=1e-8)
    assert (left * x).sum() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("shift", [0.0, 8.0, -12.0])
def test_intercept_at_slope_one(shift: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(shift, 2, 400)
    y = (rng.random(400) < 0.3).astype(np.float64)
    wanted = brentq(lambda a: expit(x + a).sum() - y.sum(), -50, 50, xtol=1e-12)
    assert fit_intercept(x, y) == pytest.approx(wanted, abs=1e-8)


def test_no_line() -> None:
    with pytest.raises(UsageError, match="Every score is the same"):
        fit_line(np.ones(4), np.array([0.0, 1, 0, 1]))
    with pytest.raises(UsageError, match="without overlap"):
        fit_line(np.arange(4.0), np.array([0.0, 0, 1, 1]))
