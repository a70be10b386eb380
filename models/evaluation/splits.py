"""Splits by patient: folds stratified by label, an inner split, and checks of given splits.

A patient may hold rows of both labels (a section with tumour and one without): such patients
are allowed, and form a stratum of their own that is spread over the folds like the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import UsageError
from slidetriage.models.trust.inputs import as_names, as_patients, as_share, refuse

from .intervals import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers of one round; no patient stands in two of the three."""

    train: Rows
    validation: Rows
    """For early stopping, thresholds and calibration; may be empty."""
    test: Rows


def patient_folds(
    patients: ArrayLike, label: ArrayLike | None, *, folds: int = 5, seed: int
) -> NDArray[np.int64]:
    """The fold of each of N rows, 0 to folds - 1; all rows of a patient are in one.

    Patients with the same set of labels are spread evenly: those with most rows first, in random
    order among equals, each to the fold that has fewest rows of the stratum, then fewest in all.
    `label` is any column of classes (for survival, the event), or None for no stratification.
    """
    names = as_patients(patients)
    if folds < 2:
        raise refuse(f"folds is {folds}.", "Ask for at least 2.", "E_SPLIT")
    unique, number, sizes = np.unique(names, return_inverse=True, return_counts=True)
    strata = patient_strata(number, len(unique), label)
    _check_strata(names, label, strata, folds)
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(unique), np.int64)
    load = np.zeros(folds)  # rows in each fold
    for stratum in sorted(set(strata)):
        members = np.flatnonzero([held == stratum for held in strata])
        shuffled = rng.permutation(members)
        held_rows, held_patients = np.zeros(folds), np.zeros(folds)
        for patient in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
            best = int(np.lexsort((load, held_patients, held_rows))[0])
            fold[patient] = best
            held_rows[best] += sizes[patient]
            held_patients[best] += 1
            load[best] += sizes[patient]
    return fold[number]


def nested_splits(
    fold: ArrayLike,
    patients: ArrayLike,
    label: ArrayLike | None,
    *,
    validation_share: float = 0.2,
    seed: int,
) -> tuple[Split, ...]:
    """For each fold, that fold as test and the rest parted by patient into train and validation.

    `fold` is any whole number per row, as `patient_folds`, `site_folds` or a table gives it; a
    patient with rows in two folds is an error. About `validation_share` of the remaining rows, by
    the rule of `patient_folds`, are the validation.
    """
    names = as_patients(patients)
    folds = as_names(fold, "fold", count=len(names))
    if (folds == "").any():
        raise refuse(
            f"fold is missing in {int((folds == '').sum())} rows.",
            "Give these rows a fold or leave them out.",
            "E_SPLIT",
        )
    check_splits({f"fold {f}": names[folds == f] for f in np.unique(folds)})
    labels = None if label is None else as_names(label, "label", count=len(names))
    parts = max(2, round(1 / as_share(validation_share, "validation_share")))
    splits = []
    for turn, name in enumerate(np.unique(np.asarray(fold))):
        test = np.flatnonzero(np.asarray(fold) == name)
        rest = np.flatnonzero(np.asarray(fold) != name)
        rest_label = None if labels is None else labels[rest]
        inner = patient_folds(names[rest], rest_label, folds=parts, seed=seed + turn)
        splits.append(Split(rest[inner != 0], rest[inner == 0], test))
    return tuple(splits)


def check_splits(patients: Mapping[str, ArrayLike]) -> None:
    """Raises UsageError, naming the patient, if one stands in two of the given splits."""
    seen: dict[str, str] = {}
    for split, values in patients.items():
        for name in np.unique(as_patients(values)).tolist():
            if name in seen:
                raise refuse(
                    f"Patient {name} is in {seen[name]} and in {split}.",
                    "Put all rows of a patient in one split.",
                    "E_SPLIT",
                )
            seen[name] = split


def patient_strata(
    number: NDArray[np.intp], patients: int, label: ArrayLike | None
) -> list[tuple[str, ...]]:
    """The sorted labels that each patient holds; `number` is the patient of each row."""
    if label is None:
        return [()] * patients
    labels = as_names(label, "label", count=len(number))
    missing = np.flatnonzero((labels == "") | (labels == "nan"))
    if len(missing):
        raise refuse(
            f"label is missing in {len(missing)} rows, first in row {missing[0]} (from 0).",
            "Label these rows or leave them out.",
        )
    held: list[set[str]] = [set() for _ in range(patients)]
    for patient, name in zip(number, labels.tolist(), strict=True):
        held[patient].add(name)
    return [tuple(sorted(names)) for names in held]


def _check_strata(
    patients: NDArray[np.str_],
    label: ArrayLike | None,
    strata: list[tuple[str, ...]],
    folds: int,
) -> None:
    if len(strata) < folds:
        raise _too_few(f"There are {len(strata)} patients", folds)
    if label is None:
        return
    classes = sorted({name for held in strata for name in held})
    if len(classes) < 2:
        raise refuse(
            f"label is {classes[0]} in every row.",
            "Check the column; a model needs at least two values to learn from.",
            "E_SPLIT",
        )
    for name in classes:
        holders = sum(name in held for held in strata)
        if holders < folds:
            raise _too_few(f"{holders} patients have the label {name}", folds)


def _too_few(what: str, folds: int) -> UsageError:
    return refuse(
        f"{what}, fewer than the {folds} folds.",
        "Ask for fewer folds, or bring more patients.",
        "E_SPLIT",
    )
