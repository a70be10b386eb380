"""The report's figures and limits in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from slidetriage.models.evaluation import Interval

from .report_values import (
    BinaryFigures,
    ConformalFigures,
    DataFigures,
    FoldFigure,
    GroupTable,
    MulticlassFigures,
    NumberFigures,
    SurvivalFigures,
)
from .table_reading import list_some

FEWEST_EVENTS = 50
"""Events below which a concordance says little; ten per group and fold as a rule of thumb."""
FEWEST_OF_A_CLASS = 20
FEWEST_PATIENTS = 100
POOR_CALIBRATION = 0.05


def number(value: float, digits: int = 3) -> str:
    """A figure, or "no value"."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "no value"


def percent(value: float) -> str:
    """A share in per cent, or "no value"."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "no value"


def interval(found: Interval | None, *, share: bool = False) -> str:
    """A figure with its interval, as far as there are."""
    if found is None:
        return "no value"
    form = percent if share else number
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return form(found.value)
    return f"{form(found.value)} (95 % interval {form(found.low)} to {form(found.high)})"


def share_cell(found: Interval | None) -> str:
    """A share in per cent with its interval, as short as a table needs it."""
    if found is None:
        return "no value"
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return percent(found.value)
    return f"{percent(found.value)} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def say_main(
    data: DataFigures,
    binary: BinaryFigures | None,
    multiclass: MulticlassFigures | None,
    numbers: NumberFigures | None,
    survival: SurvivalFigures | None,
) -> tuple[str, ...]:
    """The main figures, one sentence each."""
    unit = "patients" if survival is not None else f"slides of {data.patients:,} patients"
    count = data.patients if survival is not None else data.slides
    said = [f"Tested on {count:,} {unit}."]
    if binary is not None:
        said += _say_binary(binary)
    elif multiclass is not None:
        said += [
            f"Mean AUC of the {len(multiclass.names)} classes against the rest: "
            f"{interval(multiclass.macro_auc)}.",
            f"Balanced accuracy: {interval(multiclass.balanced_accuracy, share=True)}.",
            *map(_say_conformal, multiclass.conformal[:1]),
        ]
    elif numbers is not None:
        said += [
            f"Mean absolute error: {interval(numbers.mean_absolute_error)}.",
            f"R2: {interval(numbers.r2)}. Spearman correlation: {interval(numbers.spearman)}.",
        ]
    elif survival is not None:
        said += _say_survival(survival)
    return tuple(said)


def list_limits(
    data: DataFigures,
    groups: Sequence[GroupTable],
    binary: BinaryFigures | None,
    multiclass: MulticlassFigures | None,
    numbers: NumberFigures | None,
    survival: SurvivalFigures | None,
) -> tuple[str, ...]:
    """What the report cannot say, and what to beware of."""
    limits: list[str] = []
    if binary is not None:
        limits += _limit_binary(binary)
    if survival is not None:
        limits += _limit_survival(survival)
    classes = binary or multiclass
    if classes is not None:
        limits += _limit_classes(data, classes.temperatures, classes.conformal)
    if numbers is not None:
        limits.append("A number has no operating points, calibration or abstention here.")
    return tuple(limits + _limit_groups(groups) + _limit_data(data, survival))


def _say_binary(found: BinaryFigures) -> list[str]:
    said = [
        f"ROC AUC: {interval(found.auc)}. Average precision: {interval(found.average_precision)}; "
        f"a score that knows nothing has {number(found.prevalence)}."
    ]
    for point in found.points:
        where = "the same rows" if point.optimistic else "validation patients"
        said.append(
            f"With the threshold chosen on {where} for {point.asked:.0%} sensitivity, the test "
            f"sensitivity is {interval(point.sensitivity, share=True)} and the specificity "
            f"{interval(point.specificity, share=True)}."
        )
    first = found.points[0]
    area = f", {percent(first.area_spared)} of the tissue" if first.area_spared >= 0 else ""
    said.append(
        f"At that first threshold {interval(first.spared, share=True)} of the slides{area} need no "
        f"look; {first.false_negative} of {first.true_positive + first.false_negative} positive "
        "ones are among them."
    )
    errors = ", ".join(f"{number(each.ece)} ({each.name})" for each in found.calibrations)
    said.append(f"Expected calibration error: {errors}.")
    return said + [_say_conformal(each) for each in found.conformal[:1]]


def _say_conformal(found: ConformalFigures) -> str:
    return (
        f"Conformal sets that may err in {found.error_rate:.0%} hold the true class in "
        f"{interval(found.coverage, share=True)} and leave "
        f"{interval(found.needs_eyes, share=True)} of the slides to a pathologist's eyes."
    )


def _say_survival(found: SurvivalFigures) -> list[str]:
    said = [
        f"{found.events:,} of {found.patients:,} patients had the event.",
        f"Harrell's concordance, mean over folds: {interval(found.concordance)}; 0.5 is chance.",
    ]
    if found.log_rank is not None:
        said.append(f"The log-rank test between the groups of risk: {p_value(found.log_rank.p)}.")
    for each in found.comparisons:
        own = found.concordance.value if found.concordance else math.nan
        words = "above" if own > each.concordance else "not above"
        said.append(
            f"A Cox model on {each.column} alone has {number(each.concordance)}: the model is "
            f"{words} it."
        )
    return said


def p_value(p: float) -> str:
    """As journals write it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _limit_data(data: DataFigures, survival: SurvivalFigures | None) -> list[str]:
    limits = []
    if data.patients < FEWEST_PATIENTS:
        limits.append(f"Only {data.patients} patients were tested: the intervals are wide.")
    for name, _, patients in data.classes if survival is None else ():
        if patients < FEWEST_OF_A_CLASS:
            limits.append(f"Only {patients} patients are {name}: figures that count them can jump.")
    if data.rows > data.slides:
        limits.append(
            f"The {data.slides} slides were tested {data.rows} times, some in several folds; "
            "intervals take all rows of a patient together."
        )
    if len(data.folds) > 1:
        limits.append(
            f"The {len(data.folds)} folds are of one cohort with as many models: this is no "
            "external validation, and says nothing of a laboratory that is not in the table."
        )
    if data.sites == 0:
        limits.append("The table names no sites: differences between sites are not seen.")
    left_out = sum(rows for _, rows in data.excluded)
    if left_out:
        limits.append(f"{left_out} rows of the table were left out; the reasons are listed below.")
    return limits


def _limit_binary(found: BinaryFigures) -> list[str]:
    limits = []
    if any(point.optimistic for point in found.points):
        limits.append(
            "There is a fold without validation part of both classes: its thresholds were chosen "
            "on the rows they are measured on, so sensitivity and rule-out share are optimistic."
        )
    for point in found.points:
        got = point.sensitivity
        if got is not None and not point.optimistic and got.high < point.asked:
            limits.append(
                f"The sensitivity asked for, {point.asked:.0%}, was not kept on test: "
                f"{interval(got, share=True)}."
            )
    if found.calibration.ece > POOR_CALIBRATION:
        limits.append(
            f"The expected calibration error is {number(found.calibration.ece)} at best "
            f"({found.chosen}): do not read the score as "
            "a probability."
        )
    return limits


def _limit_classes(
    data: DataFigures,
    temperatures: Sequence[FoldFigure],
    conformal: Sequence[ConformalFigures],
) -> list[str]:
    limits = []
    without = [each.fold for each in temperatures if not math.isfinite(each.value)]
    if without:
        limits.append(
            f"No temperature could be fitted in {list_some(without)}: those scores stand as given."
        )
    if not conformal:
        limits.append(
            "Conformal prediction needs a validation part of 20 patients in every fold: nothing is "
            "said of abstention."
        )
    elif not any(each.label_conditional for each in conformal):
        limits.append(
            "Too few validation patients of one class for a stated error rate within each class."
        )
    return limits


def _limit_survival(found: SurvivalFigures) -> list[str]:
    limits = []
    if found.events < FEWEST_EVENTS:
        limits.append(f"Too few events to say much: {found.events}.")
    if found.optimistic:
        limits.append(
            "There is a fold without validation part: its groups of risk are parted by the median "
            "of the patients they are made of."
        )
    if found.log_rank is None:
        limits.append("The groups of risk cannot be compared: one is empty, or has no events.")
    if not found.comparisons:
        limits.append("No column of numbers, such as age, is there to compare the model with.")
    if found.concordance is None:
        limits.append("No two patients of a fold can be compared: there is no concordance.")
    elif not found.concordance.low > 0.5:
        limits.append("The interval of the concordance holds 0.5: it may be no better than chance.")
    return limits


def _limit_groups(groups: Sequence[GroupTable]) -> list[str]:
    limits = []
    for table in groups:
        worse = [f"{r.column} {r.group}" for r in table.rows if r.warning.startswith("does worse")]
        if worse:
            limits.append(f"The {table.figure} is worse than in the rest for {list_some(worse)}.")
    small: dict[str, int] = {}
    for row in groups[0].rows if groups else ():
        if row.warning.startswith("too small"):
            small[row.column] = small.get(row.column, 0) + 1
    for column, count in small.items():
        limits.append(
            f"{count} {'group' if count == 1 else 'groups'} of {column} "
            f"{'is' if count == 1 else 'are'} too small to say anything of."
        )
    return limits
