"""CLAM against torchmil with the same weights, and its instance losses by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmil.models import CLAM_SB

from slidetriage.models.heads import ClamHead, HeadOutput

Pad = Callable[..., tuple[Tensor, Tensor]]


def torchmil_twin(head: ClamHead, sampled: int) -> CLAM_SB:
    """Torchmil's CLAM, binary and single-branch, with the weights of `head`."""
    other = CLAM_SB(
        in_shape=(6,),
        att_dim=5,
        k_sample=sampled,
        gated=True,
        feat_ext=nn.Sequential(nn.Linear(6, 9), nn.ReLU()),
    )
    pairs = [
        (other.feat_ext[0], head.embed),
        (other.pool.fc1, head.attend.value),
        (other.pool.fc_gated, head.attend.gate),
        (other.pool.fc2, head.attend.weigh),
        (other.classifier, head.classify),
        (other.inst_classifiers[0], head.instances[0]),
        (other.inst_classifiers[1], head.instances[1]),
    ]
    with torch.no_grad():
        for theirs, ours in pairs:
            for to, value in zip(theirs.parameters(), ours.parameters(), strict=True):
                to.copy_(value)
    return other.double().eval()


def cross_entropy_of_torchmil(logit: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logit, target[:, 0].long())


def margin_of_torchmil(logit: Tensor, target: Tensor) -> Tensor:
    """The smooth top-1 SVM is the cross entropy with 1 added to the logit of the other class."""
    added = functional.one_hot(1 - target[:, 0].long(), 2)
    return cross_entropy_of_torchmil(logit + added, target)


@pytest.mark.parametrize(
    ("kind", "loss"), [("ce", cross_entropy_of_torchmil), ("svm", margin_of_torchmil)]
)
@pytest.mark.parametrize("sampled", [2, 8])
@torch.inference_mode()
def test_same_as_torchmil(
    kind: str,
    loss: Callable[[Tensor, Tensor], Tensor],
    sampled: int,
    bags: list[Tensor],
    pad: Pad,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = ClamHead(
        6,
        1,
        hidden=9,
        attention=5,
        sampled=sampled,
        subtyping=True,
        instance_loss=kind,  # type: ignore[arg-type]  # str
    )
    head.double().eval()
    other = torchmil_twin(head, sampled)
    # Torchmil's own losses cannot be compared: its SVM (1.0.2) gets targets of S x 1, which it
    # spreads to S x 1 x 2 and adds to logits of S x 2, every tile with every other. Which tiles go
    # to which classifier with which target, is torchmil's.
    monkeypatch.setattr(other.inst_loss_fn, "forward", loss)
    features, mask = pad(bags)
    ours = head(features, mask)
    logit, energy, h = other(features, mask, return_att=True, return_emb=True)
    torch.testing.assert_close(ours.slide_logit[:, 0], logit, rtol=1e-4, atol=1e-8)
    weights = energy.masked_fill(~mask, -torch.inf).softmax(-1)  # theirs is before the softmax
    torch.testing.assert_close(ours.attention, weights, rtol=1e-4, atol=1e-8)
    label = torch.tensor([1, 0, 1, 0])
    found = head.auxiliary_loss(ours, features, mask, label)
    # Theirs is the sum over bags and both classes, which the authors divide by the classes.
    theirs = other.compute_inst_loss(energy, h, label, mask)
    assert 2 * found.sum().item() == pytest.approx(theirs.item(), rel=1e-4)


def with_classifiers(head: ClamHead, rows: list[list[list[float]]]) -> ClamHead:
    """`head` with h = features, and the given weights of the instance classifiers, no biases."""
    with torch.no_grad():
        head.embed.weight.copy_(torch.eye(2))
        head.embed.bias.zero_()
        for classifier, weight in zip(head.instances, rows, strict=True):
            classifier.weight.copy_(torch.tensor(weight))
            classifier.bias.zero_()
    return head.double().eval()


def output(attention: list[float]) -> HeadOutput:
    weights = torch.tensor([attention]).double()
    return HeadOutput(weights, weights, weights, weights)


BAG = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0], [7.0, 7.0]]]).double()
MASK = torch.tensor([[True, True, True, False]])
# The first classifier's logits of tile (a, b) are (a, b), the second's (2 b, a).
ROWS = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [1.0, 0.0]]]


def cross_entropy(out: float, inside: float, label: int) -> float:
    return math.log(math.exp(out) + math.exp(inside)) - (inside if label else out)


def margin(out: float, inside: float, label: int) -> float:
    return math.log(math.exp(out + (label == 1)) + math.exp(inside + (label == 0))) - (
        inside if label else out
    )


@pytest.mark.parametrize(("kind", "loss"), [("ce", cross_entropy), ("svm", margin)])
@pytest.mark.parametrize("subtyping", [False, True])
def test_instance_loss_by_hand(
    kind: str, loss: Callable[[float, float, int], float], subtyping: bool
) -> None:
    head = ClamHead(
        2,
        2,
        hidden=2,
        attention=3,
        sampled=1,
        subtyping=subtyping,
        instance_loss=kind,  # type: ignore[arg-type]  # str
    )
    with_classifiers(head, ROWS)
    # The second tile is the most attended, the first the least; the fourth is no tile.
    found = head.auxiliary_loss(output([0.2, 0.5, 0.3, 0.0]), BAG, MASK, torch.tensor([0]))
    expected = (loss(0, 2, 1) + loss(1, 0, 0)) / 2
    if subtyping:
        expected = (expected + loss(4, 0, 0)) / 2
    assert found.tolist() == pytest.approx([expected], rel=1e-6)


def test_each_branch_has_its_own_tiles() -> None:
    head = ClamHead(2, 2, multi_branch=True, hidden=2, attention=3, sampled=1, subtyping=True)
    with_classifiers(head, ROWS)
    branches = torch.tensor([[[0.2, 0.5, 0.3, 0.0], [0.6, 0.1, 0.3, 0.0]]]).double()
    said = output([0.4, 0.3, 0.3, 0.0])._replace(class_attention=branches)
    found = head.auxiliary_loss(said, BAG, MASK, torch.tensor([1]))
    # In class 1: most attended is tile 0, least tile 1. Out of class 0: most attended is tile 1.
    expected = ((margin(0, 1, 1) + margin(4, 0, 0)) / 2 + margin(0, 2, 0)) / 2
    assert found.tolist() == pytest.approx([expected], rel=1e-6)


@torch.inference_mode()
def test_branches_are_separate_attention_heads(bags: list[Tensor]) -> None:
    many = ClamHead(6, 3, multi_branch=True, hidden=9, attention=5).double().eval()
    bag, mask = bags[2][None], torch.ones(1, 11, dtype=torch.bool)
    whole = many(bag, mask)
    assert many.embedding_size == 27
    for index in range(3):
        one = ClamHead(6, 1, hidden=9, attention=5).double().eval()
        state = {
            name: tensor
            for name, tensor in many.state_dict().items()
            if name != "instances.2.weight" and name != "instances.2.bias"
        }
        for name in ("attend.weigh.weight", "classify.weight", "classify.bias"):
            state[name] = state[name][index : index + 1]
        one.load_state_dict(state)
        alone = one(bag, mask)
        torch.testing.assert_close(whole.slide_logit[:, index], alone.slide_logit[:, 0])
        assert whole.class_attention is not None
        torch.testing.assert_close(whole.class_attention[:, index], alone.attention)
        torch.testing.assert_close(whole.embedding[:, index * 9 : index * 9 + 9], alone.embedding)


def test_the_attention_is_not_trained_by_the_instances() -> None:
    head = ClamHead(6, 2, hidden=9, attention=5).double().eval()
    features, mask = torch.randn(1, 5, 6).double(), torch.ones(1, 5, dtype=torch.bool)
    said = head(features, mask)
    head.auxiliary_loss(said, features, mask, torch.tensor([0])).sum().backward()
    assert head.attend.weigh.weight.grad is None
    assert head.instances[0].weight.grad is not None
    assert head.instances[1].weight.grad is None  # not the slide's class, and no subtyping
