"""Telling nuclei apart by what was learned from labelled ones, kept as plain numbers."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.fields import read_fields, write_fields

from .abnormality import Columns
from .measuring import (
    AREA,
    CONTRAST,
    ELLIPSE_DEVIATION,
    MAX_DIAMETER,
    MIN_DIAMETER,
    NEAREST,
    NEAREST_3,
    PERIMETER,
)
from .reference import robust_standard
from .table import Assessment

PALETTE = (
    (78, 121, 167),
    (225, 87, 33),
    (89, 161, 79),
    (176, 122, 161),
    (237, 201, 72),
    (118, 183, 178),
    (156, 117, 95),
)
"""Colours of classes in their order, again from the start after the last."""

FEWEST = 10
"""Labelled nuclei that a class needs."""

_LOGARITHMIC = {
    AREA,
    CONTRAST,
    ELLIPSE_DEVIATION,
    MAX_DIAMETER,
    MIN_DIAMETER,
    NEAREST,
    NEAREST_3,
    PERIMETER,
}
_FURTHEST = 5.0
_LEAST_NAMED = 0.1
_ROWS = 65_536
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class NucleusClassifier:
    """Multinomial logistic regression on F standardised measurements; an `Assessor`.

    The abnormality is the probability of the abnormal classes together. Reasons are the
    measurements that add most to its log odds.
    """

    features: tuple[str, ...]
    """Names of the measurements."""
    logarithmic: tuple[bool, ...]
    """Whether the logarithm of each is taken."""
    middle: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    """Classes x F."""
    bias: tuple[float, ...]
    class_names: tuple[str, ...]
    class_colors: tuple[tuple[int, int, int], ...]
    abnormal: tuple[int, ...]
    """Numbers of the classes whose nuclei are flagged."""
    threshold: float = 0.5
    """A nucleus is flagged from this probability of the abnormal classes."""

    def __post_init__(self) -> None:
        width, classes = len(self.features), len(self.class_names)
        wide = {len(self.logarithmic), len(self.middle), len(self.scale), *map(len, self.weights)}
        deep = {len(self.weights), len(self.bias), len(self.class_colors)}
        if wide != {width} or deep != {classes} or not 1 <= width <= 63:
            raise ModelError("The classifier's tables do not fit together.", mend=_FIT_AGAIN)
        numbers = [*self.middle, *self.bias, *(w for row in self.weights for w in row)]
        if not (np.isfinite(numbers).all() and min(self.scale) > 0):
            raise ModelError("A number of the classifier is impossible.", mend=_FIT_AGAIN)
        if not 0 < len(set(self.abnormal)) < classes or set(self.abnormal) - set(range(classes)):
            raise ModelError("The classifier tells nothing abnormal from the rest.")

    def assess(self, measurements: Columns) -> Assessment:
        """Assess N nuclei by their measurements."""
        missing = [name for name in self.features if name not in measurements]
        if missing:
            raise ModelError(
                f"The classifier needs {missing[0]!r}, which was not measured.", mend=_FIT_AGAIN
            )
        count = len(measurements[self.features[0]])
        abnormality, classes = np.empty(count, np.float32), np.empty(count, np.uint8)
        flagged, reasons = np.empty(count, np.bool_), np.empty((count, 3), np.int8)
        for first in range(0, count, _ROWS):
            part = slice(first, first + _ROWS)
            z = self._standardise(measurements, part)
            unknown = np.isnan(z).all(axis=1)
            z[np.isnan(z)] = 0
            score = softmax(z @ np.array(self.weights).T + self.bias, axis=1)
            odd = np.isin(np.arange(len(self.class_names)), self.abnormal)
            risk = score[:, odd].sum(axis=1)
            flagged[part] = (risk >= self.threshold) & ~unknown
            # The class shown agrees with the flag.
            allowed = odd == flagged[part, None]
            classes[part] = np.where(allowed, score, -1).argmax(axis=1)
            abnormality[part] = np.where(unknown, np.nan, risk)
            reasons[part] = self._explain(z, score, odd)
        names = tuple(f"{name} {way}" for name in self.features for way in ("high", "low"))
        return Assessment(
            abnormality, classes, self.class_names, self.class_colors, flagged, reasons, names
        )

    def to_json(self) -> dict[str, object]:
        """As plain JSON values."""
        plain = write_fields(self)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, plain: object) -> NucleusClassifier:
        """Back from `to_json`; raises ModelError for anything else."""
        return read_fields(cls, plain, where="classifier")

    def _standardise(self, measurements: Columns, part: slice) -> NDArray[np.float64]:
        values = _gather(measurements, self.features, self.logarithmic, part)
        z = (values - self.middle) / self.scale
        return np.asarray(np.clip(z, -_FURTHEST, _FURTHEST))

    def _explain(
        self, z: NDArray[np.float64], score: NDArray[np.float64], odd: NDArray[np.bool_]
    ) -> NDArray[np.int8]:
        """N x 3; what raises the log odds of the abnormal classes, linear around the nucleus."""
        share = np.where(odd, score, -score)
        for group in (odd, ~odd):
            share[:, group] /= np.maximum(score[:, group].sum(axis=1, keepdims=True), 1e-12)
        added = (share @ np.array(self.weights)) * z  # n x F
        order = np.argsort(-added, axis=1, kind="stable")[:, :3]
        low = np.take_along_axis(z, order, axis=1) < 0
        named = np.take_along_axis(added, order, axis=1) >= _LEAST_NAMED
        found = np.full((len(z), 3), -1, np.int8)
        found[:, : order.shape[1]] = np.where(named, 2 * order + low, -1)
        return found


def fit_classifier(
    measurements: Columns,
    labels: Sequence[str],
    abnormal: Collection[str],
    *,
    features: Sequence[str] | None = None,
) -> NucleusClassifier:
    """Learn to tell N labelled nuclei apart; those of the `abnormal` classes will be flagged.

    Each class counts alike however many nuclei it has. `features` are all measurements unless
    given; those that never vary are left out.

    Raises `UsageError` where there are fewer than two classes, a class has fewer than ten nuclei,
    or `abnormal` is none or all of them.
    """
    from sklearn.linear_model import LogisticRegression

    names, target = _check_labels(labels, abnormal)
    wanted = list(features if features is not None else measurements)
    unknown = [name for name in wanted if name not in measurements]
    if unknown:
        raise UsageError(f"There is no measurement {unknown[0]!r}.", mend="Name those measured.")
    logarithmic = [name in _LOGARITHMIC for name in wanted]
    values = _gather(measurements, wanted, logarithmic, slice(None))
    if len(values) != len(target):
        raise UsageError(f"{len(target)} labels were given for {len(values)} nuclei.")
    # Of a column that is all NaN both are NaN, which compares as not varied.
    most, least = np.fmax.reduce(values, axis=0), np.fmin.reduce(values, axis=0)
    varied = most > least
    if not varied.any():
        raise UsageError("No measurement differs between the nuclei.", mend="Label others too.")
    values, kept = values[:, varied], np.flatnonzero(varied)
    usual = robust_standard(values, np.ones(len(values)), np.nanstd(values, axis=0) / 4 + 1e-9)
    z = np.clip((values - usual.middle) / usual.scale, -_FURTHEST, _FURTHEST)
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    model.fit(np.where(np.isfinite(z), z, 0), target)
    weights, bias = model.coef_, model.intercept_
    if len(names) == 2:
        weights, bias = np.vstack([0 * weights, weights]), np.append(0 * bias, bias)
    return NucleusClassifier(
        features=tuple(wanted[i] for i in kept),
        logarithmic=tuple(logarithmic[i] for i in kept),
        middle=usual.middle,
        scale=usual.scale,
        weights=tuple(tuple(map(float, row)) for row in weights),
        bias=tuple(map(float, bias)),
        class_names=tuple(names),
        class_colors=tuple(PALETTE[i % len(PALETTE)] for i in range(len(names))),
        abnormal=tuple(i for i, name in enumerate(names) if name in abnormal),
    )


def write_classifier(classifier: NucleusClassifier, path: Path) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(classifier.to_json(), indent=1) + "\n")


def read_classifier(path: Path) -> NucleusClassifier:
    """Read what `write_classifier` wrote; raises `ModelError` for anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ModelError(f"{path.name} is too large for a classifier.")
        plain = json.loads(text)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path.name} is not JSON: {error}.", mend=_FIT_AGAIN) from error
    return NucleusClassifier.from_json(plain)


def _check_labels(
    labels: Sequence[str], abnormal: Collection[str]
) -> tuple[list[str], NDArray[np.intp]]:
    """Class names with the unremarkable ones first, and the number of each nucleus's class."""
    found, target, counts = np.unique(
        np.asarray(labels, np.str_), return_inverse=True, return_counts=True
    )
    names = [str(name) for name in found]
    missing = sorted(set(abnormal) - set(names))
    if missing:
        raise UsageError(f"No nucleus is labelled {missing[0]!r}.", mend="Check the class names.")
    if not 0 < len(set(abnormal)) < len(names):
        raise UsageError(
            f"Of the classes {', '.join(names) or '(none)'}, {len(set(abnormal))} are abnormal.",
            mend="Label both abnormal and other nuclei, and say which classes are abnormal.",
        )
    if counts.min() < FEWEST:
        few = int(counts.argmin())
        raise UsageError(
            f"The class {names[few]!r} has {counts[few]} nuclei; {FEWEST} are needed.",
            mend="Label more of them, or leave the class out.",
        )
    order = sorted(range(len(names)), key=lambda i: (names[i] in abnormal, names[i]))
    place = np.argsort(order)
    return [names[i] for i in order], place[target]


def _gather(
    measurements: Columns, names: Sequence[str], logarithmic: Sequence[bool], part: slice
) -> NDArray[np.float64]:
    """N x F; NaN where a value is not known, or has no logarithm."""
    columns = []
    for name, log in zip(names, logarithmic, strict=True):
        column = np.asarray(measurements[name][part], np.float64)
        if log:
            column = np.log(column, where=column > 0, out=np.full(len(column), np.nan))
        columns.append(np.where(np.isfinite(column), column, np.nan))
    return np.stack(columns, axis=1)


_FIT_AGAIN = "Fit it again with this version."
