"""Attention pooling against torchmil with the same weights, and against the equation in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmil.models import ABMIL

from slidetriage.models.heads import AttentionHead

Pad = Callable[..., tuple[Tensor, Tensor]]


@pytest.mark.parametrize("gated", [False, True])
@torch.inference_mode()
def test_same_as_torchmil(gated: bool, bags: list[Tensor], pad: Pad) -> None:
    head = AttentionHead(6, 1, gated=gated, hidden=9, attention=5).double().eval()
    other = ABMIL(
        in_shape=(6,),
        att_dim=5,
        gated=gated,
        feat_ext=nn.Sequential(nn.Linear(6, 9), nn.ReLU()),
    )
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (other.feat_ext[0], head.embed),
        (other.pool.fc1, head.attend.value),
        (other.pool.fc2, head.attend.weigh),
        (other.classifier, head.classify),
    ]
    if head.attend.gate is not None:
        pairs.append((other.pool.fc_gated, head.attend.gate))
    for theirs, ours in pairs:
        for to, value in zip(theirs.parameters(), ours.parameters(), strict=True):
            to.copy_(value)
    features, mask = pad(bags)
    found = head(features, mask)
    logit, energy = other.double().eval()(features, mask, return_att=True)
    torch.testing.assert_close(found.slide_logit[:, 0], logit, rtol=1e-4, atol=1e-8)
    weights = energy.masked_fill(~mask, -torch.inf).softmax(-1)  # theirs is before the softmax
    torch.testing.assert_close(found.attention, weights, rtol=1e-4, atol=1e-8)


@torch.inference_mode()
def test_equation_9_in_numpy(bags: list[Tensor]) -> None:
    head = AttentionHead(6, 2, gated=True, hidden=9, attention=5).double().eval()
    p = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    bag = bags[2].numpy()
    h = np.maximum(bag @ p["embed.weight"].T + p["embed.bias"], 0)
    v = np.tanh(h @ p["attend.value.weight"].T + p["attend.value.bias"])
    u = 1 / (1 + np.exp(-(h @ p["attend.gate.weight"].T + p["attend.gate.bias"])))
    energy = np.exp((v * u) @ p["attend.weigh.weight"][0])
    z = (energy / energy.sum()) @ h
    output = head(bags[2][None], torch.ones(1, 11, dtype=torch.bool))
    np.testing.assert_allclose(output.attention[0], energy / energy.sum(), rtol=1e-10)
    np.testing.assert_allclose(output.embedding[0], z, rtol=1e-10)
    logit = z @ p["classify.weight"].T + p["classify.bias"]
    np.testing.assert_allclose(output.slide_logit[0], logit, rtol=1e-10)


@torch.inference_mode()
def test_more_layers_come_before_the_embedding(bags: list[Tensor]) -> None:
    head = AttentionHead(6, 1, gated=True, hidden=4, attention=5, layers=3).double().eval()
    widths = [layer.out_features for layer in head.before if isinstance(layer, nn.Linear)]
    assert [*widths, head.embed.out_features] == [16, 8, 4]
    inner = bags[2]
    for layer in (head.before[0], head.before[3], head.embed):
        inner = torch.relu(layer(inner))
    torch.testing.assert_close(head.embed_tiles(bags[2]), inner)
    plain = AttentionHead(4, 1, gated=True, hidden=4, attention=5).double().eval()
    plain.load_state_dict(
        {k: v for k, v in head.state_dict().items() if not k.startswith(("before", "embed"))}
        | {"embed.weight": torch.eye(4), "embed.bias": torch.zeros(4)}
    )
    mask = torch.ones(1, 11, dtype=torch.bool)
    whole = head(bags[2][None], mask)
    torch.testing.assert_close(whole.slide_logit, plain(inner[None], mask).slide_logit)
