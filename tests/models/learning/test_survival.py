"""Survival losses against published estimates and against the likelihood written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leukaemia import EVENT, GROUP, TIME
from slidetriage.models.learning import cox_loss, discrete_time_loss, interval_of


def test_cox_finds_the_published_hazard_of_the_leukaemia_trial() -> None:
    """Efron's estimate is 1.572 with a log likelihood of -85.01 (R's coxph on the same data)."""
    time, event = torch.from_numpy(TIME.astype(float)), torch.from_numpy(EVENT.astype(bool))
    placebo = torch.from_numpy((GROUP == "placebo").astype(float))
    beta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta], max_iter=100, tolerance_grad=1e-9)

    def closure() -> float:
        optimiser.zero_grad()
        loss = cox_loss(beta * placebo, time, event)
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    assert float(beta.detach()) == pytest.approx(1.572, abs=2e-3)
    assert closure() * int(event.sum()) == pytest.approx(85.01, abs=0.01)


def test_cox_without_events_teaches_nothing_and_large_risks_do_not_overflow() -> None:
    risk = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = cox_loss(risk, torch.tensor([1.0, 2.0]), torch.tensor([False, False]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert risk.grad is not None
    assert risk.grad.tolist() == [0, 0]
    far = torch.tensor([900.0, -900.0], requires_grad=True)
    late = cox_loss(far, torch.tensor([2.0, 1.0]), torch.tensor([True, True]))
    late.backward()
    assert far.grad is not None
    assert far.grad.tolist() == [0.5, -0.5]
    far = far.detach()
    assert float(cox_loss(far, torch.tensor([1.0, 2.0]), torch.tensor([True, True]))) == 0
    assert float(cox_loss(-far, torch.tensor([1.0, 2.0]), torch.tensor([True, True]))) == 900


def test_discrete_time_is_the_likelihood_written_out() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 4))
    interval, event = rng.integers(0, 4, 50), rng.random(50) < 0.5
    hazard = 1 / (1 + np.exp(-logits))
    total = 0.0
    for h, k, seen in zip(hazard, interval, event, strict=True):
        likelihood = np.prod(1 - h[:k]) * (h[k] if seen else 1 - h[k])
        total -= np.log(likelihood)
    found = discrete_time_loss(
        torch.from_numpy(logits), torch.from_numpy(interval), torch.from_numpy(event)
    )
    assert float(found) == pytest.approx(total / 50, rel=1e-6)


def test_an_edge_belongs_to_the_interval_it_begins() -> None:
    time = torch.tensor([0.0, 11.9, 12.0, 24.0, 100.0])
    assert interval_of(time, torch.tensor([12.0, 24.0])).tolist() == [0, 0, 1, 2, 2]
