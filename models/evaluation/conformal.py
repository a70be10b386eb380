"""Split conformal prediction: rules with a stated error rate from held-out rows."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.models.trust import ConformalRule
from slidetriage.models.trust.inputs import as_class_probabilities, as_classes, as_share, refuse


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often the set held the true class."""

    rows: int
    overall: float
    by_class: tuple[float, ...]
    """NaN for a class without rows."""
    single_share: float
    """Rows whose set holds one class."""
    abstained_share: float
    """The other rows: empty set, or several classes."""
    single_error: float
    """Share of wrong ones among the sets of one class; NaN without any. No rate is promised."""


def fit_conformal(
    label: ArrayLike, score: ArrayLike, *, error_rate: float, label_conditional: bool = False
) -> ConformalRule:
    """Thresholds from held-out rows, by MAPIE with the LAC score (Sadinle et al. 2019).

    Parameters
    ----------
    label, score
        N labels with N probabilities, or N class numbers with N x C. Held out from training,
        one row per patient: rows of one patient are not exchangeable with those of others.
    error_rate
        Share of sets that may miss the true class, such as 0.05.
    label_conditional
        Promise it within each class (Mondrian; Vovk 2012), not only on the whole. Where
        positives are few this is what keeps them from being missed.

    Raises
    ------
    UsageError
        Also where there are fewer than 1 / error_rate rows, of each class if label-conditional.
    """
    rate = as_share(error_rate, "error_rate")
    table = as_class_probabilities(score)
    classes = as_classes(label, table.shape[1], count=len(table))
    counts = np.bincount(classes, minlength=table.shape[1])
    if label_conditional:
        levels = [
            _threshold(classes[classes == c], table[classes == c], rate, f"Class {c}")
            for c in range(table.shape[1])
        ]
    else:
        levels = [_threshold(classes, table, rate, "The table")] * table.shape[1]
    return ConformalRule(tuple(levels), rate, label_conditional, tuple(counts.tolist()))


def coverage(label: ArrayLike, sets: NDArray[np.bool_]) -> Coverage:
    """How often each of N sets (N x C) holds the true class of N."""
    classes = as_classes(label, sets.shape[1], count=len(sets))
    if len(classes) == 0:
        raise refuse("The table has no rows.", "Give at least one row.")
    hit = sets[np.arange(len(classes)), classes]  # N
    single = sets.sum(axis=1) == 1
    by_class = tuple(_share(hit[classes == c]) for c in range(sets.shape[1]))
    alone = float(single.mean())
    return Coverage(len(hit), float(hit.mean()), by_class, alone, 1 - alone, _share(~hit[single]))


def _threshold(
    classes: NDArray[np.int64], table: NDArray[np.float64], rate: float, who: str
) -> float:
    """The least probability of the true class that a set must still take in."""
    from mapie.classification import SplitConformalClassifier
    from mapie.conformity_scores import LACConformityScore

    from .given_scores import GivenScores

    alpha = 1 - (1 - rate)  # as MAPIE computes it; its own bound on the rows follows
    needed = math.ceil(max(1 / alpha, 1 / (1 - alpha)))
    if len(classes) < needed:
        raise refuse(
            f"{who} has {len(classes)} rows; an error rate of {rate:g} needs {needed}.",
            "Bring more held-out patients, or allow a greater error rate.",
        )
    conformity = LACConformityScore()
    rule = SplitConformalClassifier(
        GivenScores(table.shape[1]),
        confidence_level=1 - rate,
        conformity_score=conformity,
        prefit=True,
    )
    with warnings.catch_warnings():
        # One class alone is what the label-conditional rule asks for.
        warnings.filterwarnings("ignore", "WARNING: your conformalization dataset has less labels")
        rule.conformalize(table, classes)
    rule.predict_set(table[:1])  # MAPIE takes the quantile when it first predicts.
    return 1 - float(np.ravel(conformity.quantiles_)[0])


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
