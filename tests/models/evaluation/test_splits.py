"""Splits: whole patients, even labels, and every bad table named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import check_splits, nested_splits, patient_folds


def cohort(
    patients: int, seed: int, *, share: float = 0.3
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patients with one to four rows each, in random order, and their labels."""
    rng = np.random.default_rng(seed)
    number = rng.permutation(np.repeat(np.arange(patients), rng.integers(1, 5, patients)))
    return number, (rng.random(patients) < share).astype(np.int64)[number]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_patients_are_whole_and_labels_even(seed: int, folds: int) -> None:
    patients, label = cohort(80, seed)
    fold = patient_folds(patients, label, folds=folds, seed=seed)
    for patient in range(80):
        assert len(set(fold[patients == patient])) == 1
    for value in (0, 1):
        rows = np.bincount(fold[label == value], minlength=folds)
        assert rows.max() - rows.min() <= 4  # no more than one patient's rows


def test_single_rows_are_dealt_exactly() -> None:
    label = np.arange(50) < 10
    fold = patient_folds(np.arange(50), label, folds=5, seed=0)
    assert np.bincount(fold[label]).tolist() == [2] * 5
    assert np.bincount(fold).tolist() == [10] * 5


def test_even_labels_come_before_even_rows() -> None:
    patients = np.array([0, 0, 0, 0, *range(1, 10)])  # the first has four rows
    label = patients >= 5
    fold = patient_folds(patients, label, folds=5, seed=0)
    assert np.bincount(fold[label]).tolist() == [1] * 5


def test_seeds() -> None:
    patients, label = cohort(60, 0)
    first = patient_folds(patients, label, seed=1).tolist()
    assert first == patient_folds(patients, label, seed=1).tolist()
    assert first != patient_folds(patients, label, seed=2).tolist()


def test_patients_of_both_labels_are_spread() -> None:
    patients = np.repeat(np.arange(30), 2)
    label = np.where(np.arange(60) < 20, np.arange(60) % 2, np.repeat(np.arange(30) % 2, 2))
    fold = patient_folds(patients, label, folds=5, seed=0)
    assert np.bincount(fold[:20:2], minlength=5).tolist() == [2] * 5


def test_without_labels() -> None:
    patients, _ = cohort(40, 0)
    rows = np.bincount(patient_folds(patients, None, folds=4, seed=0))
    assert rows.max() - rows.min() <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000))
def test_nested_splits_part_patients(seed: int) -> None:
    patients, label = cohort(60, seed, share=0.5)
    fold = patient_folds(patients, label, folds=3, seed=seed)
    splits = nested_splits(fold, patients, label, validation_share=0.25, seed=seed)
    assert len(splits) == 3
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(len(patients)))
    for split in splits:
        parts = [split.train, split.validation, split.test]
        assert sorted(np.concatenate(parts)) == list(range(len(patients)))
        check_splits({str(i): patients[part] for i, part in enumerate(parts)})
        assert set(label[split.validation]) == {0, 1}
        share = len(split.validation) / (len(split.train) + len(split.validation))
        assert share == pytest.approx(0.25, abs=0.06)


def test_bad_tables() -> None:
    with pytest.raises(UsageError, match="Patient b is in train and in test") as caught:
        check_splits({"train": ["a", "b"], "validation": ["c"], "test": ["d", "b"]})
    assert caught.value.code == "E_SPLIT"
    with pytest.raises(UsageError, match="Patient b is in fold 0 and in fold 1"):
        nested_splits([0, 0, 1], ["a", "b", "b"], None, seed=0)
    with pytest.raises(UsageError, match="fold is missing in 1 rows"):
        nested_splits([0, np.nan, 1], ["a", "b", "c"], None, seed=0)
    with pytest.raises(UsageError, match="label is 1 in every row"):
        patient_folds(list("abc"), [1, 1, 1], folds=2, seed=0)
    with pytest.raises(UsageError, match="2 patients have the label 1, fewer than the 3 folds"):
        patient_folds(list("abcde"), [1, 1, 0, 0, 0], folds=3, seed=0)
    with pytest.raises(UsageError, match="There are 2 patients, fewer than the 3 folds"):
        patient_folds(list("aab"), None, folds=3, seed=0)
    with pytest.raises(UsageError, match="label is missing in 1 rows, first in row 2"):
        patient_folds(list("abc"), [0, 1, np.nan], folds=2, seed=0)
    with pytest.raises(UsageError, match="patient is missing in 1 of 3 rows"):
        patient_folds(["a", "", "c"], None, folds=2, seed=0)
    with pytest.raises(UsageError, match="folds is 1"):
        patient_folds(list("abc"), None, folds=1, seed=0)
