"""What a comparison of models says, as one frozen value that goes to JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import orjson

from slidetriage.models.evaluation import Interval
from slidetriage.models.evaluation.comparison import DeLong

from .report_values import Curve, GroupTable


@dataclass(frozen=True, slots=True)
class ModelFigure:
    """One figure of one model on what all models were tested on."""

    name: str
    value: Interval | None


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model, and what it was tested on."""

    name: str
    tested: int
    """Slides (or patients, where these are compared) of its test part."""
    left_out: int
    """Of these, the ones that not every model was tested on."""
    repeated: int
    """Of those compared, the ones with several test rows, whose scores are averaged."""
    folds: int
    seeds: int
    figures: tuple[ModelFigure, ...]
    roc: Curve | None
    """Sensitivity over 1 - specificity, of two classes."""


@dataclass(frozen=True, slots=True)
class FigureDifference:
    """One figure of a model beside that of the baseline."""

    name: str
    higher_is_better: bool
    baseline: float
    other: float
    difference: Interval
    """The other's minus the baseline's."""
    p: float
    """From the same resamples of patients."""
    p_adjusted: float
    """Holm's, over the comparisons by this figure."""
    told_apart: bool
    """Whether the interval leaves 0 out and the adjusted p-value is below 0.05."""
    said: str


@dataclass(frozen=True, slots=True)
class CallsTest:
    """McNemar's exact test of the calls at one threshold."""

    threshold: str
    only_baseline: int
    """Calls that the baseline alone has right."""
    only_other: int
    p: float
    p_adjusted: float


@dataclass(frozen=True, slots=True)
class PairFigures:
    """One model against the baseline."""

    baseline: str
    other: str
    differences: tuple[FigureDifference, ...]
    """The main one first."""
    delong: DeLong | None
    """None where a patient has several slides, or other than two classes are told apart."""
    delong_adjusted: float
    calls: tuple[CallsTest, ...]
    """Empty where a patient has several slides, or no classes are told apart."""
    groups: tuple[GroupTable, ...]
    """Differences in sites and subgroups; those too small to say have no figure."""


@dataclass(frozen=True, slots=True)
class ComparisonFigures:
    """Everything a comparison says."""

    schema_version: int
    notice: str
    title: str
    kind: str
    classes: tuple[str, ...]
    unit: str
    """What is compared one by one: `slide` or `patient`."""
    units: int
    patients: int
    counts: tuple[tuple[str, int], ...]
    """Name of each label, or of the event, and its units."""
    models: tuple[ModelFigures, ...]
    """The baseline first."""
    pairs: tuple[PairFigures, ...]
    said: tuple[str, ...]
    """The main figure of each pair in words."""
    limits: tuple[str, ...]
    """What the comparison cannot say, and what to beware of."""
    seed: int
    repeats: int

    def to_json(self) -> dict[str, object]:
        """As plain JSON values; what has no value is null."""
        return cast(dict[str, object], orjson.loads(orjson.dumps(self)))
