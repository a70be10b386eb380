"""The figures of a report on conformal sets: fitted on validation, measured on test."""

from __future__ import annotations

import numpy as np

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import coverage, fit_conformal

from .report_shares import Rows, Tested
from .report_values import ConformalFigures

ERROR_RATE = 0.05


def measure_conformal(tested: Tested) -> tuple[ConformalFigures, ...]:
    """The rule on the whole, and the one within each class; without those that cannot be fitted.

    Each is fitted on one validation row of each patient, fold by fold. All folds must have enough.
    """
    figures = (_measure(tested, label_conditional=within) for within in (False, True))
    return tuple(each for each in figures if each is not None)


def _measure(tested: Tested, *, label_conditional: bool) -> ConformalFigures | None:
    table, label = tested.table, tested.table.label
    assert label is not None
    sets = np.zeros(tested.score.shape, np.bool_)  # N x C
    for fold in tested.folds:
        rows = _one_each(tested, fold.validation)
        try:
            rule = fit_conformal(
                label[rows].astype(np.int64),
                table.score[rows],
                error_rate=ERROR_RATE,
                label_conditional=label_conditional,
            )
        except UsageError:  # too few
            return None
        sets[fold.place] = rule.sets(table.score[fold.test])
    true = tested.truth.astype(np.int64)
    found = coverage(true, sets)
    return ConformalFigures(
        label_conditional=label_conditional,
        error_rate=ERROR_RATE,
        coverage=tested.share(sets[np.arange(len(true)), true]),
        by_class=found.by_class,
        needs_eyes=tested.share(sets.sum(axis=1) != 1),
        single_error=found.single_error,
    )


def _one_each(tested: Tested, rows: Rows) -> Rows:
    """The first row of each patient: rows of one patient are not exchangeable with others'."""
    _, first = np.unique(tested.table.patient[rows], return_index=True)
    return rows[np.sort(first)]
