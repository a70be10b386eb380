"""Ranks and curves against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from slidetriage.models.evaluation import (
    auc,
    average_precision,
    confusion_at,
    ppv_on_grid,
    precision_recall_curve,
    roc_curve,
    sensitivity_on_grid,
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels of both classes and scores with many ties."""
    label = [0, 1, *draw(st.lists(st.integers(0, 1), max_size=40))]
    score = draw(st.lists(st.integers(0, 10), min_size=len(label), max_size=len(label)))
    return np.array(label), np.array(score) / 10


@settings(max_examples=60, deadline=None)
@given(tables())
def test_against_scikit_learn(table: tuple[NDArray[np.int64], NDArray[np.float64]]) -> None:
    label, score = table
    assert auc(label, score) == pytest.approx(metrics.roc_auc_score(label, score), abs=1e-12)
    assert average_precision(label, score) == pytest.approx(
        metrics.average_precision_score(label, score), abs=1e-12
    )
    called = score >= 0.5
    counts = confusion_at(label, score, 0.5)
    assert counts.balanced_accuracy == pytest.approx(
        (metrics.recall_score(label, called) + metrics.recall_score(1 - label, ~called)) / 2
    )
    if called.any():
        assert counts.ppv == pytest.approx(metrics.precision_score(label, called))
        assert counts.f1 == pytest.approx(metrics.f1_score(label, called))
    assert counts.accuracy == pytest.approx(metrics.accuracy_score(label, called))


@settings(max_examples=60, deadline=None)
@given(tables())
def test_curves_are_what_their_thresholds_give(
    table: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    label, score = table
    roc = roc_curve(label, score)
    for threshold, sensitivity, specificity in zip(
        roc.threshold, roc.sensitivity, roc.specificity, strict=True
    ):
        counts = confusion_at(label, score, threshold)
        assert counts.sensitivity == pytest.approx(sensitivity)
        assert counts.specificity == pytest.approx(specificity)
    area = np.trapezoid(roc.sensitivity, 1 - roc.specificity)
    assert area == pytest.approx(auc(label, score), abs=1e-12)
    curve = precision_recall_curve(label, score)
    assert sorted(curve.threshold, reverse=True) == curve.threshold.tolist()
    for threshold, ppv, sensitivity in zip(
        curve.threshold, curve.ppv, curve.sensitivity, strict=True
    ):
        counts = confusion_at(label, score, threshold)
        assert (counts.ppv, counts.sensitivity) == pytest.approx((ppv, sensitivity))


def test_by_hand() -> None:
    label, score = [1, 1, 1, 0, 0], [0.9, 0.5, 0.2, 0.5, 0.1]
    # Of six pairs four are right (0.9 twice, 0.5 and 0.2 over 0.1), one is tied, one is wrong.
    assert auc(label, score) == pytest.approx(4.5 / 6)
    counts = confusion_at(label, score, 0.5)
    assert (counts.true_positive, counts.false_positive) == (2, 1)
    assert (counts.true_negative, counts.false_negative) == (1, 1)
    assert counts.npv == 0.5
    assert counts.f1 == pytest.approx(2 / 3)
    # The curve goes (0, 0), (0, 1/3), (1/2, 2/3), (1/2, 1), (1, 1) in 1 - specificity.
    grid = sensitivity_on_grid(label, score, [1.0, 0.75, 0.5, 0.0])
    assert grid == pytest.approx([1 / 3, 1 / 2, 1, 1])


def test_ppv_on_a_grid_by_hand() -> None:
    label, score = [1, 0, 1, 1, 0], [0.9, 0.8, 0.7, 0.7, 0.1]
    # Sensitivity 1/3 at 0.9 (1 of 1), still 1/3 at 0.8, then 1 at 0.7 (3 of 4).
    grid = ppv_on_grid(label, score, [0.0, 1 / 3, 0.5, 1.0])
    assert grid == pytest.approx([1, 1, 3 / 4, 3 / 4])


def test_figures_of_nothing_are_nan() -> None:
    counts = confusion_at([0, 0], [0.1, 0.2], 0.5)
    assert np.isnan([counts.sensitivity, counts.ppv, counts.f1, counts.balanced_accuracy]).all()
    assert (counts.specificity, counts.npv) == (1, 1)
