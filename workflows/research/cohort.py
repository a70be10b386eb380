"""The slides of a study as one value: who, what is to be learned, and what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TargetKind = Literal["classes", "number", "survival", "none"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be learned from the table."""

    kind: TargetKind = "classes"
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers, the positive one last of two; sorted if not given."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column beside the target."""

    name: str
    kind: Literal["number", "category"]
    values: NDArray[np.float64] | NDArray[np.str_]
    """Per row: float64 with NaN where nothing is said, or text with "" there."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories there are, sorted; none of a column of numbers."""
        return (
            tuple(sorted({str(v) for v in self.values} - {""})) if self.kind == "category" else ()
        )


@dataclass(frozen=True, slots=True)
class ExcludedRow:
    """A row that is not learned from or tested on, and why."""

    row: int
    """Line of the file, counted from 1."""
    slide: str
    patient: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """The slides of a study, one per row, all of them usable."""

    source: Path
    rows: NDArray[np.int64]
    """Line of the file for each slide, counted from 1."""
    slides: tuple[str, ...]
    patients: tuple[str, ...]
    target: Target
    labels: NDArray[np.int64] | NDArray[np.float64] | None = None
    """Index into `target.classes`, or the number to be predicted."""
    times: NDArray[np.float64] | None = None
    events: NDArray[np.bool_] | None = None
    sites: tuple[str, ...] | None = None
    features: tuple[Path, ...] | None = None
    splits: tuple[str, ...] | None = None
    folds: tuple[str, ...] | None = None
    covariates: tuple[Column, ...] = ()
    subgroups: tuple[Column, ...] = ()
    excluded: tuple[ExcludedRow, ...] = ()

    def __len__(self) -> int:
        return len(self.slides)

    def labels_seen(self) -> list[float]:
        """The different labels there are, sorted."""
        return [] if self.labels is None else np.unique(self.labels).tolist()

    def take(self, index: NDArray[np.int64] | Sequence[int]) -> Cohort:
        """The cohort of these rows in this order; what was excluded stays known."""
        at = np.asarray(index, np.int64)

        def pick(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if values is None else tuple(values[i] for i in at)

        def pick_columns(columns: tuple[Column, ...]) -> tuple[Column, ...]:
            return tuple(replace(column, values=column.values[at]) for column in columns)

        return replace(
            self,
            rows=self.rows[at],
            slides=pick(self.slides) or (),
            patients=pick(self.patients) or (),
            labels=None if self.labels is None else self.labels[at],
            times=None if self.times is None else self.times[at],
            events=None if self.events is None else self.events[at],
            sites=pick(self.sites),
            features=None if self.features is None else tuple(self.features[i] for i in at),
            splits=pick(self.splits),
            folds=pick(self.folds),
            covariates=pick_columns(self.covariates),
            subgroups=pick_columns(self.subgroups),
        )

    def exclude(self, reasons: Mapping[int, str]) -> Cohort:
        """The cohort without some rows, by index, each of which is kept with its reason."""
        gone = tuple(
            ExcludedRow(int(self.rows[i]), self.slides[i], self.patients[i], reason)
            for i, reason in sorted(reasons.items())
        )
        left = self.take([i for i in range(len(self)) if i not in reasons])
        return replace(left, excluded=(*self.excluded, *gone))
