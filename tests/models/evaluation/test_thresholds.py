"""Thresholds: by hand, against an exhaustive search, and the guarantee by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import positives_needed, threshold_at_sensitivity


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), max_size=40),
    st.floats(0.01, 1),
)
def test_it_is_the_largest(rows: list[tuple[int, int]], sensitivity: float) -> None:
    label = np.array([0, 1, *(r[0] for r in rows)])
    score = np.array([5, 5, *(r[1] for r in rows)])
    kept = [t for t in np.unique(score) if (score[label == 1] >= t).mean() >= sensitivity - 1e-12]
    assert threshold_at_sensitivity(label, score, sensitivity) == max(kept)


def test_rounding_costs_no_positive() -> None:
    score = np.arange(101)
    label = score > 0
    assert threshold_at_sensitivity(label, score, 0.55) == 46  # 55 of 100
    assert threshold_at_sensitivity(label, score, 0.551) == 45


def test_confident_threshold_has_its_lower_bound_there() -> None:
    score = np.arange(400)
    label = score >= 100
    threshold = threshold_at_sensitivity(label, score, 0.95, confidence=0.9)
    bounds = [
        binomtest(int((score[label] >= t).sum()), 300, alternative="greater")
        .proportion_ci(0.9, method="exact")
        .low
        for t in (threshold, threshold + 1)
    ]
    assert bounds[0] >= 0.95 > bounds[1]


def test_the_confidence_is_kept() -> None:
    """Of 400 thresholds from 200 positives about 95 % have a true sensitivity of 0.95 or more."""
    rng, kept = np.random.default_rng(0), {True: 0, False: 0}
    label = np.repeat([0, 1], 200)
    for _ in range(400):
        score = rng.normal(size=400)
        for sure in (True, False):
            threshold = threshold_at_sensitivity(
                label, score, 0.95, confidence=0.95 if sure else None
            )
            kept[sure] += norm.sf(threshold) >= 0.95
    assert 0.92 <= kept[True] / 400 <= 0.995
    assert kept[False] / 400 < 0.75


def test_too_few_positives_for_a_promise() -> None:
    assert positives_needed(0.99, 0.95) == 299
    label = np.repeat([0, 1], 298)
    score = np.arange(596.0)
    with pytest.raises(UsageError, match=r"298 positives .* 299 are needed"):
        threshold_at_sensitivity(label, score, 0.99, confidence=0.95)
    label, score = np.append(label, 1), np.append(score, 596)
    assert threshold_at_sensitivity(label, score, 0.99, confidence=0.95) == 298


@pytest.mark.parametrize("sensitivity", [0, -1, 1.01, float("nan")])
def test_impossible_sensitivity(sensitivity: float) -> None:
    with pytest.raises(UsageError, match="sensitivity is"):
        threshold_at_sensitivity([0, 1], [0.1, 0.2], sensitivity)
