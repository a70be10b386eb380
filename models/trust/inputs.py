"""Checks of the columns handed to the evaluation: a bad one is named, with what to do about it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import UsageError

_LARGEST_OFF_ONE = 1e-3


def refuse(what: str, mend: str, code: str = "E_TABLE") -> UsageError:
    """The error for a table that cannot be evaluated; the caller raises it."""
    return UsageError(what, mend=mend, code=code)


def as_numbers(values: ArrayLike, name: str, *, count: int | None = None) -> NDArray[np.float64]:
    """`values` as N finite float64 numbers; `count` is the length the column must have."""
    column = _as_column(values, name, count)
    if column.dtype.kind not in "biuf":
        raise refuse(f"{name} holds {column.dtype}, not numbers.", "Give one number per row.")
    numbers = column.astype(np.float64)
    _refuse_rows(~np.isfinite(numbers), f"{name} is NaN or infinite")
    return numbers


def as_labels(
    values: ArrayLike, name: str = "label", *, count: int | None = None, both: bool = True
) -> NDArray[np.bool_]:
    """`values` as N booleans, True = positive; both values must be there unless `both` is False."""
    numbers = as_numbers(values, name, count=count)
    _refuse_rows((numbers != 0) & (numbers != 1), f"{name} is neither 0 nor 1")
    if both and (len(numbers) == 0 or numbers.min() == numbers.max()):
        held = f"only {numbers[0]:g}" if len(numbers) else "nothing"
        raise refuse(
            f"{name} holds {held}; this figure needs positives and negatives.",
            "Take rows of both classes together, or leave the figure out.",
        )
    return np.asarray(numbers == 1)


def as_probabilities(
    values: ArrayLike, name: str = "score", *, count: int | None = None
) -> NDArray[np.float64]:
    """`values` as N probabilities from 0 to 1."""
    numbers = as_numbers(values, name, count=count)
    _refuse_rows((numbers < 0) | (numbers > 1), f"{name} lies outside 0 to 1")
    return numbers


def as_classes(
    values: ArrayLike, classes: int, name: str = "label", *, count: int | None = None
) -> NDArray[np.int64]:
    """`values` as N class numbers from 0 to `classes` - 1."""
    numbers = as_numbers(values, name, count=count)
    odd = (numbers != np.floor(numbers)) | (numbers < 0) | (numbers >= classes)
    _refuse_rows(odd, f"{name} is not a class number from 0 to {classes - 1}")
    return numbers.astype(np.int64)


def as_class_probabilities(values: ArrayLike, name: str = "score") -> NDArray[np.float64]:
    """`values` as N x C probabilities whose rows sum to 1; N probabilities become N x 2.

    float32 softmax rows may miss 1 by a little; they are divided by their sum.
    """
    table = np.asarray(values)
    if table.ndim == 1:
        positive = as_probabilities(table, name)
        return np.stack([1 - positive, positive], axis=1)  # N x 2
    if table.ndim != 2 or table.shape[1] < 2:
        raise refuse(
            f"{name} has shape {table.shape}; N or N x C with C of at least 2 is needed.",
            "Give one row per slide and one column per class.",
        )
    flat = as_probabilities(table.ravel(), name).reshape(table.shape)
    total = flat.sum(axis=1)
    _refuse_rows(np.abs(total - 1) > _LARGEST_OFF_ONE, f"{name} does not sum to 1")
    return np.asarray(flat / total[:, None])


def as_names(values: ArrayLike, name: str, *, count: int | None = None) -> NDArray[np.str_]:
    """`values` as N strings without surrounding blanks; None and NaN become ""."""
    column = _as_column(np.asarray(values, dtype=object), name, count)
    return np.array([_as_name(value) for value in column], dtype=np.str_)


def as_patients(values: ArrayLike, *, count: int | None = None) -> NDArray[np.str_]:
    """`values` as N patient names, none missing."""
    names = as_names(values, "patient", count=count)
    _refuse_rows(names == "", "patient is missing")
    return names


def as_share(value: float, name: str) -> float:
    """`value`, strictly between 0 and 1."""
    if not 0 < value < 1:
        raise refuse(f"{name} is {value}.", "Give a number between 0 and 1, such as 0.95.")
    return float(value)


def _as_column(values: ArrayLike, name: str, count: int | None) -> NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1:
        raise refuse(f"{name} has shape {column.shape}.", "Give one value per row, in one axis.")
    if count is not None and len(column) != count:
        raise refuse(
            f"{name} has {len(column)} rows where the table has {count}.",
            "Give every column the same rows in the same order.",
        )
    return column


def _as_name(value: object) -> str:
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return ""
    return str(value).strip()


def _refuse_rows(odd: NDArray[np.bool_], what: str) -> None:
    rows = np.flatnonzero(odd)
    if len(rows):
        raise refuse(
            f"{what} in {len(rows)} of {len(odd)} rows, first in row {rows[0]} (from 0).",
            "Correct these rows or leave them out.",
        )
