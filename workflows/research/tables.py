"""A researcher's table of slides: read from CSV, checked row by row, made into a cohort."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from slidetriage.errors import UsageError

from .bags import slide_name
from .cohort import Cohort, Target
from .table_reading import Table, list_some

Excusable = Literal["unlabelled", "other-label", "no-features"]
"""Rows that may be left out if the user says so; they stay in the report with their reason."""

MOST_CLASSES = 50


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What the columns of the table are called; None where there is none."""

    slide: str | None = "slide"
    """Path or name of the slide; None to call it as its features."""
    features: str | None = None
    """Path of the slide's features, relative to the table."""
    patient: str | None = "patient"
    """None where nothing is learned or tested: each slide is then taken for a patient."""
    site: str | None = None
    label: str | None = None
    time: str | None = None
    """Time to the event or to the end of follow-up."""
    event: str | None = None
    """Whether the event was seen: 1, 0, true, false, yes, no, `1:DECEASED`."""
    censored: str | None = None
    """The opposite of `event`, for tables that say it that way round."""
    split: str | None = None
    """train, val or test."""
    fold: str | None = None
    """Number or name of the fold in which the slide is tested."""
    covariates: tuple[str, ...] = ()
    """Columns fused late, as numbers or categories."""
    subgroups: tuple[str, ...] = ()
    """Columns by which the report is broken down."""


def read_cohort(
    path: Path,
    names: ColumnNames | None = None,
    target: Target | None = None,
    *,
    excuse: Collection[Excusable] = (),
) -> Cohort:
    """Read and check a table of slides.

    Parameters
    ----------
    path
        CSV with a header, parted by commas, semicolons or tabs.
    excuse
        Kinds of rows to leave out, with their reason, rather than to stop at.

    Raises
    ------
    UsageError
        The table cannot be read or says something that cannot be (E_TABLE); the message names the
        rows by their line in the file, of which the header is the first.
    """
    names, target = names or ColumnNames(), target or Target()
    table = Table.read(path)
    slides = _read_slides(table, names)
    patients = table.filled(names.patient) if names.patient else slides
    _check_each_slide_once(table, slides)
    cohort = Cohort(
        source=path,
        rows=table.rows,
        slides=slides,
        patients=patients,
        target=target,
        sites=table.filled(names.site) if names.site else None,
        features=_feature_paths(table, names.features),
        splits=_apart(table, names.split, patients, table.parts),
        folds=_apart(table, names.fold, patients, table.filled),
        covariates=tuple(table.column(name) for name in names.covariates),
        subgroups=tuple(table.column(name) for name in names.subgroups),
    )
    if target.kind == "none":
        return cohort
    if target.kind == "survival":
        return _with_survival(cohort, table, names, excuse)
    return _with_labels(cohort, table, names, excuse)


def _with_labels(
    cohort: Cohort, table: Table, names: ColumnNames, excuse: Collection[Excusable]
) -> Cohort:
    if names.label is None:
        raise UsageError("No column holds the label.", mend="Name it with --label-column.")
    texts = table.texts(names.label)
    reasons = _excuse(
        table, [not text for text in texts], f"no {names.label!r}", "unlabelled", excuse
    )
    if cohort.target.kind == "number":
        values = table.numbers(names.label)
        cohort = replace(cohort, labels=values).exclude(reasons)
        _check_spread(table, names.label, {str(value) for value in cohort.labels_seen()})
        return cohort
    classes = cohort.target.classes or tuple(sorted(set(texts) - {""}))
    if len(classes) > MOST_CLASSES:
        raise table.error(
            f"{names.label!r} has {len(classes)} different values",
            "Ask for regression to learn a number, or name the classes with --classes.",
        )
    other = [bool(text) and text not in classes for text in texts]
    what = f"a {names.label!r} that is none of {', '.join(classes)}"
    reasons |= _excuse(table, other, what, "other-label", excuse, values=texts)
    number = {name: place for place, name in enumerate(classes)}
    labels = np.array([number.get(text, -1) for text in texts], np.int64)
    cohort = replace(cohort, labels=labels, target=replace(cohort.target, classes=classes))
    cohort = cohort.exclude(reasons)
    _check_spread(table, names.label, {classes[int(place)] for place in cohort.labels_seen()})
    return cohort


def _with_survival(
    cohort: Cohort, table: Table, names: ColumnNames, excuse: Collection[Excusable]
) -> Cohort:
    event_column = names.event or names.censored
    if names.time is None or event_column is None:
        raise UsageError(
            "Survival needs a time and whether the event was seen.",
            mend="Name them with --time-column and --event-column (or --censored-column).",
        )
    times, seen = table.numbers(names.time), table.flags(event_column)
    timeless, unknown = np.isnan(times), np.isnan(seen)
    neither = (timeless & unknown).tolist()
    what = f"neither {names.time!r} nor {event_column!r}"
    reasons = _excuse(table, neither, what, "unlabelled", excuse)
    table.refuse(timeless & ~unknown, f"{event_column!r} without {names.time!r}")
    table.refuse(unknown & ~timeless, f"{names.time!r} without {event_column!r}")
    table.refuse(times < 0, f"a negative {names.time!r}")
    events = (seen == 1) if names.event else (seen == 0)
    cohort = replace(cohort, times=times, events=events).exclude(reasons)
    _check_one_outcome_each(table, cohort)
    if cohort.events is None or not cohort.events.any():
        raise table.error("no row has an event", "Check --event-column and --censored-column.")
    return cohort


def _excuse(
    table: Table,
    wrong: list[bool],
    what: str,
    kind: Excusable,
    excuse: Collection[Excusable],
    *,
    values: tuple[str, ...] | None = None,
) -> dict[int, str]:
    """Reasons by index of row where the user agreed to leave them out; an error where not."""
    found = [index for index, is_wrong in enumerate(wrong) if is_wrong]
    if found and kind not in excuse:
        seen = f" ({list_some(sorted({values[i] for i in found}))})" if values else ""
        table.refuse(
            np.array(wrong),
            f"{what}{seen}",
            f"Correct them, or leave such rows out with --exclude {kind}.",
        )
    return {i: f"has {what}" + (f": {values[i]}" if values else "") for i in found}


def _check_each_slide_once(table: Table, slides: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    twice = [first.setdefault(slide, place) != place for place, slide in enumerate(slides)]
    if any(twice):
        named = list_some(dict.fromkeys(s for s, again in zip(slides, twice, strict=True) if again))
        table.refuse(
            np.array(twice), f"a slide that was named before ({named})", "Keep one row per slide."
        )


def _apart(
    table: Table,
    name: str | None,
    patients: tuple[str, ...],
    read: Callable[[str], tuple[str, ...]],
) -> tuple[str, ...] | None:
    """The given split or fold of each row; no patient may stand in two."""
    if name is None:
        return None
    parts = read(name)
    home: dict[str, str] = {}
    strayed = [
        home.setdefault(patient, part) != part
        for patient, part in zip(patients, parts, strict=True)
    ]
    if any(strayed):
        named = list_some(
            dict.fromkeys(p for p, is_out in zip(patients, strayed, strict=True) if is_out)
        )
        table.refuse(
            np.array(strayed),
            f"a patient in a second {name!r} ({named})",
            "All slides of a patient belong into one, or what is tested was learned from.",
        )
    return parts


def _check_one_outcome_each(table: Table, cohort: Cohort) -> None:
    """A patient dies once: its slides must agree on it."""
    assert cohort.times is not None  # of survival
    assert cohort.events is not None
    home: dict[str, tuple[float, bool]] = {}
    outcomes = zip(cohort.times.tolist(), cohort.events.tolist(), strict=True)
    differing = [
        int(row)
        for row, patient, outcome in zip(cohort.rows, cohort.patients, outcomes, strict=True)
        if home.setdefault(patient, outcome) != outcome
    ]
    if differing:
        raise table.error(
            f"rows {list_some(differing)} give a patient a second time or event",
            "Give all slides of a patient the same.",
        )


def _check_spread(table: Table, name: str, values: set[str]) -> None:
    if len(values) < 2:
        said = f"only the value {next(iter(values))}" if values else "no value at all"
        raise table.error(
            f"{name!r} has {said}: there is nothing to tell apart",
            "Check the column, --classes, and what was left out.",
        )


def _read_slides(table: Table, names: ColumnNames) -> tuple[str, ...]:
    if names.slide is not None:
        return table.filled(names.slide)
    if names.features is None:
        raise UsageError(
            "No column holds the slides.", mend="Name --slide-column or --features-column."
        )
    return tuple(slide_name(path) for path in table.filled(names.features))


def _feature_paths(table: Table, name: str | None) -> tuple[Path, ...] | None:
    if name is None:
        return None
    return tuple(table.path.parent / text for text in table.filled(name))
