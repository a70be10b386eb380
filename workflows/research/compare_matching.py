"""The rows of several models beside one another: the same slides or patients in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import threshold_at_sensitivity

from .cohort import Column
from .predictions import TEST, VALIDATION, Names, Numbers, Predictions, average_seeds
from .report_binary import SENSITIVITIES
from .table_reading import list_some

FALLBACK = 0.5
"""The threshold of all models where one has no validation rows of both classes."""

Thresholds = Mapping[str, Mapping[str, float]]
"""For each sensitivity asked for, the threshold of each fold."""


@dataclass(frozen=True, slots=True, eq=False)
class MatchedModel:
    """What one model said of the N units that all were tested on."""

    name: str
    table: Predictions
    """One row for each unit, scores averaged over seeds and folds."""
    called: Mapping[str, NDArray[np.bool_]]
    """For each threshold, whether each of N is called positive; of two classes only."""
    risk: Numbers
    """F x N scores of the first class or only value in each fold, NaN where it did not test."""
    tested: int
    repeated: int
    seeds: int

    @property
    def homes(self) -> tuple[tuple[int, ...], ...]:
        """The folds that tested each unit."""
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in np.isfinite(self.risk).T)


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Models on the same units, the baseline first."""

    models: tuple[MatchedModel, ...]
    unit: str
    """`slide` or `patient`."""
    without_thresholds: tuple[str, ...]
    """Models of two classes that have no validation rows of both in some fold."""

    @property
    def baseline(self) -> MatchedModel:
        """The model that others are compared to; its table has the sites and columns of all."""
        return self.models[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """The test rows of one model before it is known which units all have."""

    name: str
    rows: Predictions
    units: Names
    """Sorted."""
    first: NDArray[np.intp]
    member: NDArray[np.intp]
    """The unit of each row."""
    thresholds: Thresholds | None
    folds: tuple[str, ...]
    seeds: int


def match_models(named: Mapping[str, Predictions]) -> Matched:
    """Average each model's test rows over seeds and folds, and keep the units that all have.

    Units are slides; they are patients where the kind is survival, or where a table has no slides.
    A slide tested in several folds has the mean of its scores there.

    Raises
    ------
    UsageError
        There are fewer than two models, they answer different questions, nothing was tested by all
        of them, or they disagree on a patient or a truth (E_TABLE).
    """
    if len(named) < 2:
        raise UsageError(
            f"There is nothing to compare: {len(named)} model.", mend="Give the predictions of two."
        )
    _refuse_other_question(named)
    of_survival = next(iter(named.values())).kind == "survival"
    by_patient = of_survival or not all(map(_names_slides, named.values()))
    unit = "patient" if by_patient else "slide"
    tested = [_find_tested(name, p, by_patient) for name, p in named.items()]
    common = reduce(np.intersect1d, [each.units for each in tested])
    if len(common) == 0:
        counts = ", ".join(f"{len(each.units)} in {each.name}" for each in tested)
        raise _refuse(
            f"no {unit} was tested by all models ({counts})",
            "Give predictions of the same cohort, with slides and patients named alike.",
        )
    without = tuple(each.name for each in tested if each.thresholds is None)
    models = [_take_common(each, common, fallback=bool(without)) for each in tested]
    for other in models[1:]:
        _refuse_other_truth(models[0], other, unit)
    models[0] = _share_columns(models)
    binary = len(models[0].table.classes) == 2
    return Matched(tuple(models), unit, without if binary else ())


def _refuse_other_question(named: Mapping[str, Predictions]) -> None:
    (first, base), *others = named.items()
    for name, each in others:
        if each.kind != base.kind:
            raise _refuse(
                f"{first} predicts {_KINDS[base.kind]} and {name} {_KINDS[each.kind]}",
                "Compare models of one question.",
            )
        if sorted(each.classes) != sorted(base.classes):
            raise _refuse(
                f"the classes are {', '.join(base.classes)} in {first} and "
                f"{', '.join(each.classes)} in {name}",
                "Compare models of one question, with classes named alike.",
            )
        if each.classes != base.classes:
            raise _refuse(
                f"the classes stand in another order in {name} ({', '.join(each.classes)}) than in "
                f"{first} ({', '.join(base.classes)})",
                "Say with --classes which the column `score` is about, the positive one last, or "
                "put the columns `p <class>` into one order.",
            )


_KINDS = {"classes": "classes", "number": "a number", "survival": "survival"}


def _names_slides(predictions: Predictions) -> bool:
    """Whether the table had slides; without, `read_predictions` names them by patient and line."""
    pairs = zip(predictions.slide.tolist(), predictions.patient.tolist(), strict=True)
    return not all(slide.startswith(f"{patient} (line ") for slide, patient in pairs)


def _find_tested(name: str, predictions: Predictions, by_patient: bool) -> _Tested:
    table = average_seeds(predictions)
    rows = table.take(np.flatnonzero(table.part == TEST))
    if len(rows) == 0:
        raise _refuse(
            f"{name} has no prediction of the test part",
            "Write test in the column `part`, or leave the column out.",
        )
    units, first, member = np.unique(
        rows.patient if by_patient else rows.slide, return_index=True, return_inverse=True
    )
    for truth in (rows.label, rows.time, rows.event):
        if truth is not None:
            odd = np.flatnonzero(truth != truth[first][member])
            if len(odd):
                raise _refuse(
                    f"patient {rows.patient[odd[0]]} has slides of different truths in {name}, and "
                    "models are compared by patient",
                    "Name the slides in every table, or keep one truth for each patient.",
                )
    return _Tested(
        name=name,
        rows=rows,
        units=units,
        first=first,
        member=member,
        thresholds=_choose_thresholds(table),
        folds=table.folds,
        seeds=len(np.unique(predictions.seed)),
    )


def _choose_thresholds(table: Predictions) -> Thresholds | None:
    """Those of each fold's validation rows, as the report has them; None where a fold has none."""
    if len(table.classes) != 2 or table.label is None:
        return None
    found: dict[str, dict[str, float]] = {f"{asked:.0%}": {} for asked in SENSITIVITIES}
    for fold in table.folds:
        rows = table.rows(fold, VALIDATION)
        for asked in SENSITIVITIES:
            try:
                threshold = threshold_at_sensitivity(table.label[rows], table.score[rows, 1], asked)
            except UsageError:  # no rows, or of one class
                return None
            found[f"{asked:.0%}"][fold] = threshold
    return found


def _take_common(tested: _Tested, common: Names, *, fallback: bool) -> MatchedModel:
    rows, member = tested.rows, tested.member
    kept = np.searchsorted(tested.units, common)
    count = np.bincount(member)
    score = np.zeros((len(count), rows.score.shape[1]))
    np.add.at(score, member, rows.score)
    risk = np.full((len(tested.folds), len(count)), np.nan)
    for place, fold in enumerate(tested.folds):
        own = rows.fold == fold
        here = np.bincount(member[own], minlength=len(count))
        total = np.bincount(member[own], rows.score[own, 0], minlength=len(count))
        risk[place, here > 0] = total[here > 0] / here[here > 0]
    n = len(common)
    table = replace(
        rows.take(tested.first[kept]),
        slide=common,
        fold=np.full(n, "all"),
        score=(score / count[:, None])[kept],
        excluded=(),
    )
    thresholds: Thresholds = {f"{FALLBACK:g}": dict.fromkeys(tested.folds, FALLBACK)}
    if not fallback and tested.thresholds is not None:
        thresholds = tested.thresholds
    called = {}
    for name, by_fold in thresholds.items() if len(rows.classes) == 2 else ():
        margin = rows.score[:, 1] - np.array([by_fold[fold] for fold in rows.fold.tolist()])
        # Of several folds, the mean distance from their thresholds says.
        called[name] = (np.bincount(member, margin) / count)[kept] >= 0
    # Of survival each fold is measured by itself, so that only rows of one fold are averaged.
    once = np.isfinite(risk).sum(axis=0) if rows.kind == "survival" else 1
    repeated = int((count > once)[kept].sum())
    return MatchedModel(
        tested.name, table, called, risk[:, kept], len(count), repeated, tested.seeds
    )


def _refuse_other_truth(base: MatchedModel, other: MatchedModel, unit: str) -> None:
    a, b = base.table, other.table
    wrong = {"patient": np.flatnonzero(a.patient != b.patient)}
    for what, mine, yours in (("label", a.label, b.label), ("time", a.time, b.time)):
        if mine is not None and yours is not None:
            # Other tools write numbers with fewer digits.
            wrong[what] = np.flatnonzero(~np.isclose(mine, yours, rtol=1e-6, atol=1e-9))
    if a.event is not None and b.event is not None:
        wrong["event"] = np.flatnonzero(a.event != b.event)
    for what, rows in wrong.items():
        if len(rows):
            raise _refuse(
                f"{base.name} and {other.name} have a different {what} for {len(rows)} of {len(a)} "
                f"{unit}s ({list_some(a.slide[rows].tolist())})",
                "Find out which is right, and correct the other or leave these rows out.",
            )


def _share_columns(models: Sequence[MatchedModel]) -> MatchedModel:
    """The baseline with the sites and columns that only others' tables have."""
    base = models[0].table
    columns: dict[str, Column] = {}
    for model in models:
        for column in model.table.subgroups:
            columns.setdefault(column.name, column)
    sites = [model.table.site for model in models if model.table.site is not None]
    table = replace(base, site=sites[0] if sites else None, subgroups=tuple(columns.values()))
    return replace(models[0], table=table)


def _refuse(what: str, mend: str) -> UsageError:
    return UsageError(f"The models cannot be compared: {what}.", mend=mend, code="E_TABLE")
