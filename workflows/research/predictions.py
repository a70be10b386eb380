"""What models said of slides they did not learn from, beside the truth; reports are of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import check_splits

from .cohort import Column, ExcludedRow
from .study import Study
from .table_reading import list_some
from .trainings import Outcome

Kind: TypeAlias = Literal["classes", "number", "survival"]
Names: TypeAlias = NDArray[np.str_]
Numbers: TypeAlias = NDArray[np.float64]

VALIDATION, TEST = "validation", "test"

_LARGEST_OFF_ONE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """N predictions, each of one slide (of survival: one patient) in one fold from one seed.

    Raises UsageError where rows contradict one another (E_TABLE), or where a patient stands in the
    validation and in the test part of one fold (E_SPLIT).
    """

    kind: Kind
    classes: tuple[str, ...]
    """The positive one last of two; empty unless `kind` is "classes"."""
    slide: Names
    patient: Names
    fold: Names
    seed: NDArray[np.int64]
    part: Names
    """"validation" (thresholds and calibration are fitted there) or "test"."""
    score: Numbers
    """N x P: probabilities of classes, one value, or one risk (higher is worse)."""
    label: Numbers | None = None
    """Number of the class, or the true value."""
    time: Numbers | None = None
    event: NDArray[np.bool_] | None = None
    site: Names | None = None
    subgroups: tuple[Column, ...] = ()
    excluded: tuple[ExcludedRow, ...] = ()

    def __post_init__(self) -> None:
        _check_columns(self)
        _check_truth(self)
        _check_rows(self)

    def __len__(self) -> int:
        return len(self.slide)

    @property
    def folds(self) -> tuple[str, ...]:
        """Folds with a test part, in order of their numbers."""
        return tuple(sorted(set(self.fold[self.part == TEST].tolist()), key=_natural))

    def rows(self, fold: str, part: str) -> NDArray[np.intp]:
        """Row numbers of one part of one fold."""
        return np.flatnonzero((self.fold == fold) & (self.part == part))

    def take(self, index: NDArray[np.intp]) -> Predictions:
        """These rows, in this order; what was excluded stays known."""
        return replace(
            self,
            slide=self.slide[index],
            patient=self.patient[index],
            fold=self.fold[index],
            seed=self.seed[index],
            part=self.part[index],
            score=self.score[index],
            label=None if self.label is None else self.label[index],
            time=None if self.time is None else self.time[index],
            event=None if self.event is None else self.event[index],
            site=None if self.site is None else self.site[index],
            subgroups=tuple(replace(c, values=c.values[index]) for c in self.subgroups),
        )


def from_outcomes(study: Study, outcomes: Sequence[Outcome]) -> Predictions:
    """The predictions of a study's trainings; a unit of several slides has its first's columns.

    Covariates become columns to break the report down by, as subgroups are.
    """
    if not outcomes:
        raise UsageError("There are no trainings to report on.", mend="Train first.")
    cohort = study.cohort
    first = np.array([rows[0] for rows in study.units()])
    pieces = [
        (outcome, part, units, scores)
        for outcome in outcomes
        for part, units, scores in (
            (VALIDATION, outcome.validation, outcome.validation_predictions),
            (TEST, outcome.test, outcome.predictions),
        )
    ]
    row = first[np.concatenate([units for _, _, units, _ in pieces])]  # N, of the cohort
    lengths = [len(units) for _, _, units, _ in pieces]
    columns = {c.name: c for c in (*cohort.covariates, *cohort.subgroups) if c.name != "site"}
    kind = cohort.target.kind
    if kind == "none":
        raise UsageError("The table has no target.", mend="Name its label, or time and event.")
    return Predictions(
        kind=kind,
        classes=cohort.target.classes,
        slide=np.array(cohort.slides)[row],
        patient=np.array(cohort.patients)[row],
        fold=np.repeat([outcome.name for outcome, *_ in pieces], lengths),
        seed=np.repeat(np.array([outcome.seed for outcome, *_ in pieces], np.int64), lengths),
        part=np.repeat([part for _, part, _, _ in pieces], lengths),
        score=np.concatenate([_as_table(scores) for *_, scores in pieces if len(scores)]),
        label=None if cohort.labels is None else cohort.labels[row].astype(np.float64),
        time=None if cohort.times is None else cohort.times[row],
        event=None if cohort.events is None else cohort.events[row],
        site=None if cohort.sites is None else np.array(cohort.sites)[row],
        subgroups=tuple(replace(c, values=c.values[row]) for c in columns.values()),
        excluded=cohort.excluded,
    )


def average_seeds(predictions: Predictions) -> Predictions:
    """One row for each slide in each part of each fold, with the mean score over the seeds."""
    keys = _keys(predictions)
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # as rows stood
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    member = rank[number]
    total = np.zeros((len(first), predictions.score.shape[1]))
    np.add.at(total, member, predictions.score)
    mean = total / np.bincount(member)[:, None]
    kept = predictions.take(first[order])
    return replace(kept, score=mean, seed=np.zeros(len(first), np.int64))


def _keys(predictions: Predictions, *more: NDArray[np.int64]) -> Names:
    """One text for each row that tells slides, parts and folds apart."""
    columns = (predictions.fold, predictions.part, predictions.patient, predictions.slide, *more)
    return np.array(["\0".join(map(str, row)) for row in zip(*columns, strict=True)])


def _as_table(scores: Numbers) -> Numbers:
    return scores[:, None] if scores.ndim == 1 else scores


def _natural(name: str) -> tuple[str, int, str]:
    """Sorts `fold 2` before `fold 10`."""
    words, _, number = name.rpartition(" ")
    return (words, int(number), "") if number.isdecimal() else (name, -1, "")


def _check_columns(p: Predictions) -> None:
    columns: dict[str, NDArray[Any] | None] = {
        "patient": p.patient, "fold": p.fold, "seed": p.seed, "part": p.part, "score": p.score,
        "label": p.label, "time": p.time, "event": p.event, "site": p.site,
    }  # fmt: skip
    columns |= {column.name: column.values for column in p.subgroups}
    for name, values in columns.items():
        if values is not None and len(values) != len(p.slide):
            raise _refuse(f"{name} has {len(values)} rows where slide has {len(p.slide)}")
    if p.score.ndim != 2 or not np.isfinite(p.score).all():
        rows = np.flatnonzero(~np.isfinite(p.score).reshape(len(p.slide), -1).all(axis=1))
        raise _refuse(f"the score is NaN or infinite in {_of_slides(p, rows)}")
    width = len(p.classes) if p.kind == "classes" else 1
    if p.score.shape[1] != width:
        raise _refuse(f"there are {p.score.shape[1]} scores per row where {width} belong")
    if p.kind != "classes":
        return
    if width < 2:
        raise _refuse("there are fewer than two classes")
    off = np.abs(p.score.sum(axis=1) - 1) > _LARGEST_OFF_ONE
    wrong = np.flatnonzero(off | (p.score < 0).any(axis=1) | (p.score > 1).any(axis=1))
    if len(wrong):
        raise _refuse(
            f"the scores are no probabilities that sum to 1 in {_of_slides(p, wrong)}",
            "Turn logits into probabilities first.",
        )


def _check_truth(p: Predictions) -> None:
    if p.kind == "survival":
        if p.time is None or p.event is None:
            raise _refuse("survival needs a time and an event for each row")
        wrong = np.flatnonzero(~np.isfinite(p.time) | (p.time < 0))
        if len(wrong):
            raise _refuse(f"the time is missing or negative in {_of_slides(p, wrong)}")
        return
    if p.label is None:
        raise _refuse("there are no labels")
    wrong = np.flatnonzero(~np.isfinite(p.label))
    if len(wrong):
        raise _refuse(f"the label is missing in {_of_slides(p, wrong)}")
    outside = ~np.isin(p.label, np.arange(len(p.classes)))
    if p.kind == "classes" and outside.any():
        raise _refuse(
            f"the label is of no class in {_of_slides(p, np.flatnonzero(outside))}",
        )


def _check_rows(p: Predictions) -> None:
    missing = np.flatnonzero((p.patient == "") | (p.slide == "") | (p.fold == ""))
    if len(missing):
        raise _refuse(f"the slide, patient or fold is missing in {_of_slides(p, missing)}")
    strange = sorted(set(p.part.tolist()) - {VALIDATION, TEST})
    if strange:
        raise _refuse(f"the part {strange[0]!r} is neither {VALIDATION} nor {TEST}")
    keys, counts = np.unique(_keys(p, p.seed), return_counts=True)
    if (counts > 1).any():
        fold, part, _, slide, seed = str(keys[counts > 1][0]).split("\0")
        raise _refuse(
            f"slide {slide} is predicted twice in {fold} ({part}, seed {seed})",
            "Keep one row, or name the fold and the seed of each.",
        )
    for fold in set(p.fold.tolist()):
        parts = {part: p.patient[p.rows(fold, part)] for part in (VALIDATION, TEST)}
        check_splits({f"the {part} part of {fold}": names for part, names in parts.items()})
    _check_one_truth_each(p)


def _check_one_truth_each(p: Predictions) -> None:
    """A slide has one label, and is of one patient, in whatever fold it stands."""
    truth = p.label if p.label is not None else p.time
    assert truth is not None  # one of the two was asked for
    event = np.zeros(len(p), np.bool_) if p.event is None else p.event
    home: dict[str, tuple[str, float, bool]] = {}
    columns = (p.slide.tolist(), p.patient.tolist(), truth.tolist(), event.tolist())
    for slide, *said in zip(*columns, strict=True):
        told = (str(said[0]), float(said[1]), bool(said[2]))
        if home.setdefault(slide, told) != told:
            raise _refuse(f"slide {slide} has two patients or two truths")


def _of_slides(p: Predictions, rows: NDArray[np.intp]) -> str:
    """How many rows, and of which slides."""
    named = list_some(dict.fromkeys(p.slide[rows].tolist()))
    return f"{len(rows)} of {len(p.slide)} rows (slide {named})"


def _refuse(what: str, mend: str = "Correct these rows or leave them out.") -> UsageError:
    return UsageError(f"The predictions cannot be used: {what}.", mend=mend, code="E_TABLE")
