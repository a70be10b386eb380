"""TransMIL against torchmil where the two agree, and step by step against the paper's algorithm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmil.models import TransMIL

from slidetriage.models.heads import TransformerHead
from slidetriage.models.heads.transmil import PyramidPositions


def small(outputs: int = 1) -> TransformerHead:
    return TransformerHead(8, outputs, hidden=8, heads=2, landmarks=4).double().eval()


@pytest.mark.parametrize("count", [1, 5, 9, 25, 30])
@torch.inference_mode()
def test_same_as_torchmil(count: int) -> None:
    head = small()
    # Torchmil leaves out three layers that the authors have: the rectifier after the embedding,
    # the convolution of the values and the projection of the heads. Here they do nothing.
    head.embed.weight.copy_(torch.eye(8))
    head.embed.bias.zero_()
    for layer in (head.first, head.second):
        layer.residual.weight.zero_()
        layer.out.weight.copy_(torch.eye(8))
        layer.out.bias.zero_()
    other = torchmil_twin(head)
    bags = torch.rand(2, count, 8).double()  # not negative: the rectifier does nothing
    # Torchmil scales its inverses by the largest sum of the batch, so it gets bag after bag; it
    # takes no mask, so only ours sees padding.
    padded = functional.pad(bags, (0, 0, 2, 3), value=1e3)
    mask = functional.pad(torch.ones(2, count, dtype=torch.bool), (2, 3))
    ours = head(padded, mask)
    for index in range(2):
        logit, row = other(bags[index : index + 1], return_att=True)
        torch.testing.assert_close(ours.slide_logit[index], logit, rtol=1e-4, atol=1e-8)
        if math.isqrt(count) ** 2 == count and row.max() > 0:  # no tile stands twice in the square
            weights = row[0].clamp(min=0) / row[0].clamp(min=0).sum()
            torch.testing.assert_close(
                ours.attention[index, 2 : 2 + count], weights, rtol=1e-4, atol=1e-8
            )


def torchmil_twin(head: TransformerHead) -> TransMIL:
    other = TransMIL(in_shape=(8,), att_dim=8, n_heads=2, n_landmarks=4)
    names = {
        "token": "cls_token",
        "position.wide": "pos_layer.proj",
        "position.middle": "pos_layer.proj1",
        "position.narrow": "pos_layer.proj2",
        "first.project": "layers.0.att_module.qkv_nn",
        "second.project": "layers.1.att_module.qkv_nn",
        "norms.0": "layers.0.norm1",
        "norms.1": "layers.1.norm1",
        "norms.2": "norm",
        "classify": "classifier",
    }
    state = {}
    for name, tensor in head.state_dict().items():
        layer, _, part = name.rpartition(".")
        if name in names:
            state[names[name]] = tensor
        elif layer in names:
            state[f"{names[layer]}.{part}"] = tensor
    missing, unexpected = other.load_state_dict(state, strict=False)
    # The norms of a second part of their layers, which TransMIL does not use.
    assert {name.split(".")[2] for name in missing} == {"norm2"}
    assert not unexpected
    return other.double().eval()


@pytest.mark.parametrize("count", [1, 2, 6, 10])
@torch.inference_mode()
def test_algorithm_step_by_step(count: int) -> None:
    head = small(2)
    bag = torch.randn(count, 8).double()
    h = torch.relu(bag @ head.embed.weight.T + head.embed.bias)
    side = math.ceil(math.sqrt(count))
    tokens = torch.cat([head.token[0], h, h[: side * side - count]])
    tokens = tokens + attend(head, 0, tokens)[0]
    square = tokens[1:].reshape(side, side, 8).permute(2, 0, 1)[None]
    place = head.position
    square = square + place.wide(square) + place.middle(square) + place.narrow(square)
    tokens = torch.cat([tokens[:1], square[0].permute(1, 2, 0).reshape(-1, 8)])
    mixed, whole = attend(head, 1, tokens)
    said = head.norms[2](tokens + mixed) @ head.classify.weight.T + head.classify.bias
    row = whole.mean(dim=0)[0, 1:].clamp(min=0)
    row[: side * side - count] += row[count:]
    output = head(bag[None], torch.ones(1, count, dtype=torch.bool))
    torch.testing.assert_close(output.slide_logit[0], said[0])
    torch.testing.assert_close(output.tile_logit[0], said[1 : count + 1])
    if row[:count].sum() > 0:
        torch.testing.assert_close(output.attention[0], row[:count] / row[:count].sum())
    else:
        assert output.attention[0].tolist() == pytest.approx([1 / count] * count)


def attend(head: TransformerHead, index: int, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One attention layer by explicit matrices: its N x H result and its A x N x N weights."""
    layer = (head.first, head.second)[index]
    fill = -len(tokens) % 4
    x = torch.cat([tokens.new_zeros(fill, 8), head.norms[index](tokens)])
    query, key, value = (x @ layer.project.weight.T).reshape(-1, 3, 2, 4).permute(1, 2, 0, 3)
    query = query / 2  # the root of 4 numbers a head
    means = [part.reshape(2, 4, -1, 4).mean(dim=2) for part in (query, key)]
    between = (means[0] @ means[1].mT).softmax(-1)
    inverse = between.mT / (between.sum(-1).max() * between.sum(-2).max())
    for _ in range(6):
        step = between @ inverse
        one = torch.eye(4).double()
        inverse = 0.25 * inverse @ (13 * one - step @ (15 * one - step @ (7 * one - step)))
    whole = (query @ means[1].mT).softmax(-1) @ inverse @ (means[0] @ key.mT).softmax(-1)
    mixed = whole @ value + layer.residual(value[None])[0]
    joined = mixed.permute(1, 0, 2).reshape(-1, 8) @ layer.out.weight.T + layer.out.bias
    return joined[fill:], whole[:, fill:, fill:]


@torch.inference_mode()
def test_one_kernel_is_the_sum_of_three() -> None:
    place = PyramidPositions(3).double()
    square = torch.randn(2, 3, 4, 4).double()
    expected = square + place.wide(square) + place.middle(square) + place.narrow(square)
    torch.testing.assert_close(place(square), expected)


@torch.inference_mode()
def test_the_place_of_a_tile_matters() -> None:
    head, bag = small(), torch.randn(1, 9, 8).double()
    mask = torch.ones(1, 9, dtype=torch.bool)
    assert not torch.allclose(head(bag, mask).slide_logit, head(bag.flip(1), mask).slide_logit)
