"""The figures of a report on more than two classes, and on a predicted number."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from slidetriage.models.evaluation import (
    RegressionFigures,
    auc,
    calibration_error,
    class_balanced_accuracy,
    class_confusion,
    fit_temperature,
    multiclass_auc,
    regression_figures,
)

from .predictions import Numbers
from .report_conformal import measure_conformal
from .report_shares import Rows, Tested
from .report_values import ClassFigure, FoldFigure, MulticlassFigures, NumberFigures


def measure_classes(tested: Tested) -> MulticlassFigures:
    """Every class against the rest, and all together."""
    true, score = tested.truth.astype(np.int64), tested.score
    confusion = class_confusion(true, score)
    calibrated, temperatures = _calibrate(tested)
    fitted = bool(np.isfinite([each.value for each in temperatures]).all())
    return MulticlassFigures(
        names=tested.table.classes,
        macro_auc=tested.interval(lambda rows: multiclass_auc(true[rows], score[rows])),
        balanced_accuracy=tested.interval(
            lambda rows: class_balanced_accuracy(true[rows], score[rows])
        ),
        classes=tuple(
            _measure_class(tested, number, int(confusion[number, number]))
            for number in range(len(tested.table.classes))
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        ece_before=_likeliest_error(true, score),
        ece_after=_likeliest_error(true, calibrated) if fitted else float("nan"),
        temperatures=temperatures,
        conformal=measure_conformal(tested),
    )


def measure_number(tested: Tested) -> NumberFigures:
    """Errors and agreement, with intervals."""
    true, found = tested.truth, tested.score[:, 0]
    intervals = {}
    for each in fields(RegressionFigures):

        def statistic(rows: Rows, name: str = each.name) -> float:
            return float(getattr(regression_figures(true[rows], found[rows]), name))

        intervals[each.name] = tested.interval(statistic)
    return NumberFigures(
        **intervals,
        true=tuple(true.tolist()),
        predicted=tuple(found.tolist()),
    )


def _measure_class(tested: Tested, number: int, right: int) -> ClassFigure:
    own, score = tested.truth == number, tested.score[:, number]
    rows = int(own.sum())
    return ClassFigure(
        name=tested.table.classes[number],
        rows=rows,
        auc=tested.interval(lambda rows: auc(own[rows], score[rows])),
        recall=right / rows if rows else float("nan"),
    )


def _calibrate(tested: Tested) -> tuple[Numbers, tuple[FoldFigure, ...]]:
    """Test scores by the temperature of the fold's validation part; NaN where it is empty."""
    table, label = tested.table, tested.table.label
    assert label is not None
    calibrated, found = tested.score.copy(), []
    for fold in tested.folds:
        temperature = float("nan")
        if len(np.unique(label[fold.validation])) > 1:
            rule = fit_temperature(
                label[fold.validation].astype(np.int64), table.score[fold.validation]
            )
            calibrated[fold.place] = rule.apply(table.score[fold.test])
            temperature = rule.numbers[0]
        found.append(FoldFigure(fold.fold, temperature))
    return calibrated, tuple(found)


def _likeliest_error(true: np.ndarray[tuple[int], np.dtype[np.int64]], score: Numbers) -> float:
    """Whether the likeliest class is right as often as its probability says."""
    right = score.argmax(axis=1) == true
    return calibration_error(right, np.clip(score.max(axis=1), 0, 1)).value
