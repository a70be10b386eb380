"""Splits that came with a data set: columns of the table, or a CSV of fold, part and slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .cohort import Cohort
from .table_reading import PARTS, Table, list_some

Shared = Literal["refuse", "drop", "keep"]


@dataclass(frozen=True, slots=True, eq=False)
class GivenSplit:
    """One way to part a cohort, as rows of it."""

    name: str
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    """Empty where none was given: it is then to be drawn from `train`."""
    test: NDArray[np.int64]
    unknown: tuple[str, ...] = ()
    """Slides that the split names and the cohort does not have, excluded ones among them."""
    shared_patients: tuple[str, ...] = ()
    """Patients that were given in two parts, for the report to say."""


@dataclass(frozen=True, slots=True)
class SplitColumns:
    """What the columns of a CSV of splits are called."""

    fold: str = "fold"
    part: str = "part"
    slide: str = "slide_id"


def read_splits(
    path: Path,
    cohort: Cohort,
    columns: SplitColumns | None = None,
    *,
    shared: Shared = "refuse",
) -> tuple[GivenSplit, ...]:
    """Read a CSV with a row for each fold and slide.

    Parameters
    ----------
    shared
        What becomes of patients that stand in two parts of a fold. `refuse` stops; `drop` leaves
        out of training and validation who is tested, and out of training who is validated; `keep`
        takes the split as it was published, which flatters what is measured on it.

    Raises
    ------
    UsageError
        A part is called something else, a slide is named twice, a patient stands in two parts of
        one fold, or a fold has nothing to learn from or to test on (E_TABLE).
    """
    columns = columns or SplitColumns()
    table = Table.read(path)
    by_fold: dict[str, list[tuple[str, str]]] = {}
    for fold, slide, part in zip(
        table.filled(columns.fold),
        table.filled(columns.slide),
        table.parts(columns.part),
        strict=True,
    ):
        by_fold.setdefault(fold, []).append((slide, part))
    return tuple(_make_split(table, cohort, fold, named, shared) for fold, named in by_fold.items())


def split_by_columns(cohort: Cohort) -> tuple[GivenSplit, ...]:
    """The splits that the columns of the table give; none where it has no such column.

    With a column of folds each is tested once and learned from otherwise. With a column of splits
    there is one. A patient stands in one only: `read_cohort` has made sure of it.
    """
    rows = np.arange(len(cohort))
    if cohort.folds is not None:
        folds = np.array(cohort.folds)
        none = np.zeros(0, np.int64)
        return tuple(
            GivenSplit(name, rows[folds != name], none, rows[folds == name])
            for name in sorted(set(cohort.folds), key=_natural)
        )
    if cohort.splits is None:
        return ()
    parts = np.array(cohort.splits)
    train, val, test = (rows[parts == part] for part in PARTS)
    return (GivenSplit("given", train, val, test),)


def _make_split(
    table: Table, cohort: Cohort, fold: str, named: Sequence[tuple[str, str]], shared: Shared
) -> GivenSplit:
    """One fold from its slides, each with its part."""
    home: dict[str, str] = {}
    for slide, part in named:
        if slide in home:
            raise table.error(
                f"fold {fold} names slide {slide} twice, in {home[slide]} and in {part}",
                "Name each slide once in a fold.",
            )
        home[slide] = part
    row_of = {slide: row for row, slide in enumerate(cohort.slides)}
    rows = {part: [row_of[s] for s, p in named if p == part and s in row_of] for part in PARTS}
    people = {part: {cohort.patients[row] for row in rows[part]} for part in PARTS}
    in_two = sorted(
        people["test"] & (people["train"] | people["val"]) | (people["train"] & people["val"])
    )
    if in_two and shared == "refuse":
        raise table.error(
            f"fold {fold} has {len(in_two)} patients in two parts: {list_some(in_two)}",
            "All slides of a patient belong into one part. To leave the slides out that would "
            "give the answer away, ask for --shared-patients drop.",
        )
    if shared == "drop":
        rows["val"] = [row for row in rows["val"] if cohort.patients[row] not in people["test"]]
        later = people["val"] | people["test"]
        rows["train"] = [row for row in rows["train"] if cohort.patients[row] not in later]
    for part in ("train", "test"):
        if not rows[part]:
            raise table.error(
                f"fold {fold} has no slide of the cohort to {part} on",
                "Check that both files call the slides the same.",
            )
    unknown = tuple(slide for slide, _ in named if slide not in row_of)
    train, val, test = (np.array(rows[part], np.int64) for part in PARTS)
    return GivenSplit(fold, train, val, test, unknown, tuple(in_two))


def _natural(name: str) -> tuple[float, str]:
    return (float(name), "") if name.isdigit() else (float("inf"), name)
