"""Net benefit and rule-out by hand and by counting."""

from __future__ import annotations

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import confusion_at, decision_curve, rule_out


def test_decision_curve_by_counting() -> None:
    rng = np.random.default_rng(0)
    label = rng.random(300) < 0.25
    score = np.round(np.clip(rng.normal(0.3 + 0.3 * label, 0.2), 0, 1), 2)
    curve = decision_curve(label, score)
    assert len(curve.threshold) == 99
    for threshold, benefit in zip(curve.threshold, curve.model, strict=True):
        counts = confusion_at(label, score, threshold)
        price = threshold / (1 - threshold)
        wanted = (counts.true_positive - counts.false_positive * price) / 300
        assert benefit == pytest.approx(wanted, abs=1e-12)


def test_decision_curve_by_hand() -> None:
    curve = decision_curve([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], thresholds=[0.0, 0.2, 0.5])
    assert curve.model == pytest.approx([0.5, 0.5 - 0.25 * 0.25, 0.25 - 0.25])
    assert curve.treat_all == pytest.approx([0.5, 0.5 - 0.5 * 0.25, 0.0])
    assert curve.treat_none.tolist() == [0, 0, 0]
    with pytest.raises(UsageError, match="threshold lies outside"):
        decision_curve([1, 0], [0.5, 0.5], thresholds=[1.0])


def test_treating_all_is_worth_nothing_at_the_prevalence() -> None:
    label = np.arange(10) < 3
    curve = decision_curve(label, np.full(10, 0.5), thresholds=[0.3])
    assert curve.treat_all[0] == pytest.approx(0, abs=1e-15)


def test_rule_out_by_hand() -> None:
    label, score = [0, 0, 0, 1, 1], [0.1, 0.2, 0.7, 0.15, 0.9]
    found = rule_out(label, score, 0.2, area_mm2=[10, 20, 30, 5, 35])
    assert (found.rows, found.slides_share, found.area_share) == (5, 0.4, 0.15)
    assert (found.sensitivity, found.missed, found.npv) == (0.5, 1, 0.5)
    assert np.isnan(rule_out(label, score, 0.2).area_share)
    nothing = rule_out(label, score, 0.05)
    assert nothing.slides_share == 0
    assert np.isnan(nothing.npv)


@pytest.mark.parametrize("area", [[0, 0], [1, -1], [1], [np.nan, 1]])
def test_bad_areas(area: list[float]) -> None:
    with pytest.raises(UsageError, match="area_mm2"):
        rule_out([0, 1], [0.1, 0.9], 0.5, area_mm2=area)


def test_no_rows() -> None:
    with pytest.raises(UsageError, match="no rows"):
        rule_out([], [], 0.5)
