"""Regression figures against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import regression_figures


def test_against_other_libraries() -> None:
    rng = np.random.default_rng(0)
    true = np.round(rng.normal(size=80), 1)
    found = np.round(true + rng.normal(size=80), 1)
    figures = regression_figures(true, found)
    assert figures.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(true, found))
    assert figures.root_mean_squared_error == pytest.approx(
        metrics.root_mean_squared_error(true, found)
    )
    assert figures.r2 == pytest.approx(metrics.r2_score(true, found))
    assert figures.pearson == pytest.approx(stats.pearsonr(true, found).statistic)
    assert figures.spearman == pytest.approx(stats.spearmanr(true, found).statistic)


def test_constant_numbers_have_no_correlation() -> None:
    assert np.isnan(regression_figures([1, 2, 3], [2, 2, 2]).pearson)
    assert np.isnan(regression_figures([2, 2, 2], [1, 2, 3]).r2)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="label is NaN"):
        regression_figures([1, np.nan], [1, 2])
    with pytest.raises(UsageError, match="1 rows where the table has 2"):
        regression_figures([1, 2], [1])
    with pytest.raises(UsageError, match="The table has 1 rows"):
        regression_figures([1], [1])
