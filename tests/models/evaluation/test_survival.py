"""Survival curves and the log-rank test on the 6-MP trial, by hand, and against SciPy.

Times to relapse in weeks under 6-mercaptopurine and placebo (Gehan 1965; Freireich et al. 1963).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leukaemia import EVENT, GROUP, PLACEBO, SIX_MP, SIX_MP_EVENT, TIME
from slidetriage.errors import UsageError
from slidetriage.models.evaluation import kaplan_meier, log_rank, risk_boundaries, risk_groups


def test_curve_of_the_trial() -> None:
    curve = kaplan_meier(SIX_MP, SIX_MP_EVENT)
    assert curve.time.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert curve.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert curve.events.tolist() == [3, 1, 1, 1, 1, 1, 1]
    published = [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert curve.survival == pytest.approx(published, abs=6e-4)
    errors = [0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346]
    assert curve.standard_error == pytest.approx(errors, abs=6e-5)
    assert curve.median == 23
    assert kaplan_meier(PLACEBO, np.ones(21)).median == 8
    assert curve.censored.tolist() == [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    assert curve.at([0, 6, 6.5, 40]) == pytest.approx([1, 6 / 7, 6 / 7, curve.survival[-1]])
    assert curve.before([6, 7]) == pytest.approx([1, 6 / 7])


@pytest.mark.parametrize(("interval", "method"), [("log-log", "log-log"), ("plain", "linear")])
def test_intervals_against_scipy(interval: Literal["log-log", "plain"], method: str) -> None:
    curve = kaplan_meier(SIX_MP, SIX_MP_EVENT, interval=interval)
    data = stats.CensoredData.right_censored(SIX_MP, ~np.array(SIX_MP_EVENT, bool))
    survival = stats.ecdf(data).sf
    band = survival.confidence_interval(method=method)
    for ours, theirs in ((curve.low, band.low), (curve.high, band.high)):
        assert ours == pytest.approx(np.clip(theirs.evaluate(curve.time), 0, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30))
def test_curve_against_scipy(rows: list[tuple[int, bool]]) -> None:
    time, event = (np.array(column) for column in zip(*rows, strict=True))
    curve = kaplan_meier(time, event)
    data = stats.CensoredData.right_censored(time, ~event)
    grid = np.arange(10)
    assert curve.at(grid) == pytest.approx(stats.ecdf(data).sf.evaluate(grid), abs=1e-12)
    assert (np.isnan(curve.low) == np.isnan(curve.high)).all()


def test_nobody_left_has_no_interval() -> None:
    curve = kaplan_meier([1, 2], [1, 1])
    assert curve.survival.tolist() == [0.5, 0]
    assert np.isnan([curve.low[1], curve.high[1], curve.standard_error[1]]).all()
    assert curve.standard_error[0] == pytest.approx(np.sqrt(0.125))


def test_no_events_is_a_flat_curve() -> None:
    curve = kaplan_meier([1, 2], [0, 0])
    assert len(curve.time) == 0
    assert curve.at([5.0]) == 1
    assert curve.median == np.inf


def test_log_rank_of_the_trial() -> None:
    found = log_rank(TIME, EVENT, GROUP)
    assert found.chi2 == pytest.approx(16.79, abs=5e-3)
    assert (found.degrees, found.groups) == (1, ("6-MP", "placebo"))
    assert found.observed == (9, 21)
    assert found.expected == pytest.approx((19.25, 10.75), abs=5e-3)
    assert found.p == pytest.approx(4.17e-5, rel=2e-3)


def test_log_rank_of_two_against_scipy() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 30, 80), rng.random(80) < 0.7
    group = np.repeat(["a", "b"], 40)
    samples = [
        stats.CensoredData.right_censored(time[group == g], ~event[group == g]) for g in "ab"
    ]
    wanted = stats.logrank(*samples)
    found = log_rank(time, event, group)
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.chi2 == pytest.approx(wanted.statistic**2)


def test_log_rank_of_three_is_right_by_chance() -> None:
    """Where all die alike the p-values are uniform; expected and observed events agree."""
    rng, p = np.random.default_rng(0), []
    group = np.repeat(["a", "b", "c"], 40)
    for _ in range(300):
        death, end = rng.exponential(10, 120), rng.exponential(15, 120)
        found = log_rank(np.minimum(death, end), death <= end, group)
        assert found.degrees == 2
        assert sum(found.observed) == pytest.approx(sum(found.expected))
        p.append(found.p)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_groups_of_risk() -> None:
    boundaries = risk_boundaries([1, 2, 3, 4, 5], groups=2)
    assert boundaries == (3,)
    assert risk_groups([0, 3, 3.1], boundaries).tolist() == [0, 0, 1]
    tertiles = risk_boundaries(np.arange(300), groups=3)
    assert np.bincount(risk_groups(np.arange(300), tertiles)).tolist() == [100, 100, 100]
    with pytest.raises(UsageError, match="2 distinct risks cannot be parted into 3"):
        risk_boundaries([1, 1, 2], groups=3)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="1 events have no time, the first in row 1") as caught:
        kaplan_meier([1, np.nan, 3], [1, 1, 0])
    assert caught.value.code == "E_SURVIVAL"
    with pytest.raises(UsageError, match="time is NaN or infinite in 1 of 3 rows"):
        kaplan_meier([1, np.nan, 3], [1, 0, 0])
    with pytest.raises(UsageError, match="event is NaN"):
        kaplan_meier([1, 2], [1, np.nan])
    with pytest.raises(UsageError, match="other than 0 and 1"):
        kaplan_meier([1, 2], [1, 2])
    with pytest.raises(UsageError, match="negative"):
        kaplan_meier([1, -2], [1, 1])
    with pytest.raises(UsageError, match="3 rows where the table has 2"):
        kaplan_meier([1, 2, 3], [1, 1])
    with pytest.raises(UsageError, match="1 groups with 2 events"):
        log_rank([1, 2], [1, 1], ["a", "a"])
    with pytest.raises(UsageError, match="2 groups with 0 events"):
        log_rank([1, 2], [0, 0], ["a", "b"])
