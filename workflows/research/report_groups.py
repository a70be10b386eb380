"""The figures of a report in every site and subgroup, with the rule's warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from slidetriage.models.evaluation import (
    SubgroupFigure,
    Subgroups,
    auc,
    average_precision,
    brier_score,
    calibration_error,
    wilson_interval,
)
from slidetriage.models.evaluation.subgroups import FEWEST_OF_A_CLASS, FEWEST_PATIENTS

from .cohort import Column
from .predictions import Names, Numbers
from .report_binary import AREA, SENSITIVITIES, BinaryTest
from .report_shares import Rows, Tested
from .report_survival import mean_concordance
from .report_values import GroupTable

REPEATS = 500
"""Resamples for each figure of each group, of which there are hundreds."""

BIASED = "ECE"
"""Greater in small groups by chance alone, so that groups are not compared by it."""

AGE_BANDS = ((50.0, "under 50"), (65.0, "50-64"), (np.inf, "65 and over"))
MOST_VALUES = 6
"""A column of numbers with no more different ones is one of categories."""


def group_columns(tested: Tested) -> dict[str, Names]:
    """The columns by which figures are broken down: the site first, numbers cut into bands."""
    columns: dict[str, Names] = {}
    if tested.table.site is not None:
        columns["site"] = tested.table.site[tested.rows]
    for column in tested.table.subgroups:
        if column.name != AREA:
            columns[column.name] = _as_groups(column, tested.rows)
    return columns


def measure_binary_groups(tested: Tested, test: BinaryTest) -> tuple[GroupTable, ...]:
    """Discrimination, operating points and calibration in each group."""
    positive, score = tested.truth == 1, tested.score[:, 1]

    def rate(hit: NDArray[np.bool_], among: NDArray[np.bool_]) -> Callable[[Rows], float]:
        def statistic(rows: Rows) -> float:
            inside = among[rows]
            return float(hit[rows][inside].mean()) if inside.any() else float("nan")

        return statistic

    better: dict[str, Callable[[Rows], float]] = {
        "AUC": lambda rows: auc(positive[rows], score[rows]),
        "average precision": lambda rows: average_precision(positive[rows], score[rows]),
    }
    for asked, called in zip(SENSITIVITIES, test.called, strict=True):
        better[f"sensitivity at {asked:.0%}"] = rate(called, positive)
        better[f"specificity at {asked:.0%}"] = rate(~called, ~positive)
    p = test.calibrated
    worse: dict[str, Callable[[Rows], float]] = {
        "Brier score": lambda rows: brier_score(positive[rows], p[rows]),
        BIASED: lambda rows: calibration_error(positive[rows], p[rows]).value,
    }
    return _tabulate(tested, positive, better, worse)


def measure_class_groups(tested: Tested) -> tuple[GroupTable, ...]:
    """The AUC of each class against the rest in each group."""
    tables: list[GroupTable] = []
    for number, name in enumerate(tested.table.classes):
        own, score = tested.truth == number, tested.score[:, number]

        def statistic(rows: Rows, own: NDArray[np.bool_] = own, score: Numbers = score) -> float:
            return auc(own[rows], score[rows])

        tables += _tabulate(tested, own, {f"AUC of {name}": statistic}, {})
    return tuple(tables)


def measure_number_groups(tested: Tested) -> tuple[GroupTable, ...]:
    """The mean absolute error in each group; its counts are of labels above the median."""
    error = np.abs(tested.truth - tested.score[:, 0])
    high = tested.truth > np.median(tested.truth)
    worse = {"mean absolute error": lambda rows: float(error[rows].mean())}
    return _tabulate(tested, high, {}, worse)


def measure_survival_groups(tested: Tested) -> tuple[GroupTable, ...]:
    """The concordance within folds in each group; its counts are of events."""
    return _tabulate(
        tested,
        tested.truth == 1,
        {"concordance": lambda rows: mean_concordance(tested, rows)},
        {},
    )


def _tabulate(
    tested: Tested,
    positive: NDArray[np.bool_],
    better: Mapping[str, Callable[[Rows], float]],
    worse: Mapping[str, Callable[[Rows], float]],
) -> tuple[GroupTable, ...]:
    columns = group_columns(tested)
    if not columns:
        return ()
    repeats = min(REPEATS, tested.repeats)
    groups = Subgroups(tested.patient, positive, columns, repeats=repeats, seed=tested.seed)
    tables = []
    for statistics, is_better in ((better, True), (worse, False)):
        for name, statistic in statistics.items():
            rows = groups.table(statistic, higher_is_better=is_better)
            ordered = sorted(rows, key=lambda r: (list(columns).index(r.column), _place(r.group)))
            compared = is_better or name != BIASED
            kept = tuple(
                row if compared and _has_others(row, rows) else _leave_uncompared(row)
                for row in map(_RATES.get(name.split(" ")[0], _as_it_is), ordered)
            )
            tables.append(GroupTable(name, is_better, kept))
    return tuple(tables)


def _as_it_is(row: SubgroupFigure) -> SubgroupFigure:
    return row


def _doubt_sensitivity(row: SubgroupFigure) -> SubgroupFigure:
    return _doubt(row, row.positives)


def _doubt_specificity(row: SubgroupFigure) -> SubgroupFigure:
    return _doubt(row, row.negatives)


_RATES = {"sensitivity": _doubt_sensitivity, "specificity": _doubt_specificity}


def _doubt(row: SubgroupFigure, patients: int) -> SubgroupFigure:
    """A share of 0 or 1, of which the bootstrap is too sure, with Wilson's interval."""
    found = row.figure
    if found is None or found.value not in (0.0, 1.0):
        return row
    low, high = wilson_interval(found.value * patients, patients)
    row = replace(row, figure=replace(found, low=float(low), high=float(high)))
    return row if high < row.rest else _leave_uncompared(row)


def _has_others(row: SubgroupFigure, rows: Sequence[SubgroupFigure]) -> bool:
    """Whether those outside the group, counted as in the rule, are enough to compare it with."""
    others = [each for each in rows if each.column == row.column and each.group != row.group]
    fewest = min(sum(e.positives for e in others), sum(e.negatives for e in others))
    return sum(e.patients for e in others) >= FEWEST_PATIENTS and fewest >= FEWEST_OF_A_CLASS


def _leave_uncompared(row: SubgroupFigure) -> SubgroupFigure:
    return replace(row, warning="") if row.warning.startswith("does worse") else row


def _place(group: str) -> tuple[int, str]:
    """Bands of age by age, the unknown last, the others as they come."""
    bands = [name for _, name in AGE_BANDS]
    if group in bands:
        return bands.index(group), ""
    return (len(bands) + 1, "") if group == "unknown" else (0, group)


def _as_groups(column: Column, rows: Rows) -> Names:
    """The group of each tested row; "" where nothing is known."""
    if column.kind == "category":
        return np.asarray(column.values, np.str_)[rows]
    values = np.asarray(column.values, np.float64)[rows]
    known = values[np.isfinite(values)]
    if column.name.lower().startswith("age"):
        cuts = [(top, name) for top, name in AGE_BANDS]
    elif len(np.unique(known)) <= MOST_VALUES:
        return np.array(["" if np.isnan(v) else f"{v:g}" for v in values], np.str_)
    else:
        low, high = np.quantile(known, [1 / 3, 2 / 3]).tolist()
        names = (f"1: under {low:.3g}", f"2: to {high:.3g}", f"3: {high:.3g} and over")
        cuts = list(zip((low, high, np.inf), names, strict=True))
    return np.array(
        [
            "" if np.isnan(v) else next((name for top, name in cuts if v < top), cuts[-1][1])
            for v in values
        ],
        np.str_,
    )
