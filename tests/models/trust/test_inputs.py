"""Bad columns: each is an error that names the column, the row and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slidetriage.errors import UsageError
from slidetriage.models.evaluation import (
    auc,
    brier_score,
    calibration_error,
    calibration_line,
    decision_curve,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    rule_out,
    threshold_at_sensitivity,
)
from slidetriage.models.trust.inputs import (
    as_class_probabilities,
    as_labels,
    as_names,
    as_patients,
)

LABEL, SCORE = [0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4]

FIGURES: list[Callable[[Any, Any], object]] = [
    auc,
    brier_score,
    calibration_error,
    calibration_line,
    decision_curve,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    lambda label, score: threshold_at_sensitivity(label, score, 0.9),
    lambda label, score: rule_out(label, score, 0.5),
]


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(
    ("label", "score", "said"),
    [
        ([0, 1, np.nan, 1], SCORE, "label is NaN or infinite in 1 of 4 rows, first in row 2"),
        (
            LABEL,
            [0.1, np.nan, 0.6, np.inf],
            "score is NaN or infinite in 2 of 4 rows, first in row 1",
        ),
        ([0, 1, 2, 1], SCORE, "label is neither 0 nor 1 in 1 of 4 rows, first in row 2"),
        (LABEL, SCORE[:3], "3 rows where the table has 4|4 rows where the table has 3"),
        (["no", "yes", "no", "yes"], SCORE, "label holds .*, not numbers"),
        (np.zeros((4, 1)), SCORE, r"label has shape \(4, 1\)"),
    ],
)
def test_bad_columns(
    figure: Callable[[Any, Any], object], label: Any, score: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        figure(label, score)
    assert caught.value.code == "E_TABLE"
    assert caught.value.mend


@pytest.mark.parametrize("figure", [*FIGURES[:1], *FIGURES[3:9]])
@pytest.mark.parametrize("held", [0, 1])
def test_one_class(figure: Callable[[Any, Any], object], held: int) -> None:
    with pytest.raises(UsageError, match=f"label holds only {held}"):
        figure([held] * 4, SCORE)


@pytest.mark.parametrize("figure", FIGURES[1:8])
def test_a_probability_lies_between_0_and_1(figure: Callable[[Any, Any], object]) -> None:
    with pytest.raises(UsageError, match=r"outside 0 to 1 in 1 of 4 rows, first in row 3"):
        figure(LABEL, [0.1, 0.2, 0.3, 1.2])


def test_labels_of_any_type() -> None:
    wanted = [False, True, True]
    for values in ([0, 1, 1], [0.0, 1.0, 1.0], np.array([0, 1, 1], np.uint8), wanted):
        assert as_labels(values).tolist() == wanted


def test_missing_names() -> None:
    given = np.array(["a ", None, float("nan"), 3, ""], dtype=object)
    assert as_names(given, "site").tolist() == ["a", "", "", "3", ""]
    with pytest.raises(UsageError, match="patient is missing in 3 of 5 rows, first in row 1"):
        as_patients(given)


def test_class_probabilities() -> None:
    assert as_class_probabilities([0.25]).tolist() == [[0.75, 0.25]]
    nearly = np.array([[0.2, 0.3, 0.5001]], np.float32)
    assert as_class_probabilities(nearly).sum() == pytest.approx(1, abs=1e-15)
    with pytest.raises(UsageError, match="does not sum to 1 in 1 of 2 rows, first in row 1"):
        as_class_probabilities([[0.5, 0.5], [0.5, 0.4]])
    with pytest.raises(UsageError, match="shape"):
        as_class_probabilities(np.ones((2, 2, 2)))
