"""Site folds: sites whole, balance against trying everything, and small sites warned of."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import leave_site_out, patient_folds, site_folds, sites


def cohort(count: int, seed: int) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.int64]]:
    """Sites of very different size and share of positives; one row per patient."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 60, count)
    site = np.repeat([f"s{i}" for i in range(count)], sizes)
    label = np.concatenate([rng.random(n) < rng.uniform(0.1, 0.7) for n in sizes])
    return site, label.astype(np.int64), np.arange(len(site))


def cost(
    site: NDArray[np.str_], label: NDArray[np.int64], fold: NDArray[np.int64], folds: int
) -> float:
    total = 0.0
    for value in np.unique(label):
        expected = (label == value).sum() / folds
        held = np.bincount(fold[label == value], minlength=folds)
        total += ((held - expected) ** 2 / expected).sum()
    return total


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_search_finds_the_best_of_all(seed: int) -> None:
    site, label, patients = cohort(7, seed)
    number = np.unique(site, return_inverse=True)[1]
    every = (np.array((0, *choice))[number] for choice in itertools.product(range(3), repeat=6))
    best = min(cost(site, label, fold, 3) for fold in every if len(set(fold)) == 3)
    tried = site_folds(site, label, patients, folds=3, seed=seed)
    assert cost(site, label, tried.fold, 3) == pytest.approx(best)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sites, "_EXHAUSTIVE", 0)
        searched = site_folds(site, label, patients, folds=3, seed=seed)
    assert cost(site, label, searched.fold, 3) == pytest.approx(best, abs=0.5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_sites_are_whole(seed: int, folds: int) -> None:
    site, label, patients = cohort(25, seed)
    found = site_folds(site, label, patients, folds=folds, seed=seed)
    for name in np.unique(site):
        assert len(set(found.fold[site == name])) == 1
    assert set(found.fold) == set(range(folds))
    shares = [
        np.bincount(found.fold[label == v], minlength=folds) / (label == v).sum() for v in (0, 1)
    ]
    assert found.imbalance == pytest.approx(np.abs(np.array(shares) - 1 / folds).max())
    assert found.imbalance < 0.03


def test_small_sites_and_bare_folds_are_warned_of() -> None:
    site = np.repeat(["big", "other", "tiny"], [40, 40, 3])
    label = np.concatenate([np.arange(40) % 2, np.arange(40) % 2, [0, 1, 0]])
    found = site_folds(site, label, np.arange(83), folds=2, seed=0)
    assert found.warnings == ("site tiny has only 3 rows",)
    half = np.repeat([0, 1], 20)
    lonely = site_folds(half.astype(str), half, np.arange(40), folds=2, seed=0)
    assert lonely.imbalance == 0.5
    assert lonely.warnings[0] == "1 of 2 folds have no patient with the label 0"


def test_leave_site_out() -> None:
    site = np.array(["b"] * 12 + ["a"] * 3 + ["c"] * 10)
    label = np.array([0, 1] * 6 + [0, 1, 0] + [1] * 10)
    rounds = leave_site_out(site, label, np.arange(25))
    assert [r.site for r in rounds] == ["a", "b", "c"]
    assert [r.warning for r in rounds] == [
        "site a has only 3 rows",
        "",
        "site c holds one label only",
    ]
    for r in rounds:
        assert set(site[r.test]) == {r.site}
        assert sorted([*r.train, *r.test]) == list(range(25))


def test_tcga_sites(data: Callable[[str], Path]) -> None:
    """36 sites of the TCGA breast cohort in five folds, labels within two points of even."""
    with data("mil/tcga_brca/slides.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["oncotree_code"] in ("IDC", "ILC")]
    site = np.array([row["site"] for row in rows])
    label = np.array([row["oncotree_code"] for row in rows])
    patients = np.array([row["case_id"] for row in rows])
    found = site_folds(site, label, patients, folds=5, seed=0)
    assert found.imbalance < 0.02
    assert len(found.warnings) == sum(n < 10 for n in np.unique(site, return_counts=True)[1])
    for name in np.unique(site):
        assert len(set(found.fold[site == name])) == 1
    plain = patient_folds(patients, label, folds=5, seed=0)
    assert any(len(set(plain[site == name])) > 1 for name in np.unique(site))


def test_bad_tables() -> None:
    with pytest.raises(UsageError, match="Patient p is at site a and at b") as caught:
        site_folds(["a", "b", "b"], [0, 1, 0], ["p", "p", "q"], folds=2, seed=0)
    assert caught.value.code == "E_SPLIT"
    with pytest.raises(UsageError, match="site is missing in 1 rows, first in row 1"):
        site_folds(["a", None, "b"], [0, 1, 0], list("pqr"), folds=2, seed=0)
    with pytest.raises(UsageError, match="2 sites cannot fill 3 folds"):
        site_folds(["a", "b"], [0, 1], list("pq"), folds=3, seed=0)
    with pytest.raises(UsageError, match="only one site"):
        leave_site_out(["a", "a"], [0, 1], list("pq"))
