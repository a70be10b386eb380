"""Clinical columns beside the tiles: age, sex, mutations, as numbers a network can add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError

Column = Sequence[float] | Sequence[str] | Sequence[float | None] | Sequence[str | None]
"""One value for each row; None or NaN where it is not known."""


@dataclass(frozen=True, slots=True)
class NumericCovariate:
    """A number, standardised; where unknown it is 0 and a second column says so."""

    name: str
    mean: float
    sd: float

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        return (self.name, f"{self.name} unknown")

    def encode(self, values: Column) -> NDArray[np.float32]:
        """N values -> N x 2."""
        numbers = _numbers(self.name, values)
        known = np.isfinite(numbers)
        scaled = np.where(known, (numbers - self.mean) / self.sd, 0)
        return np.stack([scaled, ~known], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class CategoryCovariate:
    """One of several values; one never seen in training is unknown."""

    name: str
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what it becomes."""
        return (*(f"{self.name} = {value}" for value in self.values), f"{self.name} unknown")

    def encode(self, values: Column) -> NDArray[np.float32]:
        """N values -> N x (values + 1), one of them 1."""
        place = {value: index for index, value in enumerate(self.values)}
        chosen = [place.get(str(value), len(place)) for value in values]
        return np.eye(len(place) + 1, dtype=np.float32)[chosen]


@dataclass(frozen=True, slots=True)
class CovariateCoder:
    """What turns clinical columns into N x C numbers; fitted on rows to train on alone."""

    covariates: tuple[NumericCovariate | CategoryCovariate, ...]

    @classmethod
    def fit(cls, columns: Mapping[str, Column]) -> CovariateCoder:
        """Means, standard deviations and values of columns; text makes a category.

        Raises `UsageError` for a column that is empty or always the same.
        """
        return cls(tuple(_fit(name, values) for name, values in columns.items()))

    @property
    def columns(self) -> tuple[str, ...]:
        """C names, in order."""
        return tuple(column for part in self.covariates for column in part.columns)

    def encode(self, columns: Mapping[str, Column]) -> NDArray[np.float32]:
        """N x C; raises `UsageError` for a column that is missing."""
        parts = []
        for part in self.covariates:
            if part.name not in columns:
                raise UsageError(
                    f"The covariate {part.name!r} is missing.",
                    mend="Give the column that the model was trained with; cells may be empty.",
                )
            parts.append(part.encode(columns[part.name]))
        if not parts:
            raise UsageError("There are no covariates to encode.")
        return np.concatenate(parts, axis=1)


def _fit(name: str, values: Column) -> NumericCovariate | CategoryCovariate:
    known = [value for value in values if not _unknown(value)]
    if len(set(known)) < 2:
        raise UsageError(
            f"The covariate {name!r} is empty or always the same.", mend="Leave it out."
        )
    if any(isinstance(value, str) for value in known):
        return CategoryCovariate(name, tuple(sorted({str(value) for value in known})))
    numbers = _numbers(name, known)  # type: ignore[arg-type]  # no text is among them
    return NumericCovariate(name, float(numbers.mean()), float(numbers.std()))


def _numbers(name: str, values: Column) -> NDArray[np.float64]:
    try:
        return np.array([np.nan if _unknown(value) else float(value) for value in values])  # type: ignore[arg-type]  # None is unknown
    except ValueError as error:
        raise UsageError(
            f"The covariate {name!r} was a number in training ({error}).",
            mend="Correct the cell, or leave it empty.",
        ) from error


def _unknown(value: float | str | None) -> bool:
    return value is None or value == "" or (not isinstance(value, str) and not np.isfinite(value))
