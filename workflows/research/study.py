"""One study as a value: whose slides, which features, which head, and how it is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.learning import (
    Classes,
    CovariateCoder,
    Cox,
    DiscreteTime,
    LabelledBags,
    Recipe,
    Regression,
    Target,
)

from .bags import BagSource
from .cohort import Cohort
from .matching import open_cohort_bags


@dataclass(frozen=True, slots=True)
class Method:
    """What is trained and how; equal methods on equal slides give equal weights."""

    head: str = "gated_attention"
    """One of `list_heads()`."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Of the head."""
    recipe: Recipe = field(default_factory=Recipe)
    survival: Literal["cox", "discrete"] = "cox"
    intervals: int = 4
    """Of time, for discrete survival."""
    balanced: bool = True
    """Whether every class counts the same in the loss."""
    standardised: bool = True
    """Whether features are standardised by those trained on."""
    covariates: bool = True
    """Whether the cohort's covariates are used, where it has some."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A cohort with its features and a method; a value that goes to workers."""

    cohort: Cohort
    features: Path | None
    """A folder or .npz; None where the cohort's table names a file for each slide."""
    encoder_name: str | None
    """What made the features, where they do not say."""
    method: Method

    @property
    def by_patient(self) -> bool:
        """Whether a bag is a patient, all slides joined: of survival, which slides do not have."""
        return self.cohort.target.kind == "survival"

    def units(self) -> tuple[NDArray[np.int64], ...]:
        """The rows of each bag, in the order of the cohort."""
        if not self.by_patient:
            return tuple(np.array([row]) for row in range(len(self.cohort)))
        rows: dict[str, list[int]] = {}
        for row, patient in enumerate(self.cohort.patients):
            rows.setdefault(patient, []).append(row)
        return tuple(np.array(each) for each in rows.values())

    def open(self) -> BagSource:
        """The features."""
        return open_cohort_bags(self.cohort, self.features, encoder_name=self.encoder_name)

    def key(self) -> str:
        """A hash of everything that decides what comes out of a training, but split and seed."""
        cohort, method = self.cohort, asdict(self.method)
        truth = [
            None if values is None else np.asarray(values).tolist()
            for values in (cohort.labels, cohort.times, cohort.events)
        ]
        columns = [(c.name, c.kind, [str(v) for v in c.values]) for c in cohort.covariates]
        facts: list[object] = [cohort.slides, cohort.patients, asdict(cohort.target), truth]
        facts += [columns, method, self.encoder_name, str(self.features)]
        facts += [str(path) for path in cohort.features or ()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def make_bags(study: Study, source: BagSource) -> LabelledBags:
    """The study's units as bags with their truth; covariates come by `encode_covariates`."""
    cohort, units = study.cohort, study.units()
    first = np.array([rows[0] for rows in units])

    def load(unit: int) -> NDArray[np.float32]:
        bags = [source.load(cohort.slides[row]).features for row in units[unit]]
        return bags[0] if len(bags) == 1 else np.concatenate(bags)

    if cohort.times is not None and cohort.events is not None:
        return LabelledBags(load, cohort.times[first], cohort.events[first])
    if cohort.labels is None:
        raise UsageError(
            "The table has no target.", mend="Name its label, or its time and event, columns."
        )
    labels = cohort.labels[first].astype(np.float64)
    return LabelledBags(load, labels, np.ones(len(labels), np.bool_))


def fit_covariates(study: Study, rows: NDArray[np.int64]) -> CovariateCoder | None:
    """What turns the cohort's covariates into numbers, fitted on some units; None without any."""
    columns = study.cohort.covariates
    if not columns or not study.method.covariates:
        return None
    return CovariateCoder.fit(_covariates_of(study, rows))


def encode_covariates(study: Study, coder: CovariateCoder) -> NDArray[np.float32]:
    """Units x C."""
    return coder.encode(_covariates_of(study, np.arange(len(study.units()))))


def fit_target(study: Study, bags: LabelledBags, rows: NDArray[np.int64]) -> Target:
    """The target, with class weights, mean and sd, or times of edges, from the units trained on."""
    kind, values = study.cohort.target.kind, bags.labels[rows]
    if kind == "survival":
        if study.method.survival == "cox":
            return Cox()
        return DiscreteTime.of(values, bags.events[rows], study.method.intervals)
    if kind == "number":
        return Regression.of(values)
    names = study.cohort.target.classes
    if study.method.balanced:
        return Classes.balanced(names, values.astype(np.int64))
    return Classes(names)


def _covariates_of(study: Study, units: NDArray[np.int64]) -> dict[str, list[float] | list[str]]:
    first = np.array([rows[0] for rows in study.units()])[units]
    return {column.name: column.values[first].tolist() for column in study.cohort.covariates}
