"""The figures of a report on two classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import (
    auc,
    average_precision,
    brier_score,
    calibration_error,
    calibration_line,
    confusion_at,
    decision_curve,
    fit_platt,
    fit_temperature,
    ppv_on_grid,
    precision_recall_curve,
    reliability_curve,
    roc_curve,
    sensitivity_on_grid,
    threshold_at_sensitivity,
)
from slidetriage.models.trust import as_logits

from .predictions import Numbers
from .report_conformal import measure_conformal
from .report_shares import Rows, Tested, value_or_nan
from .report_values import (
    BinaryFigures,
    CalibrationFigures,
    Curve,
    FoldFigure,
    Histogram,
    OperatingPoint,
)

SENSITIVITIES = (0.99, 0.95)
BAND_REPEATS = 500
"""A band is for the eye; its edges need fewer resamples than a figure's."""
AS_GIVEN = "as given"
AREA = "tissue_mm2"
"""A column of this name is the tissue area of the slides."""

_GRID = np.linspace(0, 1, 101)
_BINS = 20


@dataclass(frozen=True, slots=True, eq=False)
class BinaryTest:
    """What is measured, and what groups are measured by."""

    figures: BinaryFigures
    called: tuple[NDArray[np.bool_], ...]
    """For each operating point, whether each of N tested rows is called positive."""
    calibrated: Numbers
    """N."""


def measure_binary(tested: Tested) -> BinaryTest:
    """All figures of the positive class, the last of two."""
    positive, score = tested.truth == 1, tested.score[:, 1]

    def area(rows: Rows) -> float:
        return auc(positive[rows], score[rows])

    def precision(rows: Rows) -> float:
        return average_precision(positive[rows], score[rows])

    points = [_measure_point(tested, asked) for asked in SENSITIVITIES]
    maps = {name: _calibrate(tested, name) for name in ("temperature", "Platt")}
    chosen = min(maps, key=lambda name: maps[name].loss)
    fitted = np.isfinite(maps[chosen].loss)
    calibrated = maps[chosen].score
    curve = decision_curve(positive, calibrated)
    negative_name, positive_name = tested.table.classes
    auc_interval, ap_interval = tested.interval(area), tested.interval(precision)
    assert auc_interval is not None  # both classes are there
    assert ap_interval is not None
    figures = BinaryFigures(
        positive=positive_name,
        negative=negative_name,
        auc=auc_interval,
        fold_auc=tuple(FoldFigure(f.fold, value_or_nan(area, f.place)) for f in tested.folds),
        average_precision=ap_interval,
        prevalence=float(positive.mean()),
        roc=_draw_roc(tested, positive, score),
        precision_recall=_draw_precision_recall(tested, positive, score),
        points=tuple(point for point, _ in points),
        calibrations=(
            _measure_calibration(tested, AS_GIVEN, score),
            *(_measure_calibration(tested, name, m.score) for name, m in maps.items() if fitted),
        ),
        chosen=chosen if fitted else AS_GIVEN,
        temperatures=maps["temperature"].numbers,
        decision=Curve(tuple(curve.threshold.tolist()), tuple(curve.model.tolist())),
        treat_all=tuple(curve.treat_all.tolist()),
        conformal=measure_conformal(tested),
        histograms=tuple(
            Histogram(name, tuple(np.histogram(score[of], _BINS, (0, 1))[0].tolist()))
            for name, of in ((negative_name, ~positive), (positive_name, positive))
        ),
    )
    return BinaryTest(figures, tuple(called for _, called in points), calibrated)


def _measure_point(tested: Tested, asked: float) -> tuple[OperatingPoint, NDArray[np.bool_]]:
    """Thresholds chosen on each fold's validation part, applied to its test part."""
    table, label = tested.table, tested.table.label
    assert label is not None
    positive = tested.truth == 1
    called = np.zeros(len(positive), np.bool_)
    thresholds, optimistic = [], False
    for fold in tested.folds:
        threshold = float("nan")
        for rows in (fold.validation, fold.test):
            try:
                threshold = threshold_at_sensitivity(label[rows], table.score[rows, 1], asked)
            except UsageError:
                continue  # no rows, or of one class
            optimistic |= rows is fold.test
            break
        thresholds.append(FoldFigure(fold.fold, threshold))
        # Without a threshold nothing may be ruled out.
        called[fold.place] = ~(table.score[fold.test, 1] < threshold)
    counts = confusion_at(positive, called.astype(float), 0.5)
    point = OperatingPoint(
        asked=asked,
        thresholds=tuple(thresholds),
        optimistic=optimistic,
        sensitivity=tested.share(called, positive),
        specificity=tested.share(~called, ~positive),
        ppv=tested.share(positive, called),
        npv=tested.share(~positive, ~called),
        true_positive=counts.true_positive,
        false_positive=counts.false_positive,
        true_negative=counts.true_negative,
        false_negative=counts.false_negative,
        spared=tested.share(~called),
        area_spared=_share_of_area(tested, ~called),
    )
    return point, called


def _share_of_area(tested: Tested, spared: NDArray[np.bool_]) -> float:
    """NaN where the area of any slide is unknown."""
    for column in tested.table.subgroups:
        if column.name == AREA and column.kind == "number":
            area = np.asarray(column.values, np.float64)[tested.rows]
            return float(area[spared].sum() / area.sum()) if area.sum() > 0 else float("nan")
    return float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class _Calibrated:
    """Test scores by the map of their fold's validation part, as given where there is none."""

    score: Numbers
    numbers: tuple[FoldFigure, ...]
    """The first number of each fold's map; NaN where there is none."""
    loss: float
    """Mean log loss on validation, by which a kind of map is chosen; NaN without validation."""


def _calibrate(tested: Tested, kind: str) -> _Calibrated:
    table, label = tested.table, tested.table.label
    assert label is not None
    fit = fit_platt if kind == "Platt" else fit_temperature
    calibrated, found, losses = tested.score[:, 1].copy(), [], []
    for fold in tested.folds:
        number, rows = float("nan"), fold.validation
        held = table.score[rows, 1]
        if len(np.unique(label[rows])) == 2:
            try:
                rule = fit(label[rows], held)
            except UsageError:  # every score is the same
                pass
            else:
                calibrated[fold.place] = rule.apply(table.score[fold.test, 1])
                held, number = rule.apply(held), rule.numbers[0]
            logits = as_logits(held)
            losses += np.logaddexp(0, np.where(label[rows] == 1, -logits, logits)).tolist()
        found.append(FoldFigure(fold.fold, number))
    return _Calibrated(calibrated, tuple(found), float(np.mean(losses)) if losses else np.nan)


def _measure_calibration(tested: Tested, name: str, score: Numbers) -> CalibrationFigures:
    positive = tested.truth == 1
    error = calibration_error(positive, score)
    points = reliability_curve(positive, score)
    try:
        line = calibration_line(positive, score)
        slope, intercept, at_large = line.slope, line.intercept, line.at_large
    except UsageError:  # the score parts the classes: the line has no bound
        slope = intercept = at_large = float("nan")
    return CalibrationFigures(
        name=name,
        ece=error.value,
        bins=error.bins,
        brier=tested.interval(lambda rows: brier_score(positive[rows], score[rows])),
        slope=slope,
        intercept=intercept,
        at_large=at_large,
        reliability=Curve(
            tuple(points.mean_score.tolist()),
            tuple(points.positives.tolist()),
            tuple(points.low.tolist()),
            tuple(points.high.tolist()),
        ),
        counts=tuple(points.count.tolist()),
    )


def _draw_roc(tested: Tested, positive: NDArray[np.bool_], score: Numbers) -> Curve:
    """Sensitivity over 1 - specificity on a grid, with its band; all turns where there is none."""
    if len(np.unique(tested.patient)) < 2:
        curve = roc_curve(positive, score)
        return Curve(tuple((1 - curve.specificity).tolist()), tuple(curve.sensitivity.tolist()))
    band = tested.bootstrap(repeats=BAND_REPEATS).band(
        lambda rows: sensitivity_on_grid(positive[rows], score[rows], 1 - _GRID)
    )
    return Curve(
        tuple(_GRID.tolist()),
        tuple(band.value.tolist()),
        tuple(band.low.tolist()),
        tuple(band.high.tolist()),
    )


def _draw_precision_recall(tested: Tested, positive: NDArray[np.bool_], score: Numbers) -> Curve:
    """Positive predictive value over sensitivity on a grid, with its band."""
    if len(np.unique(tested.patient)) < 2:
        curve = precision_recall_curve(positive, score)
        return Curve(tuple(curve.sensitivity.tolist()), tuple(curve.ppv.tolist()))
    band = tested.bootstrap(repeats=BAND_REPEATS).band(
        lambda rows: ppv_on_grid(positive[rows], score[rows], _GRID)
    )
    return Curve(
        tuple(_GRID.tolist()),
        tuple(band.value.tolist()),
        tuple(band.low.tolist()),
        tuple(band.high.tolist()),
    )
