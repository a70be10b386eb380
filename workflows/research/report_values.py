"""What a validation report says, as one frozen value that goes to JSON and back."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import orjson

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import CoxTerm, Interval, LogRank, SubgroupFigure

Floats = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve with its pointwise 95 % interval; empty `low` and `high` where there is none."""

    x: Floats
    y: Floats
    low: Floats = ()
    high: Floats = ()


@dataclass(frozen=True, slots=True)
class FoldFigure:
    """One number of one fold; NaN where it has none."""

    fold: str
    value: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What one sensitivity, asked for on validation, came to on test."""

    asked: float
    thresholds: tuple[FoldFigure, ...]
    optimistic: bool
    """Whether, in some fold, the threshold was chosen on the rows it is measured on."""
    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    npv: Interval | None
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    spared: Interval | None
    """Share of slides below the threshold: ruled out, they need no look."""
    area_spared: float
    """Share of the tissue area on those; NaN where no areas are known."""


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Whether scores mean what they say."""

    name: str
    """`as given`, or the map that was fitted on validation: `temperature` or `Platt`."""
    ece: float
    bins: int
    brier: Interval | None
    slope: float
    intercept: float
    at_large: float
    reliability: Curve
    """Mean score against share of positives; 95 % Wilson."""
    counts: tuple[int, ...]
    """Rows of each point."""


@dataclass(frozen=True, slots=True)
class ConformalFigures:
    """Sets of classes with a stated error rate, fitted on validation, on test."""

    label_conditional: bool
    error_rate: float
    coverage: Interval | None
    by_class: Floats
    needs_eyes: Interval | None
    single_error: float
    """Share of wrong ones among sets of one class; NaN without any."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the scores of one class are spread, in bins of equal width from 0 to 1."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BinaryFigures:
    """Two classes."""

    positive: str
    negative: str
    auc: Interval
    """Of all folds' test rows together."""
    fold_auc: tuple[FoldFigure, ...]
    average_precision: Interval
    prevalence: float
    roc: Curve
    """Sensitivity over 1 - specificity."""
    precision_recall: Curve
    points: tuple[OperatingPoint, ...]
    calibrations: tuple[CalibrationFigures, ...]
    """The first is of the scores as given."""
    chosen: str
    """The map of least log loss on validation; what follows, and groups, use it."""
    temperatures: tuple[FoldFigure, ...]
    decision: Curve
    """Net benefit of acting on the calibrated score."""
    treat_all: Floats
    conformal: tuple[ConformalFigures, ...]
    histograms: tuple[Histogram, ...]

    @property
    def calibration(self) -> CalibrationFigures:
        """Of the chosen map, or as given where none could be fitted."""
        return next(each for each in self.calibrations if each.name == self.chosen)


@dataclass(frozen=True, slots=True)
class ClassFigure:
    """One class against the rest."""

    name: str
    rows: int
    auc: Interval | None
    recall: float


@dataclass(frozen=True, slots=True)
class MulticlassFigures:
    """More than two classes."""

    names: tuple[str, ...]
    macro_auc: Interval | None
    balanced_accuracy: Interval | None
    classes: tuple[ClassFigure, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true; columns: likeliest."""
    ece_before: float
    """Of the likeliest class's probability against how often it is right."""
    ece_after: float
    temperatures: tuple[FoldFigure, ...]
    conformal: tuple[ConformalFigures, ...]


@dataclass(frozen=True, slots=True)
class NumberFigures:
    """A predicted number."""

    mean_absolute_error: Interval | None
    root_mean_squared_error: Interval | None
    r2: Interval | None
    pearson: Interval | None
    spearman: Interval | None
    true: Floats
    predicted: Floats


@dataclass(frozen=True, slots=True)
class RiskGroup:
    """Patients of one group of risk, and their Kaplan-Meier curve."""

    name: str
    patients: int
    events: int
    median: float
    """NaN if never reached."""
    curve: Curve
    censored: Floats
    at_risk: tuple[int, ...]
    """At the times of `SurvivalFigures.ticks`."""


@dataclass(frozen=True, slots=True)
class CoxComparison:
    """A Cox model on one column beside the model's risk."""

    column: str
    concordance: float
    """Of the column alone, mean over folds; fitted on patients who are not tested in the fold."""
    folds: tuple[FoldFigure, ...]
    risk_alone: CoxTerm | None
    """Hazard ratio per standard deviation of risk, on test."""
    risk_beside: CoxTerm | None
    """The same, with the column in the model."""


@dataclass(frozen=True, slots=True)
class SurvivalFigures:
    """Time to an event."""

    patients: int
    events: int
    concordance: Interval | None
    """Harrell's, mean over folds."""
    folds: tuple[FoldFigure, ...]
    groups: tuple[RiskGroup, ...]
    optimistic: bool
    """Whether the boundary was, in some fold, taken from the rows it parts."""
    ticks: Floats
    log_rank: LogRank | None
    comparisons: tuple[CoxComparison, ...]


@dataclass(frozen=True, slots=True)
class GroupTable:
    """One figure in every group of every column."""

    figure: str
    higher_is_better: bool
    rows: tuple[SubgroupFigure, ...]


@dataclass(frozen=True, slots=True)
class DataFigures:
    """What the report is of."""

    slides: int
    patients: int
    rows: int
    """Test predictions after averaging seeds; a slide tested in two folds counts twice."""
    sites: int
    folds: tuple[str, ...]
    seeds: int
    validation: bool
    """Whether every fold has a validation part."""
    classes: tuple[tuple[str, int, int], ...]
    """Name, slides and patients of each."""
    excluded: tuple[tuple[str, int], ...]
    """Reason and rows."""


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """Everything a report says."""

    schema_version: int
    notice: str
    title: str
    facts: tuple[tuple[str, str], ...]
    """What the caller says of the study, such as its question and its head."""
    kind: str
    data: DataFigures
    binary: BinaryFigures | None
    multiclass: MulticlassFigures | None
    number: NumberFigures | None
    survival: SurvivalFigures | None
    groups: tuple[GroupTable, ...]
    said: tuple[str, ...]
    """The main figures in words."""
    limits: tuple[str, ...]
    """What the report cannot say, and what to beware of."""
    seed: int
    repeats: int

    def to_json(self) -> dict[str, object]:
        """As plain JSON values; what has no value is null."""
        return cast(dict[str, object], orjson.loads(orjson.dumps(self)))

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> ReportFigures:
        """Back from `to_json`; raises UsageError for anything else."""
        try:
            return cast(ReportFigures, _build(cls, dict(plain)))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UsageError(
                f"This is no validation report ({error}).", mend="Evaluate again."
            ) from error


def _build(kind: Any, value: Any) -> Any:
    """`value` as the annotated type; null is NaN where a float belongs."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(option for option in get_args(kind) if option is not type(None))
        return None if value is None else _build(inner, value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        if set(value) != {each.name for each in fields(kind)}:
            raise ValueError(f"{getattr(kind, '__name__', kind)} holds {sorted(value)}")
        return cast(Any, kind)(**{name: _build(hints[name], each) for name, each in value.items()})
    if get_origin(kind) is tuple:
        inside = get_args(kind)
        if inside[-1] is Ellipsis:
            return tuple(_build(inside[0], each) for each in value)
        return tuple(_build(one, each) for one, each in zip(inside, value, strict=True))
    if kind is float:
        return float("nan") if value is None else float(value)
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value
