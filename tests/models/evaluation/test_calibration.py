"""Calibrators: recovered truths, other libraries, and JSON there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.evaluation import (
    Calibrator,
    auc,
    calibration_line,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)


def overconfident(
    rows: int, *, steep: float = 2.5, shift: float = 0.0, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Labels drawn from true odds, scores whose logits are `steep` times the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, rows)
    return rng.random(rows) < expit(true), expit(steep * true + shift)


def test_temperature_recovers_the_truth() -> None:
    label, score = overconfident(20_000)
    fitted = fit_temperature(label, score)
    assert fitted.numbers[0] == pytest.approx(2.5, rel=0.05)
    wanted = minimize_scalar(
        lambda t: log_loss(label, expit(logit(score) / t)), bounds=(0.5, 10), method="bounded"
    )
    assert fitted.numbers[0] == pytest.approx(wanted.x, rel=1e-4)
    again, other = overconfident(20_000, seed=1)
    assert calibration_line(again, fitted.apply(other)).slope == pytest.approx(1, abs=0.06)


def test_temperature_of_three_classes() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (6000, 3))
    label = np.array([rng.choice(3, p=p) for p in softmax(true, axis=1)])
    score = softmax(1.8 * true, axis=1)
    fitted = fit_temperature(label, score)
    assert fitted.numbers[0] == pytest.approx(1.8, rel=0.05)
    wanted = np.exp(log_softmax(np.log(score) / fitted.numbers[0], axis=1))
    assert fitted.apply(score) == pytest.approx(wanted, abs=2e-5)  # kept 1e-7 off 0


def test_two_columns_are_one() -> None:
    label, score = overconfident(500)
    both = np.stack([1 - score, score], axis=1)
    one, two = fit_temperature(label, score), fit_temperature(label, both)
    assert one.numbers == pytest.approx(two.numbers, rel=1e-5)
    assert one.apply(both)[:, 1] == pytest.approx(one.apply(score), abs=1e-7)


def test_platt_recovers_the_truth() -> None:
    label, score = overconfident(20_000, shift=1.0)
    slope, intercept = fit_platt(label, score).numbers
    assert slope == pytest.approx(1 / 2.5, rel=0.05)
    assert intercept == pytest.approx(-1 / 2.5, abs=0.06)


def test_platt_on_parted_labels_has_finite_odds() -> None:
    """With Platt's targets the mean probability of 3 positives is 4/5, of 5 negatives 1/7."""
    score = np.array([0.1] * 5 + [0.9] * 3)
    found = fit_platt(score > 0.5, score).apply(score)
    assert found == pytest.approx([1 / 7] * 5 + [4 / 5] * 3, abs=1e-6)


def test_isotonic_is_scikit_learns() -> None:
    label, score = overconfident(400)
    label[np.argmax(score)], label[np.argmin(score)] = True, False
    fitted = fit_isotonic(label, score, bounds=(0.0, 1.0))
    other = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, label)
    grid = np.linspace(0, 1, 999)
    assert fitted.apply(grid) == pytest.approx(other.predict(grid), abs=1e-12)
    bounded = fit_isotonic(label, score).apply(grid)
    assert (bounded.min(), bounded.max()) == pytest.approx((1 / 402, 401 / 402))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["temperature", "platt", "isotonic"]),
    st.lists(st.floats(0, 1), min_size=2, max_size=30),
)
def test_order_is_kept_and_json_round_trips(kind: str, scores: list[float]) -> None:
    label, given = overconfident(200)
    fit = {"temperature": fit_temperature, "platt": fit_platt, "isotonic": fit_isotonic}[kind]
    fitted = fit(label, given)
    found = fitted.apply(np.sort(scores))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()
    again = Calibrator.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert again.apply(np.sort(scores)).tolist() == found.tolist()


def test_temperature_keeps_the_auc() -> None:
    label, score = overconfident(300)
    calibrated = fit_temperature(label, score).apply(score)
    assert auc(label, calibrated) == auc(label, score)


def test_certain_and_parted_scores_stay_finite() -> None:
    fitted = fit_temperature([0, 0, 1, 1], [0.0, 0.2, 0.7, 1.0])
    assert fitted.numbers[0] == pytest.approx(0.05, rel=1e-3)
    assert np.isfinite(fitted.apply([0.0, 1.0])).all()


def test_several_classes_need_a_temperature() -> None:
    label, score = overconfident(100)
    with pytest.raises(UsageError, match="shape"):
        fit_platt(label, score).apply(np.stack([1 - score, score], axis=1))


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"kind": "platt"},
        {"kind": "magic", "numbers": [1.0]},
        {"kind": "temperature", "numbers": [0.0]},
        {"kind": "temperature", "numbers": ["1"]},
        {"kind": "temperature", "numbers": [True]},
        {"kind": "temperature", "numbers": [float("nan")]},
        {"kind": "temperature", "numbers": 1.0},
        {"kind": "temperature", "numbers": [1.0], "more": 1},
        {"kind": "platt", "numbers": [1.0]},
        {"kind": "isotonic", "numbers": []},
        {"kind": "isotonic", "numbers": [0.1, 0.2, 0.3]},
        {"kind": "isotonic", "numbers": [0.2, 0.1, 0.3, 0.4]},
        {"kind": "isotonic", "numbers": [0.1, 0.2, 0.4, 0.3]},
        {"kind": "isotonic", "numbers": [0.1, 0.2, 0.4, 1.3]},
    ],
)
def test_damaged(plain: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="calibration is not one"):
        Calibrator.from_json(plain)
