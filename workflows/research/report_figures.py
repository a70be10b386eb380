"""Every number of a validation report, measured from predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from slidetriage.errors import UsageError
from slidetriage.workflows.settings import RESEARCH_USE

from .predictions import Predictions, average_seeds
from .report_binary import measure_binary
from .report_classes import measure_classes, measure_number
from .report_groups import (
    measure_binary_groups,
    measure_class_groups,
    measure_number_groups,
    measure_survival_groups,
)
from .report_shares import Tested
from .report_survival import measure_survival
from .report_values import DataFigures, ReportFigures
from .report_words import list_limits, say_main

SCHEMA_VERSION = 1
REPEATS = 2000


def measure_report(
    predictions: Predictions,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    seed: int = 0,
    repeats: int = REPEATS,
) -> ReportFigures:
    """All figures on the test part; what is fitted is fitted on the validation part of the fold.

    Parameters
    ----------
    facts
        What the report opens with, such as the question and the head.
    repeats
        Resamples of patients for each interval; fewer are drawn for bands and groups.

    Raises
    ------
    UsageError
        Nothing was tested, or all that was tested has one label (E_TABLE).
    """
    table = average_seeds(predictions)
    tested = Tested.of(table, repeats=repeats, seed=seed)
    _check_spread(tested)
    binary = multiclass = number = survival = None
    if table.kind == "classes" and len(table.classes) == 2:
        test = measure_binary(tested)
        binary, groups = test.figures, measure_binary_groups(tested, test)
    elif table.kind == "classes":
        multiclass, groups = measure_classes(tested), measure_class_groups(tested)
    elif table.kind == "number":
        number, groups = measure_number(tested), measure_number_groups(tested)
    else:
        survival, groups = measure_survival(tested), measure_survival_groups(tested)
    data = _describe_data(predictions, tested)
    sections = (binary, multiclass, number, survival)
    return ReportFigures(
        schema_version=SCHEMA_VERSION,
        notice=RESEARCH_USE,
        title=title,
        facts=tuple((facts or {}).items()),
        kind=table.kind,
        data=data,
        binary=binary,
        multiclass=multiclass,
        number=number,
        survival=survival,
        groups=groups,
        said=say_main(data, *sections),
        limits=list_limits(data, groups, *sections),
        seed=seed,
        repeats=repeats,
    )


def _describe_data(predictions: Predictions, tested: Tested) -> DataFigures:
    table, rows = tested.table, tested.rows
    slides, patients = table.slide[rows], table.patient[rows]
    site = None if table.site is None else table.site[rows]
    counts: list[tuple[str, int, int]] = []
    names = table.classes if table.kind == "classes" else ()
    names = ("no event", "event") if table.kind == "survival" else names
    for number, name in enumerate(names):
        own = tested.truth == number
        counts.append((name, len(np.unique(slides[own])), len(np.unique(patients[own]))))
    reasons = Counter(row.reason for row in predictions.excluded)
    return DataFigures(
        slides=len(np.unique(slides)),
        patients=len(np.unique(patients)),
        rows=len(rows),
        sites=0 if site is None else len(set(site.tolist()) - {""}),
        folds=table.folds,
        seeds=len(np.unique(predictions.seed)),
        validation=all(len(fold.validation) for fold in tested.folds),
        classes=tuple(counts),
        excluded=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )


def _check_spread(tested: Tested) -> None:
    """One label, or no event, in all that was tested leaves nothing to measure."""
    table, truth = tested.table, tested.truth
    if table.kind == "survival":
        if not truth.any():
            raise UsageError(
                f"None of the {len(truth)} tested rows has an event.",
                mend="Bring more patients or a longer follow-up.",
                code="E_TABLE",
            )
    elif len(np.unique(truth)) < 2:
        label = table.classes[int(truth[0])] if table.kind == "classes" else f"{truth[0]:g}"
        raise UsageError(
            f"All {len(truth)} tested rows have the label {label}: there is nothing to tell apart.",
            mend="Bring rows of another label.",
            code="E_TABLE",
        )
