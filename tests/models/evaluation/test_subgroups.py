"""Subgroup tables: counts, the rule of the warnings, and groups made to do worse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import PatientBootstrap, SubgroupFigure, Subgroups, auc
from slidetriage.models.evaluation import brier_score as brier

Table = tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]


@pytest.fixture(scope="module")
def table() -> Table:
    """Site A is read well, site B by chance, site C holds 12 patients."""
    rng = np.random.default_rng(0)
    site = np.repeat(["A", "B", "C"], [150, 80, 12])
    label = rng.integers(0, 2, len(site))
    score = label * np.where(site == "B", 0.0, 2.0) + rng.normal(size=len(site))
    return np.array([f"p{i}" for i in range(len(site))]), label, score, site


def by_group(figures: tuple[SubgroupFigure, ...]) -> dict[str, SubgroupFigure]:
    return {f"{figure.column} {figure.group}": figure for figure in figures}


def test_figures_and_warnings(table: Table) -> None:
    patients, label, score, site = table
    groups = Subgroups(patients, label, {"site": site}, repeats=300, seed=1)
    found = by_group(groups.table(lambda rows: auc(label[rows], score[rows])))
    assert list(found) == ["site A", "site B", "site C"]
    a, b, c = found.values()
    assert (a.warning, b.warning, c.warning) == ("", "does worse than the rest", "too small to say")
    inside = site == "B"
    assert b.rest == auc(label[~inside], score[~inside])
    assert b.figure == PatientBootstrap(
        patients[inside], strata=label[inside], repeats=300, seed=1
    ).interval(lambda rows: auc(label[inside][rows], score[inside][rows]))
    assert b.figure is not None
    assert b.figure.high < b.rest
    assert (b.rows, b.patients, b.positives + b.negatives) == (80, 80, 80)


def test_lower_may_be_better(table: Table) -> None:
    patients, label, score, site = table
    p = 1 / (1 + np.exp(-4 * (score - 1)))
    groups = Subgroups(patients, label, {"site": site}, repeats=300, seed=1)
    found = by_group(groups.table(lambda rows: brier(label[rows], p[rows]), higher_is_better=False))
    assert found["site B"].warning == "does worse than the rest"
    assert found["site A"].warning == ""


def test_counts_are_of_patients() -> None:
    patients = np.repeat([f"p{i}" for i in range(25)], 4)
    label = np.tile([0, 0, 0, 1], 25)
    label[:40] = 0  # ten patients without a positive row
    score = np.arange(100) % 7
    sex = np.repeat(["f", "m", ""], [40, 40, 20])
    groups = Subgroups(patients, label, {"sex": sex, "all": ["x"] * 100}, repeats=50, seed=0)
    found = by_group(groups.table(lambda rows: auc(label[rows], score[rows])))
    assert list(found) == ["sex f", "sex m", "sex unknown", "all x"]
    female, male, unknown, everyone = found.values()
    assert female.figure is None  # one class
    assert (female.rows, female.patients, female.positives, female.negatives) == (40, 10, 0, 10)
    assert (male.positives, male.negatives) == (10, 10)
    assert {female.warning, male.warning, unknown.warning} == {"too small to say"}
    assert (everyone.patients, everyone.positives, everyone.negatives) == (25, 15, 25)
    assert np.isnan(everyone.rest)
    assert everyone.warning == ""


@pytest.mark.parametrize(("patients", "positives", "small"), [(20, 10, False), (19, 9, True)])
def test_the_rule_at_its_edge(patients: int, positives: int, small: bool) -> None:
    label = np.arange(patients) < positives
    groups = Subgroups(np.arange(patients), label, {"x": ["g"] * patients}, repeats=9, seed=0)
    (figure,) = groups.table(lambda rows: auc(label[rows], rows))
    assert (figure.warning == "too small to say") is small


def test_one_patient_has_a_value_without_an_interval() -> None:
    label, score = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    groups = Subgroups(list("aabc"), label, {"x": ["g", "g", "h", "h"]}, repeats=9, seed=0)
    alone, _ = groups.table(lambda rows: auc(label[rows], score[rows]))
    assert alone.figure is not None
    assert alone.figure.value == 1
    assert np.isnan([alone.figure.low, alone.figure.high]).all()
    assert alone.figure.repeats_used == 0


def test_chance_alone_warns_seldom() -> None:
    """Groups that are alike: about one in forty warnings, as the rule says."""
    rng, warned = np.random.default_rng(3), 0
    for turn in range(20):
        label = rng.integers(0, 2, 300)
        score = label + rng.normal(size=300)
        site = rng.integers(0, 5, 300).astype(str)
        groups = Subgroups(np.arange(300), label, {"site": site}, repeats=150, seed=turn)
        figures = groups.table(lambda rows, y=label, s=score: auc(y[rows], s[rows]))
        warned += sum(figure.warning == "does worse than the rest" for figure in figures)
    assert warned <= 10  # of 100


def test_bad_columns() -> None:
    with pytest.raises(UsageError, match="sex has 2 rows where the table has 3"):
        Subgroups(list("abc"), [0, 1, 0], {"sex": ["f", "m"]}, seed=0)
