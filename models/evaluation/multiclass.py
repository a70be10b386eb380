"""How well scores tell several classes apart: areas under curves, and who is taken for whom."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.models.trust.inputs import as_class_probabilities, as_classes, refuse

from .discrimination import auc


def multiclass_auc(
    label: ArrayLike, score: ArrayLike, *, average: Literal["macro", "weighted"] = "macro"
) -> float:
    """One-against-the-rest AUC over C classes, plain mean or weighted by the classes' counts.

    `score` is N x C probabilities, `label` N class numbers. Every class must occur.
    """
    table = as_class_probabilities(score)
    classes = as_classes(label, table.shape[1], count=len(table))
    counts = np.bincount(classes, minlength=table.shape[1])
    if (counts == 0).any():
        raise refuse(
            f"Class {int(np.argmin(counts))} has no rows, so its AUC has no value.",
            "Take rows of every class together, or leave the class out.",
        )
    areas = [auc(classes == c, table[:, c]) for c in range(table.shape[1])]
    return float(np.average(areas, weights=None if average == "macro" else counts))


def class_confusion(label: ArrayLike, score: ArrayLike) -> NDArray[np.int64]:
    """C x C counts: rows are true classes, columns the likeliest by N x C probabilities."""
    table = as_class_probabilities(score)
    width = table.shape[1]
    classes = as_classes(label, width, count=len(table))
    cell = classes * width + table.argmax(axis=1)
    return np.bincount(cell, minlength=width**2).reshape(width, width).astype(np.int64)


def class_balanced_accuracy(label: ArrayLike, score: ArrayLike) -> float:
    """Mean, over the classes that occur, of the share of a class that is taken for itself."""
    counts = class_confusion(label, score)
    total = counts.sum(axis=1)
    if not total.any():
        raise refuse("The table has no rows.", "Give at least one row.")
    return float(np.mean((np.diag(counts) / np.maximum(total, 1))[total > 0]))
