"""The bootstrap over patients: what is drawn, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import PatientBootstrap, auc, wilson_interval

PATIENTS = ["a", "b", "a", "c", "c", "c", "d"]


def test_patients_are_drawn_with_all_their_rows() -> None:
    drawn = list(PatientBootstrap(PATIENTS, repeats=50, seed=1).draws())
    names = np.array(PATIENTS)
    counts = {name: int((names == name).sum()) for name in "abcd"}
    for rows in drawn:
        times = {name: int((names[rows] == name).sum()) / counts[name] for name in "abcd"}
        assert sum(times.values()) == 4
        for name, often in times.items():
            assert often == int(often)
            for row in np.flatnonzero(names == name):
                assert (rows == row).sum() == often


def test_the_draws_are_the_bootstrap() -> None:
    """Each of n patients is drawn once on average, and missed with chance (1 - 1/n)^n."""
    n, repeats = 20, 4000
    drawn = PatientBootstrap([f"p{i}" for i in range(n)], repeats=repeats, seed=3).draws()
    times = np.stack([np.bincount(rows, minlength=n) for rows in drawn])
    assert times.mean(axis=0) == pytest.approx(np.ones(n), abs=0.08)
    assert (times == 0).mean() == pytest.approx((1 - 1 / n) ** n, abs=0.01)


def test_the_same_seed_gives_the_same_draws() -> None:
    bootstrap = PatientBootstrap(PATIENTS, repeats=5, seed=7)
    first = [rows.tolist() for rows in bootstrap.draws()]
    assert first == [rows.tolist() for rows in bootstrap.draws()]
    other = PatientBootstrap(PATIENTS, repeats=5, seed=8).draws()
    assert first != [rows.tolist() for rows in other]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_every_resample_keeps_both_classes(seed: int) -> None:
    label = np.array([0, 0, 1, 0, 0, 0, 1])  # a holds both, d one; b and c none
    bootstrap = PatientBootstrap(PATIENTS, strata=label, repeats=3, seed=seed)
    for rows in bootstrap.draws():
        assert set(label[rows]) == {0, 1}


def test_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=400)
    bootstrap = PatientBootstrap(np.arange(400), seed=1)
    found = bootstrap.interval(lambda rows: values[rows].mean())
    half = norm.ppf(0.975) * values.std() / 20
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.012)
    assert found.high == pytest.approx(values.mean() + half, abs=0.012)
    assert found.repeats == found.repeats_used == 2000


def test_rows_of_one_patient_are_no_new_evidence() -> None:
    values = np.random.default_rng(0).normal(size=60)
    once = PatientBootstrap(np.arange(60), seed=1).interval(lambda rows: values[rows].mean())
    tenfold, patients = np.repeat(values, 10), np.repeat(np.arange(60), 10)
    again = PatientBootstrap(patients, seed=1).interval(lambda rows: tenfold[rows].mean())
    naive = PatientBootstrap(np.arange(600), seed=1).interval(lambda rows: tenfold[rows].mean())
    assert again.low == pytest.approx(once.low)
    assert again.high == pytest.approx(once.high)
    assert naive.high - naive.low < 0.4 * (once.high - once.low)


def test_interval_of_auc_holds_the_truth() -> None:
    """100 tables of 60 clustered patients: between 88 and 99 % of the 95 % intervals do."""
    truth, held = norm.cdf(1.2 / np.sqrt(2)), 0
    rng = np.random.default_rng(5)
    for turn in range(100):
        label = np.repeat(np.arange(60) % 2, 3)
        shift = np.repeat(rng.normal(size=60), 3) * np.sqrt(0.7)
        score = label * 1.2 + shift + rng.normal(size=180) * np.sqrt(0.3)
        patients = np.repeat(np.arange(60), 3)
        bootstrap = PatientBootstrap(patients, strata=label, repeats=150, seed=turn)
        found = bootstrap.interval(lambda rows, y=label, s=score: auc(y[rows], s[rows]))
        held += found.low <= truth <= found.high
    assert 0.88 <= held / 100 <= 0.99


def test_resamples_without_a_value_are_counted() -> None:
    label = np.array([1, 0, 0, 0])
    score = np.array([0.9, 0.1, 0.2, 0.95])
    found = PatientBootstrap(list("abcd"), seed=0)
    interval = found.interval(lambda rows: auc(label[rows], score[rows]))
    missing = (3 / 4) ** 4 + (1 / 4) ** 4  # without the positive, or nothing else
    assert interval.repeats_used / 2000 == pytest.approx(1 - missing, abs=0.03)
    assert interval.low <= interval.value <= interval.high
    never = found.interval(lambda rows: 1.0 if len(np.unique(rows)) == 4 else float("nan"))
    assert never.value == 1
    assert 0 < never.repeats_used < 1000
    assert np.isnan([never.low, never.high]).all()


def test_an_error_on_the_whole_table_is_seen() -> None:
    with pytest.raises(UsageError, match="only 1"):
        PatientBootstrap(list("ab"), seed=0).interval(lambda rows: auc([1, 1], [0.1, 0.2]))


def test_band_is_the_interval_of_each_point() -> None:
    values = np.random.default_rng(2).normal(size=(30, 3))
    bootstrap = PatientBootstrap(np.arange(30), repeats=300, seed=4)
    band = bootstrap.band(lambda rows: values[rows].mean(axis=0))
    for column in range(3):
        single = bootstrap.interval(lambda rows, c=column: values[rows, c].mean())
        assert (band.value[column], band.low[column], band.high[column]) == pytest.approx(
            (single.value, single.low, single.high)
        )


def test_one_patient_cannot_be_resampled() -> None:
    with pytest.raises(UsageError, match="1 patients"):
        PatientBootstrap(["a", "a"], seed=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 50), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(successes: int, extra: int, level: float) -> None:
    trials = successes + extra
    low, high = wilson_interval([successes], [trials], level=level)
    wanted = binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (low[0], high[0]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_without_trials() -> None:
    low, high = wilson_interval([0], [0])
    assert np.isnan([low[0], high[0]]).all()
