"""Targets: losses and predictions against the formulas, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from slidetriage.errors import UsageError
from slidetriage.models.learning import Classes, Cox, DiscreteTime, Labels, Regression, Target


def labels(*values: float) -> Labels:
    return Labels(
        torch.tensor(values, dtype=torch.float32), torch.ones(len(values), dtype=torch.bool)
    )


@pytest.mark.parametrize("count", [2, 3])
def test_classes_give_probabilities_and_their_cross_entropy(count: int) -> None:
    rng = np.random.default_rng(count)
    target = Classes(("a", "b", "c")[:count])
    logits = rng.normal(size=(40, target.outputs)).astype(np.float32)
    truth = rng.integers(0, count, 40)
    probabilities = target.predict(logits)
    assert probabilities.shape == (40, count)
    assert np.allclose(probabilities.sum(1), 1)
    loss = target.loss(torch.from_numpy(logits), labels(*truth.tolist()))
    expected = log_loss(truth, probabilities, labels=range(count))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_balanced_classes_count_the_same() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    target = Classes.balanced(("common", "rare"), truth)
    assert np.asarray(target.weights)[truth].mean() == pytest.approx(1)
    logit = torch.zeros(100, 1, requires_grad=True)
    target.loss(logit, labels(*truth.tolist())).backward()
    assert logit.grad is not None
    assert float(logit.grad[:90].sum()) == pytest.approx(-float(logit.grad[90:].sum()))
    with pytest.raises(UsageError, match="'rare'"):
        Classes.balanced(("common", "rare"), np.zeros(5, np.int64))


def test_regression_speaks_the_unit_of_its_labels() -> None:
    target = Regression.of(np.array([10.0, 20.0, 30.0]))
    assert target.predict(np.zeros((1, 1), np.float32)).item() == pytest.approx(20)
    right = torch.tensor([[(30 - target.mean) / target.sd]])
    assert float(target.loss(right, labels(30.0))) == pytest.approx(0, abs=1e-6)
    with pytest.raises(UsageError, match="all the same"):
        Regression.of(np.array([3.0, 3.0]))


def test_higher_risk_is_sooner() -> None:
    target = DiscreteTime((12.0, 24.0))
    early, late = [3.0, 0.0, 0.0], [-3.0, -3.0, 3.0]
    risk = target.predict(np.array([early, late], np.float32))
    assert risk[0] > risk[1]
    assert Cox().predict(np.array([[1.0], [2.0]], np.float32)).tolist() == [[1], [2]]


def test_edges_of_time_lie_at_quantiles_of_the_events() -> None:
    times, events = np.arange(1.0, 101), np.arange(100) % 2 == 0
    target = DiscreteTime.of(times, events, 4)
    assert target.outputs == 4
    counts, _ = np.histogram(times[events], [0, *target.edges, np.inf])
    assert counts.min() >= 12
    with pytest.raises(UsageError, match="too few"):
        DiscreteTime.of(times[:3], events[:3], 4)


@pytest.mark.parametrize(
    "make", [lambda: Classes(("a",)), lambda: Classes(("a", "a")), lambda: DiscreteTime((5.0, 2.0))]
)
def test_impossible_targets_are_refused(make: type[Target]) -> None:
    with pytest.raises(UsageError):
        make()
