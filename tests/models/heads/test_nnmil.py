"""The aggregator of nnMIL against its equations in NumPy, window by window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from slidetriage.models.heads import FeatureSamplingHead


def pooled(head: FeatureSamplingHead, bag: np.ndarray, window: np.ndarray) -> np.ndarray:
    p = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    part = bag[:, window]
    value = np.tanh(part @ p["value.weight"][:, window].T + p["value.bias"])
    gate = 1 / (1 + np.exp(-(part @ p["gate.weight"][:, window].T + p["gate.bias"])))
    energy = np.exp((value * gate) @ p["weigh.weight"][0])
    return energy / energy.sum()


@torch.inference_mode()
def test_eval_is_the_mean_of_the_logits_of_windows() -> None:
    head = FeatureSamplingHead(22, 2, sampled=8, attention=5).double().eval()
    bag = np.random.default_rng(0).normal(size=(13, 22))
    order = head.order.numpy()
    starts = [0, 2, 4, 6, 8, 10, 12, 14]  # 8 features by steps of 2, to the last of 22
    attention = [pooled(head, bag, order[start : start + 8]) for start in starts]
    weight, bias = head.classify.weight.numpy(), head.classify.bias.numpy()
    logits = [(share @ bag) @ weight.T + bias for share in attention]
    output = head(torch.from_numpy(bag)[None], torch.ones(1, 13, dtype=torch.bool))
    np.testing.assert_allclose(output.slide_logit[0], np.mean(logits, axis=0), rtol=1e-10)
    np.testing.assert_allclose(output.attention[0], np.mean(attention, axis=0), rtol=1e-10)


@pytest.mark.parametrize(
    ("features", "starts"), [(8, [0]), (9, [0, 1]), (12, [0, 2, 4]), (13, [0, 2, 4, 5])]
)
def test_windows_reach_every_feature(features: int, starts: list[int]) -> None:
    head = FeatureSamplingHead(features, 1, sampled=8).eval()
    windows = head.windows()
    expected = [head.order[start : start + 8].tolist() for start in starts]
    assert [window.tolist() for window in windows] == expected
    assert set(torch.cat(windows).tolist()) == set(range(features))


def test_training_draws_features_anew() -> None:
    head = FeatureSamplingHead(40, 1, sampled=8).train()
    (first,), (second,) = head.windows(), head.windows()
    assert len(set(first.tolist())) == 8
    assert first.tolist() != second.tolist()


@torch.inference_mode()
def test_few_features_make_it_gated_attention(bags: list[Tensor]) -> None:
    head = FeatureSamplingHead(6, 1, sampled=256, attention=5).double().eval()
    output = head(bags[2][None], torch.ones(1, 11, dtype=torch.bool))
    expected = pooled(head, bags[2].numpy(), np.arange(6))
    np.testing.assert_allclose(output.attention[0], expected, rtol=1e-10)


@torch.inference_mode()
def test_the_order_goes_with_the_weights() -> None:
    one, other = (FeatureSamplingHead(40, 1, sampled=8).eval() for _ in range(2))
    assert not torch.equal(one.order, other.order)
    other.load_state_dict(one.state_dict())
    bag, mask = torch.randn(1, 5, 40), torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(one(bag, mask).slide_logit, other(bag, mask).slide_logit)
