"""The tested rows of a report, fold by fold, and intervals of figures over their patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import Interval, PatientBootstrap, wilson_interval

from .predictions import TEST, VALIDATION, Names, Numbers, Predictions

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class FoldRows:
    """Row numbers of one fold: of the table, and where its test rows stand among those tested."""

    fold: str
    validation: Rows
    test: Rows
    place: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """Predictions averaged over seeds, and how their intervals are drawn."""

    table: Predictions
    rows: Rows
    """N tested rows of the table."""
    folds: tuple[FoldRows, ...]
    repeats: int
    seed: int

    @classmethod
    def of(cls, table: Predictions, *, repeats: int, seed: int) -> Tested:
        """Raises UsageError where nothing was tested."""
        rows = np.flatnonzero(table.part == TEST)
        if len(rows) == 0:
            raise UsageError(
                "No prediction is of the test part.",
                mend="Write test in the column `part`, or leave the column out.",
                code="E_TABLE",
            )
        folds = tuple(
            FoldRows(
                fold,
                table.rows(fold, VALIDATION),
                table.rows(fold, TEST),
                np.flatnonzero(table.fold[rows] == fold),
            )
            for fold in table.folds
        )
        return cls(table, rows, folds, repeats, seed)

    @property
    def patient(self) -> Names:
        """N."""
        return self.table.patient[self.rows]

    @property
    def truth(self) -> Numbers:
        """N labels, or events as 0 and 1."""
        values = self.table.event if self.table.label is None else self.table.label
        assert values is not None  # the table was checked for it
        return np.asarray(values[self.rows], np.float64)

    @property
    def score(self) -> Numbers:
        """N x P."""
        return self.table.score[self.rows]

    def bootstrap(
        self, rows: Rows | None = None, *, repeats: int | None = None
    ) -> PatientBootstrap:
        """Resamples of the patients of some tested rows; classes or events keep their shares."""
        at = np.arange(len(self.rows)) if rows is None else rows
        strata = None if self.table.kind == "number" else self.truth[at]
        count = self.repeats if repeats is None else min(repeats, self.repeats)
        return PatientBootstrap(self.patient[at], strata=strata, repeats=count, seed=self.seed)

    def interval(self, statistic: Callable[[Rows], float]) -> Interval | None:
        """A figure over all tested rows; None where it has no value, bare with one patient."""
        value = value_or_nan(statistic, np.arange(len(self.rows)))
        if not np.isfinite(value):
            return None
        if len(np.unique(self.patient)) < 2:
            return Interval(value, np.nan, np.nan, 0.95, self.repeats, 0)
        return self.bootstrap().interval(statistic)

    def share(
        self, hit: NDArray[np.bool_], among: NDArray[np.bool_] | None = None
    ) -> Interval | None:
        """The share of tested rows, of some of them if `among` is given, with `hit`; None of none.

        The bootstrap knows no doubt about a share of 0 or 1: there the interval is Wilson's, with
        the number of patients as that of trials.
        """
        inside = np.ones(len(hit), np.bool_) if among is None else among
        if not inside.any():
            return None
        value = float(hit[inside].mean())
        patients = len(np.unique(self.patient[inside]))
        if value in (0.0, 1.0) or patients < 2:
            low, high = wilson_interval(value * patients, patients)
            return Interval(value, float(low), float(high), 0.95, self.repeats, 0)

        def statistic(rows: Rows) -> float:
            drawn = inside[rows]
            return float(hit[rows][drawn].mean()) if drawn.any() else float("nan")

        return self.bootstrap().interval(statistic)


def value_or_nan(statistic: Callable[[Rows], float], rows: Rows) -> float:
    """NaN where the figure has no value on these rows."""
    try:
        return float(statistic(rows)) if len(rows) else float("nan")
    except UsageError:
        return float("nan")
