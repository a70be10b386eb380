"""The gated attention head against equation 9 of Ilse et al. 2018 written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.models import GatedAttentionHead


def make_head(seed: int = 0) -> GatedAttentionHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GatedAttentionHead(12, hidden=7, attention=5).double().eval()


def reference(head: GatedAttentionHead, bag: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    p = {name: tensor.detach().numpy() for name, tensor in head.state_dict().items()}
    h = np.maximum(bag @ p["embed.weight"].T + p["embed.bias"], 0)
    v = np.tanh(h @ p["attend.weight"].T + p["attend.bias"])
    u = 1 / (1 + np.exp(-(h @ p["gate.weight"].T + p["gate.bias"])))
    energy = (v * u) @ p["weigh.weight"][0]
    attention = np.exp(energy) / np.exp(energy).sum()
    z = attention @ h
    tiles = bag @ p["tile.weight"][0] + p["tile.bias"][0]
    return z @ p["slide.weight"][0] + p["slide.bias"][0], attention, tiles


@torch.inference_mode()
def test_padded_batch_equals_the_equation_bag_by_bag() -> None:
    head, rng = make_head(), np.random.default_rng(1)
    bags = [rng.normal(size=(n, 12)) * 3 for n in (1, 4, 9)]
    padded = np.full((3, 9, 12), 1e3)  # what stands where padded must not matter
    mask = np.zeros((3, 9), bool)
    for index, bag in enumerate(bags):
        # Tiles need not come first.
        where = np.sort(rng.permutation(9)[: len(bag)])
        padded[index, where], mask[index, where] = bag, True
    output = head(torch.from_numpy(padded), torch.from_numpy(mask))
    for index, bag in enumerate(bags):
        slide, attention, tiles = reference(head, bag)
        assert float(output.slide_logit[index]) == pytest.approx(slide, rel=1e-9)
        np.testing.assert_allclose(output.attention[index].numpy()[mask[index]], attention, 1e-9)
        np.testing.assert_allclose(output.tile_logit[index].numpy()[mask[index]], tiles, 1e-9)
        assert (output.attention[index].numpy()[~mask[index]] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_order_of_tiles_does_not_matter(count: int, seed: int) -> None:
    head, rng = make_head(3), np.random.default_rng(seed)
    bag, order = torch.from_numpy(rng.normal(size=(1, count, 12))), rng.permutation(count)
    mask = torch.ones(1, count, dtype=torch.bool)
    with torch.inference_mode():
        plain, moved = head(bag, mask), head(bag[:, order], mask)
    assert float(moved.slide_logit) == pytest.approx(float(plain.slide_logit), rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(moved.attention[0], plain.attention[0, order], rtol=1e-9)
    np.testing.assert_allclose(moved.tile_logit[0], plain.tile_logit[0, order], rtol=1e-9)
    assert float(plain.attention.sum()) == pytest.approx(1)


def test_padding_gets_no_gradient() -> None:
    head = make_head()
    features = torch.randn(2, 6, 12, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    head(features, mask).slide_logit.sum().backward()
    assert features.grad is not None
    assert (features.grad[1, 2:] == 0).all()
    assert (features.grad[0] != 0).any(-1).all()
