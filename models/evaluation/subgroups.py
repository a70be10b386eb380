"""Any figure per site and subgroup, with a warning where a group is too small or does worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import UsageError
from slidetriage.models.trust.inputs import as_labels, as_names, as_patients

from .intervals import Interval, PatientBootstrap, Rows

UNKNOWN = "unknown"
"""The group of rows whose value is missing."""

FEWEST_PATIENTS = 20
FEWEST_OF_A_CLASS = 10

RULE = (
    f"Too small to say: fewer than {FEWEST_PATIENTS} patients, or fewer than {FEWEST_OF_A_CLASS} "
    "with or without the label. Does worse: the 95 % interval of the group lies wholly on the "
    "worse side of the value of all other rows. One in about forty groups does so by chance."
)
"""The rule of the warnings, to be printed below a table."""


@dataclass(frozen=True, slots=True)
class SubgroupFigure:
    """One figure in one group of one column."""

    column: str
    group: str
    rows: int
    patients: int
    positives: int
    """Patients with a positive row."""
    negatives: int
    """Patients with a negative row; one may count on both sides."""
    figure: Interval | None
    """None where it has no value in the group, as with one class."""
    rest: float
    """The figure on all other rows; NaN where it has none."""
    warning: str
    """Empty, or what to beware of."""


class Subgroups:
    """Tables of N patients and labels, cut by columns.

    Parameters
    ----------
    patients, label
        N patient names; N labels, 1 = positive (or had the event).
    columns
        Name of each column, such as "site" or "sex", and its N values; a missing value (None,
        NaN, "") is the group "unknown".
    seed
        Of the resamples of patients.
    """

    def __init__(
        self,
        patients: ArrayLike,
        label: ArrayLike,
        columns: Mapping[str, ArrayLike],
        *,
        repeats: int = 2000,
        seed: int,
    ) -> None:
        self._patients = as_patients(patients)
        count = len(self._patients)
        self._positive = as_labels(label, count=count, both=False)
        self._columns = {
            name: _name_unknown(as_names(values, name, count=count))
            for name, values in columns.items()
        }
        self._repeats, self._seed = repeats, seed

    def table(
        self, statistic: Callable[[Rows], float], *, higher_is_better: bool = True
    ) -> tuple[SubgroupFigure, ...]:
        """`statistic(rows)` in each group of each column, groups in alphabetical order."""
        return tuple(
            self._measure(column, group, statistic, higher_is_better)
            for column, values in self._columns.items()
            for group in np.unique(values).tolist()
        )

    def _measure(
        self, column: str, group: str, statistic: Callable[[Rows], float], higher: bool
    ) -> SubgroupFigure:
        inside = self._columns[column] == group
        rows, others = np.flatnonzero(inside), np.flatnonzero(~inside)
        patients = len(np.unique(self._patients[rows]))
        positives = len(np.unique(self._patients[inside & self._positive]))
        negatives = len(np.unique(self._patients[inside & ~self._positive]))
        figure, rest = self._interval(rows, statistic), _value(statistic, others)
        if min(patients - FEWEST_PATIENTS, min(positives, negatives) - FEWEST_OF_A_CLASS) < 0:
            warning = "too small to say"
        elif figure is not None and _is_worse(figure, rest, higher):
            warning = "does worse than the rest"
        else:
            warning = ""
        return SubgroupFigure(
            column, group, len(rows), patients, positives, negatives, figure, rest, warning
        )

    def _interval(self, rows: Rows, statistic: Callable[[Rows], float]) -> Interval | None:
        value = _value(statistic, rows)
        if not np.isfinite(value):
            return None
        if len(np.unique(self._patients[rows])) < 2:
            nan = float("nan")
            return Interval(value, nan, nan, 0.95, self._repeats, 0)
        bootstrap = PatientBootstrap(
            self._patients[rows],
            strata=self._positive[rows],
            repeats=self._repeats,
            seed=self._seed,
        )
        return bootstrap.interval(lambda drawn: statistic(rows[drawn]))


def _name_unknown(values: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.where(values == "", UNKNOWN, values)


def _value(statistic: Callable[[Rows], float], rows: Rows) -> float:
    """NaN where the figure has no value on these rows."""
    try:
        return float(statistic(rows)) if len(rows) else float("nan")
    except UsageError:
        return float("nan")


def _is_worse(figure: Interval, rest: float, higher_is_better: bool) -> bool:
    return figure.high < rest if higher_is_better else figure.low > rest
