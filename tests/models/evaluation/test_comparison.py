"""Paired comparisons against brute force, scipy, and tables whose truth is known."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control, norm
from sklearn import metrics

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import PatientBootstrap, harrell_concordance
from slidetriage.models.evaluation.comparison import (
    binary_statistics,
    delong_test,
    holm,
    mcnemar_test,
    number_statistics,
    paired_difference,
    survival_statistics,
)

Table = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Labels, two or more of each class, and two scores with many ties."""
    label = [0, 1, 0, 1, *draw(st.lists(st.integers(0, 1), max_size=20))]
    scores = st.lists(st.integers(0, 6), min_size=len(label), max_size=len(label))
    return np.array(label), np.array(draw(scores)) / 6, np.array(draw(scores)) / 6


def delong_by_pairs(label: NDArray[np.int64], *scores: NDArray[np.float64]) -> tuple[float, float]:
    """Difference and variance as DeLong et al. write them: placements over all pairs."""

    def kernel(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    v10, v01, areas = [], [], []
    for score in scores:
        x, y = score[label == 1], score[label == 0]
        table = np.array([[kernel(a, b) for b in y] for a in x])
        v10.append(table.mean(axis=1))
        v01.append(table.mean(axis=0))
        areas.append(table.mean())
    s = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    contrast = np.array([-1, 1])
    return areas[1] - areas[0], float(contrast @ s @ contrast)


@settings(max_examples=80, deadline=None)
@given(tables())
def test_delong_is_that_of_all_pairs(table: Table) -> None:
    label, first, second = table
    found = delong_test(label, first, second, np.arange(len(label)))
    difference, variance = delong_by_pairs(label, first, second)
    assert found.first == pytest.approx(metrics.roc_auc_score(label, first))
    assert found.second == pytest.approx(metrics.roc_auc_score(label, second))
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.standard_error**2 == pytest.approx(variance, abs=1e-12)
    if found.standard_error:
        z = difference / np.sqrt(variance)
        assert found.z == pytest.approx(z, abs=1e-6)
        assert found.p == pytest.approx(2 * norm.cdf(-abs(z)), abs=1e-6)
        half = 1.959964 * np.sqrt(variance)
        assert (found.low, found.high) == pytest.approx(
            (difference - half, difference + half), abs=1e-6
        )
    else:
        assert found.p == 1 if abs(difference) < 1e-12 else np.isnan(found.p)


def test_delong_where_nothing_varies() -> None:
    label, score = [0, 0, 1, 1], np.array([0.1, 0.2, 0.8, 0.9])
    alike = delong_test(label, score, score**2, list("abcd"))
    assert (alike.difference, alike.standard_error, alike.p) == (0, 0, 1)
    against = delong_test(label, score, -score, list("abcd"))
    assert (against.difference, against.standard_error) == (-1, 0)
    assert np.isnan([against.z, against.p]).all()


def test_delong_errs_as_often_as_it_says() -> None:
    """500 tables in which two correlated scores are as good as each other."""
    rng, rejected = np.random.default_rng(1), 0
    for _ in range(500):
        label = rng.integers(0, 2, 120)
        common = label + rng.normal(size=120)
        first, second = (common + rng.normal(size=120) for _ in range(2))
        rejected += delong_test(label, first, second, np.arange(120)).p < 0.05
    assert 0.03 <= rejected / 500 <= 0.075


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_binomial_test(calls: list[tuple[bool, bool]]) -> None:
    first, second = np.array(calls).T
    found = mcnemar_test(first, second, np.arange(len(calls)))
    only_first = sum(a and not b for a, b in calls)
    only_second = sum(b and not a for a, b in calls)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    apart = only_first + only_second
    wanted = binomtest(only_first, apart).pvalue if apart else 1.0
    assert found.p == pytest.approx(wanted)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p: list[float]) -> None:
    """Against the definition: at each level the hypotheses that fall one after the other."""
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2, 0.7):
        fallen = set[int]()
        for step, at in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[at] * (len(p) - step) > level:
                break
            fallen.add(at)
        assert set(np.flatnonzero(adjusted <= level).tolist()) == fallen
    # Holm's p is never below that of Benjamini and Hochberg, which controls less.
    assert (adjusted >= false_discovery_control(p) - 1e-12).all()


def test_holm_leaves_out_what_is_no_test() -> None:
    found = holm([0.03, np.nan, 0.01])
    assert found[[0, 2]].tolist() == pytest.approx([0.03, 0.02])
    assert np.isnan(found[1])
    assert holm([]).tolist() == []


def test_binary_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 60), rng.random(60)
    called = score >= 0.4
    found = binary_statistics(label, score, {"0.4": called})
    rows = rng.integers(0, 60, 45)
    y, p = label[rows], score[rows]
    assert {name: statistic(rows) for name, statistic in found.items()} == pytest.approx({
        "AUC": metrics.roc_auc_score(y, p),
        "average precision": metrics.average_precision_score(y, p),
        "Brier score": metrics.brier_score_loss(y, p),
        "sensitivity at 0.4": metrics.recall_score(y, called[rows]),
        "specificity at 0.4": metrics.recall_score(1 - y, ~called[rows]),
    })  # fmt: skip
    negatives = np.flatnonzero(label == 0)
    assert np.isnan(found["sensitivity at 0.4"](negatives))


def test_number_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 40))
    found = number_statistics(true, predicted)
    rows = rng.integers(0, 40, 30)
    y, p = true[rows], predicted[rows]
    assert found["mean absolute error"](rows) == pytest.approx(metrics.mean_absolute_error(y, p))
    assert found["R2"](rows) == pytest.approx(metrics.r2_score(y, p))


def test_the_concordance_compares_within_a_fold() -> None:
    rng = np.random.default_rng(0)
    times, risk = rng.exponential(size=40), rng.normal(size=40)
    events = rng.random(40) < 0.6
    fold = np.arange(40) % 2
    rows = np.arange(40)
    plain = survival_statistics(times, events, risk)["concordance"]
    assert plain(rows) == harrell_concordance(times, events, risk).value
    table = np.where(fold == [[0], [1]], risk + 9 * fold, np.nan)  # folds of different scales
    found = survival_statistics(times, events, table)["concordance"]
    wanted = [
        harrell_concordance(times[own], events[own], risk[own]).value
        for own in (fold == 0, fold == 1)
    ]
    assert found(rows) == pytest.approx(np.mean(wanted))
    assert found(np.flatnonzero(fold == 0)) == pytest.approx(wanted[0])
    assert np.isnan(found(np.flatnonzero(~events)))
    assert np.isnan(found(np.array([0, 0, 0])))


def test_the_same_resamples_are_drawn_for_both() -> None:
    """Two figures that differ by a constant differ so in every resample."""
    values = np.random.default_rng(0).normal(size=50)
    bootstrap = PatientBootstrap(np.arange(50), repeats=200, seed=1)
    found = paired_difference(
        bootstrap, lambda rows: values[rows].mean(), lambda rows: values[rows].mean() + 0.25
    )
    assert (found.first, found.second) == (values.mean(), values.mean() + 0.25)
    interval = found.difference
    assert [interval.value, interval.low, interval.high] == pytest.approx([0.25] * 3)
    assert found.p == pytest.approx(2 / 201)  # no resample is on the other side
    alike = paired_difference(bootstrap, lambda _: 0.5, lambda _: 0.5)
    assert (alike.difference.low, alike.difference.high, alike.p) == (0, 0, 1)


def test_the_difference_is_that_of_the_bootstrap_and_p_goes_with_its_interval() -> None:
    rng = np.random.default_rng(3)
    label = np.repeat(rng.integers(0, 2, 60), 2)
    patients = np.repeat(np.arange(60), 2)
    for shift in (0.0, 0.3, 0.6, 1.0):
        scores = [1 / (1 + np.exp(-(label * (1 + s) + rng.normal(size=120)))) for s in (0, shift)]
        first, second = (binary_statistics(label, score)["AUC"] for score in scores)
        bootstrap = PatientBootstrap(patients, strata=label, repeats=400, seed=2)
        found = paired_difference(bootstrap, first, second)
        drawn = [second(rows) - first(rows) for rows in bootstrap.draws()]
        wanted = np.quantile(drawn, [0.025, 0.975])
        assert [found.difference.low, found.difference.high] == pytest.approx(wanted)
        apart = found.difference.low > 0 or found.difference.high < 0
        assert apart is (found.p < 0.05) or 0.04 < found.p < 0.06


def test_the_interval_holds_the_true_difference() -> None:
    """100 tables of 200 patients with 2 slides each, whose two scores have known areas.

    With 200 patients 94 % of the intervals do; 88 to 99 of 100 is within three standard errors.
    With 50 they are somewhat too narrow: 92.5 % of 1,000 tables.
    """
    rng, held = np.random.default_rng(5), 0
    gains = (1.0, 1.5)
    truth = norm.cdf(gains[1] / np.sqrt(2)) - norm.cdf(gains[0] / np.sqrt(2))
    label, patients = np.repeat(np.arange(200) % 2, 2), np.repeat(np.arange(200), 2)
    for turn in range(100):
        patient = np.repeat(rng.normal(size=200), 2) * np.sqrt(0.5)
        common = patient + rng.normal(size=400) * np.sqrt(0.2)
        scores = [g * label + common + rng.normal(size=400) * np.sqrt(0.3) for g in gains]
        first, second = (binary_statistics(label, s)["AUC"] for s in scores)
        bootstrap = PatientBootstrap(patients, strata=label, repeats=150, seed=turn)
        found = paired_difference(bootstrap, first, second).difference
        held += found.low <= truth <= found.high
    assert 0.88 <= held / 100 <= 0.99


def test_rows_of_one_patient_are_refused_by_the_tests() -> None:
    label, score = [0, 1, 0, 1], [0.1, 0.9, 0.3, 0.4]
    with pytest.raises(UsageError, match="1 rows are of patients who have another") as error:
        delong_test(label, score, score, list("aabc"))
    assert error.value.code == "E_TABLE"
    with pytest.raises(UsageError, match="independent"):
        mcnemar_test(label, label, list("aabc"))


@pytest.mark.parametrize(("label", "words"), [([1, 1, 0, 1], "1 negatives"), ([1] * 4, "only 1")])
def test_too_few_of_a_class_are_refused(label: list[int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        delong_test(label, [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], list("abcd"))


def test_bad_columns_are_named() -> None:
    with pytest.raises(UsageError, match="the second score has 2 rows"):
        delong_test([0, 1, 0, 1], [0.1] * 4, [0.1] * 2, list("abcd"))
    with pytest.raises(UsageError, match="score is NaN"):
        binary_statistics([0, 1], [0.5, np.nan])
    with pytest.raises(UsageError, match="risk has 3 rows where the table has 2"):
        survival_statistics([1, 2], [1, 0], [1.0, 2.0, 3.0])
    bootstrap = PatientBootstrap(list("ab"), repeats=5, seed=0)
    only = binary_statistics([1, 1], [0.1, 0.2])["AUC"]
    with pytest.raises(UsageError, match="only 1"):
        paired_difference(bootstrap, only, only)


def test_every_pair_of_small_tables_agrees_with_brute_force() -> None:
    """All scores of four rows over three values: ties of each kind."""
    label = np.array([0, 1, 1, 0])
    for first in product((0.0, 0.5, 1.0), repeat=4):
        second = np.array(first)[::-1]
        found = delong_test(label, first, second, list("abcd"))
        difference, variance = delong_by_pairs(label, np.array(first), second)
        assert found.difference == pytest.approx(difference, abs=1e-12)
        assert found.standard_error**2 == pytest.approx(variance, abs=1e-12)
