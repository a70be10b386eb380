"""Sets of classes with a stated error rate, and flag, clear or eyes; `models.evaluation` fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slidetriage.errors import ModelError

from .inputs import as_class_probabilities, as_labels, refuse

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


def _damaged(why: str) -> ModelError:
    return ModelError(f"The conformal rule is not one: {why}.", mend="Fit it again.")
