"""Split conformal prediction: sets of classes with a stated error rate, and flag, clear or eyes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import ModelError

from .inputs import as_class_probabilities, as_classes, as_labels, as_share, refuse

Verdict = Literal["flag", "clear", "needs eyes"]

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class ConformalRule:
    """Fitted thresholds: a class is in the set of a row if its probability reaches its threshold.

    Of rows exchangeable with those it was fitted on, at least 1 - error_rate have the true class
    in their set; where label-conditional, this holds among the rows of each class on its own.
    """

    thresholds: tuple[float, ...]
    """One per class, on its probability; equal where not label-conditional."""
    error_rate: float
    label_conditional: bool
    fitted_on: tuple[int, ...]
    """Rows of each class that it was fitted on."""

    def __post_init__(self) -> None:
        numbers = (*self.thresholds, self.error_rate)
        if not all(math.isfinite(n) for n in numbers) or not 0 < self.error_rate < 1:
            raise _damaged("one of its numbers is impossible")
        if len(self.thresholds) < 2 or len(self.thresholds) != len(self.fitted_on):
            raise _damaged("it needs one threshold and one count for each of two or more classes")

    def sets(self, score: ArrayLike) -> NDArray[np.bool_]:
        """N x C: which classes are in the set of each row, for N or N x C probabilities."""
        table = as_class_probabilities(score)
        if table.shape[1] != len(self.thresholds):
            raise refuse(
                f"The scores have {table.shape[1]} classes, the rule {len(self.thresholds)}.",
                "Use the rule that was fitted with this model.",
            )
        # The threshold is itself the score of a fitted row; rounding must not push it out.
        return np.asarray(table >= np.array(self.thresholds) - _ROUNDING)

    def triage(self, score: ArrayLike, *, novel: ArrayLike | None = None) -> list[Verdict]:
        """For two classes: only the positive one in the set is `flag`, only the negative `clear`.

        An empty set and one with both are `needs eyes`, and so is every row that `novel` (N, 1 =
        unlike what the model learned from) names: for those no error rate is promised.
        """
        if len(self.thresholds) != 2:
            raise refuse("Flag and clear are for two classes.", "Use `sets` for more.")
        verdicts: dict[tuple[bool, bool], Verdict] = {
            (False, True): "flag",
            (True, False): "clear",
        }
        sets = self.sets(score)
        strange = as_labels(
            np.zeros(len(sets)) if novel is None else novel, "novel", count=len(sets), both=False
        )
        return [
            "needs eyes" if odd else verdicts.get((bool(negative), bool(positive)), "needs eyes")
            for (negative, positive), odd in zip(sets, strange, strict=True)
        ]

    def to_json(self) -> dict[str, object]:
        """As plain JSON values."""
        return {
            "thresholds": list(self.thresholds),
            "error_rate": self.error_rate,
            "label_conditional": self.label_conditional,
            "fitted_on": list(self.fitted_on),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> ConformalRule:
        """Back from `to_json`; raises ModelError for anything else."""
        if set(plain) != {"thresholds", "error_rate", "label_conditional", "fitted_on"}:
            raise _damaged(f"it holds {sorted(plain)}")
        try:
            thresholds = tuple(float(t) for t in plain["thresholds"])
            counts = tuple(int(n) for n in plain["fitted_on"])
            rate = float(plain["error_rate"])
        except (TypeError, ValueError) as error:
            raise _damaged(str(error)) from error
        if not isinstance(plain["label_conditional"], bool):
            raise _damaged("label_conditional is neither true nor false")
        return cls(thresholds, rate, plain["label_conditional"], counts)


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


def _damaged(why: str) -> ModelError:
    return ModelError(f"The conformal rule is not one: {why}.", mend="Fit it again.")
