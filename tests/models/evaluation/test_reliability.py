"""Reliability by hand, against scikit-learn, and on scores that are right by making."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import (
    brier_parts,
    brier_score,
    calibration_error,
    calibration_line,
    reliability_curve,
    wilson_interval,
)
from slidetriage.models.evaluation.reliability import Binning

LABEL = [0, 0, 1, 0, 1, 1]
SCORE = [0.05, 0.15, 0.15, 0.6, 0.7, 0.95]


def test_by_hand() -> None:
    curve = reliability_curve(LABEL, SCORE, bins=2, binning="width")
    assert curve.count.tolist() == [3, 3]
    assert curve.mean_score == pytest.approx([0.35 / 3, 0.75])
    assert curve.positives == pytest.approx([1 / 3, 2 / 3])
    low, high = wilson_interval([1, 2], [3, 3])
    assert curve.low.tolist() == low.tolist()
    assert curve.high.tolist() == high.tolist()
    error = calibration_error(LABEL, SCORE, bins=2, binning="width")
    assert error.value == pytest.approx((0.65 / 3 + 0.25 / 3) / 2)
    assert (error.binning, error.bins) == ("width", 2)
    squares = [0.0025, 0.0225, 0.7225, 0.36, 0.09, 0.0025]
    parts = brier_parts(LABEL, SCORE, bins=2, binning="width")
    assert parts.brier == brier_score(LABEL, SCORE) == pytest.approx(sum(squares) / 6)
    assert parts.reliability == pytest.approx(((0.65 / 3) ** 2 + (0.25 / 3) ** 2) / 2)
    assert parts.resolution == pytest.approx(1 / 36)
    assert parts.uncertainty == pytest.approx(1 / 4)


def test_a_bin_counts_by_its_rows() -> None:
    error = calibration_error([0, 0, 0, 1], [0.1, 0.1, 0.1, 0.6], bins=2, binning="width")
    assert error.value == pytest.approx((3 * 0.1 + 0.4) / 4)


def test_a_score_on_an_edge_is_in_the_upper_bin() -> None:
    curve = reliability_curve([0, 1, 1], [0.4, 0.5, 1.0], bins=2, binning="width")
    assert curve.count.tolist() == [1, 2]


def test_empty_bins_are_left_out() -> None:
    curve = reliability_curve([0, 1], [0.05, 0.95], bins=10, binning="width")
    assert (len(curve.count), len(curve.edges)) == (2, 11)
    assert curve.positives.tolist() == [0, 1]


@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_against_scikit_learn(binning: Binning, strategy: str) -> None:
    rng = np.random.default_rng(0)
    score = rng.random(1003)
    label = rng.random(1003) < score**2
    curve = reliability_curve(label, score, bins=7, binning=binning)
    share, mean = calibration_curve(label, score, n_bins=7, strategy=strategy)
    assert curve.positives == pytest.approx(share)
    assert curve.mean_score == pytest.approx(mean)
    assert brier_score(label, score) == pytest.approx(brier_score_loss(label, score))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=60),
    st.integers(1, 12),
    st.sampled_from(["mass", "width"]),
)
def test_every_row_is_in_one_bin(rows: list[tuple[int, int]], bins: int, binning: Binning) -> None:
    label, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 6
    curve = reliability_curve(label, score, bins=bins, binning=binning)
    assert curve.count.sum() == len(rows)
    assert len(curve.count) <= bins
    assert (curve.count * curve.positives).sum() == pytest.approx(label.sum())
    parts = brier_parts(label, score, bins=bins, binning=binning)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert parts.brier == pytest.approx(total)


def test_scores_alike_within_bins_leave_nothing_within() -> None:
    parts = brier_parts([0, 1, 1, 0, 1], [0.2, 0.2, 0.8, 0.8, 0.8], bins=5, binning="width")
    assert parts.within_bins == pytest.approx(0, abs=1e-15)


def test_right_scores_have_a_small_error() -> None:
    rng = np.random.default_rng(0)
    score = expit(rng.normal(size=50_000))
    label = rng.random(50_000) < score
    for binning in ("mass", "width"):
        assert calibration_error(label, score, binning=binning).value < 0.01
        assert calibration_error(label, score**3, binning=binning).value > 0.1
    line = calibration_line(label, score)
    assert (line.slope, line.intercept, line.at_large) == pytest.approx((1, 0, 0), abs=0.05)


def test_line_of_extreme_and_low_scores() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=50_000)
    label = rng.random(50_000) < expit(true)
    assert calibration_line(label, expit(2 * true)).slope == pytest.approx(0.5, abs=0.02)
    low = calibration_line(label, expit(true - 1))
    assert (low.slope, low.at_large) == pytest.approx((1, 1), abs=0.05)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="bins is 0"):
        reliability_curve(LABEL, SCORE, bins=0)
    with pytest.raises(UsageError, match="no rows"):
        brier_score([], [])
