"""A comparison's figures and limits in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .compare_matching import Matched, MatchedModel
from .compare_values import FigureDifference, PairFigures
from .report_words import FEWEST_EVENTS, FEWEST_OF_A_CLASS, FEWEST_PATIENTS, p_value
from .table_reading import list_some

_SHARES = ("sensitivity", "specificity", "balanced accuracy")


def is_share(name: str) -> bool:
    """Whether a figure is told in per cent, and its differences in percentage points."""
    return name.startswith(_SHARES)


def difference_cell(name: str, value: float) -> str:
    """A difference with its sign, as a table needs it."""
    if not math.isfinite(value):
        return "no value"
    # Without the 0 added, a difference of nothing could be written "-0.000".
    text = f"{round(100 * value, 1) + 0:+.1f}" if is_share(name) else f"{round(value, 3) + 0:+.3f}"
    return f"{text} points" if is_share(name) else text


def verdict(found: FigureDifference, other: str) -> str:
    """In short, which model is better by a figure."""
    if not found.told_apart:
        return "cannot be told apart"
    better = (found.difference.value > 0) == found.higher_is_better
    return f"{other} is {'better' if better else 'worse'}"


def say_difference(found: FigureDifference, baseline: str, other: str, comparisons: int) -> str:
    """One figure of two models in a sentence."""
    name, value = found.name, found.difference.value
    ends = [found.difference.low, found.difference.high]
    unit = " points" if is_share(name) else ""
    if not all(map(math.isfinite, ends)):
        return (
            f"{other}'s {name} differs from {baseline}'s by {_bare(name, value)}{unit}; there is "
            "no interval."
        )
    if found.told_apart and value < 0:
        ends = [-ends[1], -ends[0]]  # "lower" is said already
    interval = f"95 % interval {_bare(name, ends[0])} to {_bare(name, ends[1])}{unit}"
    if comparisons > 1:
        interval += f"; {p_value(found.p_adjusted)} adjusted for {comparisons} comparisons"
    if found.told_apart:
        way = "higher" if value > 0 else "lower"
        by = f"{_bare(name, abs(value))}{unit} {way} than {baseline}'s"
        return f"{other}'s {name} is {by} ({interval})."
    return (
        f"{baseline} and {other} cannot be told apart by {name}: {other}'s minus {baseline}'s is "
        f"{_bare(name, value)}{unit} ({interval})."
    )


def _bare(name: str, value: float) -> str:
    return f"{round(100 * value, 1) + 0:.1f}" if is_share(name) else f"{round(value, 3) + 0:.3f}"


def list_limits(
    matched: Matched,
    patients: int,
    counts: Sequence[tuple[str, int]],
    pairs: Sequence[PairFigures],
) -> tuple[str, ...]:
    """What the comparison cannot say, and what to beware of."""
    limits = [
        "A table of predictions cannot show who was learned from: that no model learned from the "
        "patients it is compared on is promised by whoever trained it."
    ]
    limits += _limit_rows(matched)
    limits += _limit_training(matched)
    if matched.without_thresholds:
        limits.append(
            f"{list_some(matched.without_thresholds)} has no validation rows of both classes in "
            "every fold: sensitivity and specificity of all models are at the threshold 0.5, which "
            "means little where scores are badly calibrated."
        )
    limits += _limit_size(matched, patients, counts)
    if len(pairs) > 1:
        limits.append(
            f"There are {len(pairs)} comparisons with {matched.baseline.name}: p-values are "
            "adjusted by Holm over them, figure by figure; intervals are not adjusted."
        )
    return tuple(limits)


def _limit_rows(matched: Matched) -> list[str]:
    """Who is left out, who is averaged, and which tests cannot be made."""
    units, common = f"{matched.unit}s", len(matched.baseline.table)
    limits = []
    for model in matched.models:
        if model.tested > common:
            limits.append(
                f"{model.tested - common} of the {model.tested} {units} tested by {model.name} are "
                "not tested by every model and are left out; whether another model learned from "
                "them cannot be known."
            )
    table = matched.baseline.table
    if matched.unit == "patient" and table.kind != "survival":
        limits.append(
            "A table names no slides: models are compared by patient, with the mean score of all "
            "rows of a patient."
        )
    several = len(table) - len(set(table.patient.tolist()))
    if several and table.kind == "classes":
        limits.append(
            "Some patients have several slides, which DeLong's and McNemar's tests would take for "
            "independent: they are left out, and the bootstrap over patients stands alone."
        )
    return limits


def _limit_training(matched: Matched) -> list[str]:
    """Models that differ in more than what they are."""
    base, limits = matched.baseline, []
    repeated = [model.name for model in matched.models if model.repeated]
    if repeated:
        limits.append(
            f"Several rows of the same {matched.unit} are averaged in "
            f"{list_some(repeated)}, so figures may differ from those of the model's own report."
        )
    for other in matched.models[1:]:
        if _count_trained(other) != _count_trained(base):
            limits.append(
                f"Scores of {other.name} and {base.name} are means over different numbers of "
                "trainings; the mean of more is as a rule better whatever the model."
            )
        if not _alike(base.homes, other.homes):
            limits.append(
                f"{other.name} and {base.name} were not tested in the same folds: they learned "
                "from different patients, and a difference may be due to that."
            )
    if any(len(model.risk) > 1 for model in matched.models):
        limits.append(
            "The intervals know the chance of who was tested, not that of training: the same model "
            "trained again would differ too."
        )
    return limits


def _count_trained(model: MatchedModel) -> tuple[int, ...]:
    """How many scores each unit is the mean of, as far as folds and seeds say."""
    if model.table.kind == "survival":  # each fold is measured by itself
        return (model.seeds,)
    return tuple(len(home) * model.seeds for home in model.homes)


def _alike(first: Sequence[object], second: Sequence[object]) -> bool:
    """Whether folds, whatever they are called, hold the same units."""
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


def _limit_size(matched: Matched, patients: int, counts: Sequence[tuple[str, int]]) -> list[str]:
    limits = []
    if patients < FEWEST_PATIENTS:
        limits.append(
            f"Only {patients} patients are compared: the intervals are wide, and still somewhat "
            "too narrow."
        )
    if matched.baseline.table.kind == "survival":
        events = dict(counts)["event"]
        if events < FEWEST_EVENTS:
            limits.append(f"Too few events to say much: {events}.")
        return limits
    for name, units in counts:
        if units < FEWEST_OF_A_CLASS:
            limits.append(f"Only {units} {matched.unit}s are {name}: differences can jump.")
    return limits
