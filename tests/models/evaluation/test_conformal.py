"""Conformal rules against MAPIE's own sets, and their promise by simulation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from scipy.special import expit, softmax

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.evaluation import ConformalRule, coverage, fit_conformal
from slidetriage.models.evaluation.given_scores import GivenScores


def binary(
    rows: int, *, seed: int, share: float = 0.3
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < share).astype(np.int64)
    return label, expit(rng.normal(0, 1, rows) + 2.5 * label - 1.5)


def three(rows: int, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, rows)
    return label, softmax(rng.normal(0, 1, (rows, 3)) + 1.5 * np.eye(3)[label], axis=1)


@pytest.mark.parametrize("error_rate", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("rows", [101, 157, 400])
def test_sets_are_mapies_own(error_rate: float, rows: int) -> None:
    for label, score in (binary(rows, seed=rows), three(rows, seed=rows)):
        table = score if score.ndim == 2 else np.stack([1 - score, score], axis=1)
        classes = table.shape[1]
        other = SplitConformalClassifier(
            GivenScores(classes), confidence_level=1 - error_rate, prefit=True
        )
        other.conformalize(table, label)
        rule = fit_conformal(label, score, error_rate=error_rate)
        _, fresh = binary(500, seed=1) if score.ndim == 1 else three(500, seed=1)
        # The fitted rows stand on the thresholds themselves.
        for given in (fresh, score):
            wide = given if given.ndim == 2 else np.stack([1 - given, given], axis=1)
            _, sets = other.predict_set(wide)
            assert rule.sets(given).tolist() == sets[:, :, 0].tolist()


@pytest.mark.parametrize("error_rate", [0.05, 0.1])
def test_threshold_is_the_conformal_order_statistic(error_rate: float) -> None:
    label, score = binary(200, seed=3)
    true = np.sort(np.where(label == 1, score, 1 - score))
    rule = fit_conformal(label, score, error_rate=error_rate)
    rank = int(np.floor(201 * error_rate + 1e-9))  # from below
    assert rule.thresholds == pytest.approx([true[rank - 1]] * 2)
    conditional = fit_conformal(label, score, error_rate=error_rate, label_conditional=True)
    for c, p in ((0, 1 - score), (1, score)):
        own = np.sort(p[label == c])
        rank = int(np.floor((len(own) + 1) * error_rate + 1e-9))
        assert conditional.thresholds[c] == pytest.approx(own[rank - 1])
    assert conditional.fitted_on == tuple(np.bincount(label).tolist())


def test_coverage_over_many_splits() -> None:
    """Mean over 60 draws within 2 points of 90 %; only the conditional rule keeps each class."""
    plain: list[tuple[float, ...]] = []
    conditional: list[tuple[float, ...]] = []
    for turn in range(60):
        label, score = binary(300, seed=turn, share=0.15)
        fresh_label, fresh = binary(1000, seed=1000 + turn, share=0.15)
        for found, by_label in ((plain, False), (conditional, True)):
            rule = fit_conformal(label, score, error_rate=0.1, label_conditional=by_label)
            held = coverage(fresh_label, rule.sets(fresh))
            found.append((held.overall, *held.by_class))
    assert np.mean(plain, axis=0)[0] == pytest.approx(0.9, abs=0.02)
    assert np.mean(conditional, axis=0) == pytest.approx([0.9, 0.9, 0.9], abs=0.02)
    assert abs(np.mean(plain, axis=0)[2] - 0.9) > 0.03


def test_verdicts() -> None:
    both = ConformalRule((0.4, 0.3), 0.1, True, (50, 50))
    assert both.triage([0.2, 0.3, 0.5, 0.6, 0.61, 1.0]) == [
        "clear",
        "needs eyes",
        "needs eyes",
        "needs eyes",
        "flag",
        "flag",
    ]
    assert both.triage([0.2, 1.0, 1.0], novel=[1, 0, 1]) == ["needs eyes", "flag", "needs eyes"]
    with pytest.raises(UsageError, match="novel has 1 rows where the table has 2"):
        both.triage([0.2, 1.0], novel=[1])
    empty = ConformalRule((0.7, 0.8), 0.1, True, (50, 50))
    assert empty.triage([0.3, 0.5, 0.8]) == ["clear", "needs eyes", "flag"]
    three_way = ConformalRule((0.1, 0.1, 0.1), 0.1, False, (5, 5, 5))
    with pytest.raises(UsageError, match="two classes"):
        three_way.triage(np.full((1, 3), 1 / 3))
    with pytest.raises(UsageError, match="have 2 classes, the rule 3"):
        three_way.sets([0.5])


def test_coverage_by_hand() -> None:
    sets = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [0, 1]], bool)
    found = coverage([0, 1, 1, 1, 0], sets)
    assert found.overall == 0.6
    assert found.by_class == pytest.approx((0.5, 2 / 3))
    assert (found.single_share, found.abstained_share) == pytest.approx((0.6, 0.4))
    assert found.single_error == pytest.approx(1 / 3)


def test_json_there_and_back() -> None:
    label, score = three(120, seed=0)
    rule = fit_conformal(label, score, error_rate=0.1, label_conditional=True)
    again = ConformalRule.from_json(json.loads(json.dumps(rule.to_json())))
    assert again == rule
    assert again.sets(score).tolist() == rule.sets(score).tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("thresholds", [0.5]),
        ("thresholds", [0.5, float("nan")]),
        ("thresholds", "ab"),
        ("thresholds", None),
        ("error_rate", 1.0),
        ("label_conditional", 1),
        ("fitted_on", [1, 2, 3]),
        ("more", 1),
    ],
)
def test_damaged(field: str, value: Any) -> None:
    plain = ConformalRule((0.4, 0.3), 0.1, True, (50, 50)).to_json()
    with pytest.raises(ModelError, match="conformal rule is not one"):
        ConformalRule.from_json(plain | {field: value})


def test_too_few_rows() -> None:
    label, score = binary(99, seed=0)
    with pytest.raises(UsageError, match=r"The table has 99 rows; .* 0.01 needs 10"):
        fit_conformal(label, score, error_rate=0.01)
    with pytest.raises(UsageError, match=r"Class 1 has \d+ rows; .* 0.05 needs 20"):
        fit_conformal(label[:40], score[:40], error_rate=0.05, label_conditional=True)
    with pytest.raises(UsageError, match="error_rate is 0"):
        fit_conformal(label, score, error_rate=0)
