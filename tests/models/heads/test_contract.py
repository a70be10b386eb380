"""What every head promises, asked of every head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.heads import HEADS, Head, build_head, list_heads

Pad = Callable[..., tuple[Tensor, Tensor]]

SMALL: dict[str, dict[str, Any]] = {
    "attention": {"hidden": 7, "attention": 5},
    "clam_mb": {"hidden": 7, "attention": 5, "sampled": 2, "subtyping": True},
    "clam_sb": {"hidden": 7, "attention": 5, "sampled": 2},
    "dsmil": {"query": 5},
    "gated_attention": {"hidden": 7, "attention": 5},
    "max": {"hidden": 7},
    "mean": {"hidden": 7},
    "nnmil": {"sampled": 4, "attention": 5},
    "transmil": {"hidden": 8, "heads": 2, "landmarks": 4},
}

every_head = pytest.mark.parametrize("name", list_heads())
WITHOUT_ORDER = sorted(set(HEADS) - {"transmil"})  # TransMIL places the tiles in a square


def small(name: str, outputs: int = 3, **arguments: Any) -> Head:
    return build_head(name, 6, outputs, **SMALL[name], **arguments).double().eval()


@pytest.mark.parametrize("outputs", [1, 3])
@every_head
@torch.inference_mode()
def test_a_padded_batch_equals_its_bags_one_by_one(
    name: str, outputs: int, bags: list[Tensor], pad: Pad
) -> None:
    head = small(name, outputs)
    features, mask = pad(bags, filler=float("nan"))  # nothing of the padding may get through
    batch = head(features, mask)
    assert batch.slide_logit.shape == (4, outputs)
    assert batch.tile_logit.shape == (*mask.shape, outputs)
    assert batch.embedding.shape == (4, head.embedding_size)
    for index, bag in enumerate(bags):
        alone = head(bag[None], torch.ones(1, len(bag), dtype=torch.bool))
        tile = mask[index]
        close = {"rtol": 1e-9, "atol": 1e-9}
        torch.testing.assert_close(batch.slide_logit[index], alone.slide_logit[0], **close)
        torch.testing.assert_close(batch.embedding[index], alone.embedding[0], **close)
        torch.testing.assert_close(batch.attention[index, tile], alone.attention[0], **close)
        torch.testing.assert_close(batch.tile_logit[index, tile], alone.tile_logit[0], **close)
        if batch.class_attention is not None:
            assert alone.class_attention is not None
            torch.testing.assert_close(
                batch.class_attention[index][:, tile], alone.class_attention[0], **close
            )


@every_head
@torch.inference_mode()
def test_attention_is_a_share_of_each_tile(name: str, bags: list[Tensor], pad: Pad) -> None:
    features, mask = pad(bags)
    output = small(name)(features, mask)
    assert (output.attention[~mask] == 0).all()
    assert (output.attention >= 0).all()
    np.testing.assert_allclose(output.attention.sum(-1), 1, rtol=1e-12)
    if output.class_attention is not None:
        assert output.class_attention.shape == (4, 3, mask.shape[1])
        np.testing.assert_allclose(output.class_attention.mean(1), output.attention, rtol=1e-12)
        np.testing.assert_allclose(output.class_attention.sum(-1), 1, rtol=1e-12)


@every_head
@torch.inference_mode()
def test_single_precision_and_extreme_features_stay_finite(name: str) -> None:
    head = small(name).float()
    features = torch.randn(2, 5, 6) * torch.tensor([1e3, 1e-6])[:, None, None]
    mask = torch.tensor([[False, False, True, False, False], [True] * 5])  # one tile alone
    output = head(features, mask)
    assert output.slide_logit.isfinite().all()
    assert output.attention[0].tolist() == [0, 0, 1, 0, 0]
    np.testing.assert_allclose(output.attention.sum(-1), 1, rtol=1e-5)


@every_head
def test_gradients_reach_every_parameter(name: str, bags: list[Tensor], pad: Pad) -> None:
    head = small(name).train()
    features, mask = pad(bags)
    output = head(features, mask)
    label = torch.tensor([0, 1, 2, 1])
    loss = output.slide_logit.square().sum()
    loss = loss + head.auxiliary_loss(output, features, mask, label).sum()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert (parameter.grad != 0).any(), parameter_name


@every_head
def test_padding_gets_no_gradient(name: str, bags: list[Tensor], pad: Pad) -> None:
    features, mask = pad(bags)
    features.requires_grad_()
    small(name)(features, mask).slide_logit.sum().backward()
    assert features.grad is not None
    assert (features.grad[~mask] == 0).all()
    assert (features.grad[mask] != 0).any()


@pytest.mark.parametrize("name", WITHOUT_ORDER)
@torch.inference_mode()
def test_the_order_of_tiles_does_not_matter(name: str, bags: list[Tensor]) -> None:
    head, bag = small(name), bags[2][None]
    order = torch.randperm(bag.shape[1])
    mask = torch.ones(bag.shape[:2], dtype=torch.bool)
    plain, moved = head(bag, mask), head(bag[:, order], mask)
    torch.testing.assert_close(moved.slide_logit, plain.slide_logit)
    torch.testing.assert_close(moved.attention, plain.attention[:, order])
    torch.testing.assert_close(moved.tile_logit, plain.tile_logit[:, order])


@pytest.mark.parametrize("name", sorted(set(WITHOUT_ORDER) - {"dsmil"}))
@torch.inference_mode()
def test_tile_logits_are_the_slide_logits_of_each_tile_alone(name: str, bags: list[Tensor]) -> None:
    head, bag = small(name), bags[2]
    together = head(bag[None], torch.ones(1, len(bag), dtype=torch.bool))
    alone = head(bag[:, None], torch.ones(len(bag), 1, dtype=torch.bool))
    torch.testing.assert_close(together.tile_logit[0], alone.slide_logit)


@every_head
@torch.inference_mode()
def test_eval_repeats_itself_and_training_drops(name: str, bags: list[Tensor], pad: Pad) -> None:
    head = small(name)
    features, mask = pad(bags)
    first, second = head(features, mask), head(features, mask)
    assert torch.equal(first.slide_logit, second.slide_logit)
    assert torch.equal(first.attention, second.attention)
    values = {"dropout": 0.5}
    if name == "dsmil":
        values["project_values"] = True
    head = small(name, **values).train()
    assert not torch.equal(head(features, mask).slide_logit, head(features, mask).slide_logit)


@every_head
@torch.inference_mode()
def test_targets_without_classes_have_no_auxiliary_loss(
    name: str, bags: list[Tensor], pad: Pad
) -> None:
    head = small(name, 1)
    features, mask = pad(bags)
    loss = head.auxiliary_loss(head(features, mask), features, mask, None)
    assert loss.tolist() == [0, 0, 0, 0]
    assert 0 <= head.auxiliary_weight < 1


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", ["clam_mb", "clam_sb", "dsmil"])
@torch.inference_mode()
def test_auxiliary_losses_do_not_depend_on_padding(
    name: str, outputs: int, bags: list[Tensor], pad: Pad
) -> None:
    head = small(name, outputs)
    features, mask = pad(bags)
    label = torch.tensor([0, 1, 1, 0])
    together = head.auxiliary_loss(head(features, mask), features, mask, label)
    assert together.shape == (4,)
    assert (together > 0).all()
    for index, bag in enumerate(bags):
        whole = torch.ones(1, len(bag), dtype=torch.bool)
        output = head(bag[None], whole)
        alone = head.auxiliary_loss(output, bag[None], whole, label[index : index + 1])
        torch.testing.assert_close(together[index], alone[0])


@pytest.mark.parametrize(
    "label",
    [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])],
)
@pytest.mark.parametrize("name", ["clam_mb", "clam_sb", "dsmil"])
def test_labels_that_are_no_classes_are_refused(name: str, label: Tensor) -> None:
    head, features = small(name), torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(UsageError, match=r"[Ll]abels"):
        head.auxiliary_loss(head(features, mask), features, mask, label)


def test_bags_of_other_shapes_are_refused() -> None:
    head, mask = small("mean"), torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(UsageError, match=r"B x N x 6 floats, not \(2, 4, 5\)"):
        head(torch.zeros(2, 4, 5), mask)
    with pytest.raises(UsageError, match=r"torch\.int64"):
        head(torch.zeros(2, 4, 6, dtype=torch.int64), mask)
    with pytest.raises(UsageError, match=r"mask must be \(2, 4\) bool"):
        head(torch.zeros(2, 4, 6).double(), mask.long())
    with pytest.raises(UsageError, match=r"not \(2, 3\)"):
        head(torch.zeros(2, 4, 6).double(), mask[:, :3])
    with pytest.raises(UsageError, match=r"are torch.float32, the weights .* torch.float64"):
        head(torch.zeros(2, 4, 6), mask)
    mask[1] = False
    with pytest.raises(ModelError, match=r"Bags without any tile: \[1\]"):
        head(torch.zeros(2, 4, 6).double(), mask)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.size = max([self.size, *sizes])
        return made


@every_head
def test_memory_grows_no_faster_than_the_bag(name: str) -> None:
    head, sizes = small(name).float().train(), []
    for count in (1024, 4096):
        with Largest() as largest:
            features = torch.randn(1, count, 6)
            output = head(features, torch.ones(1, count, dtype=torch.bool))
            output.slide_logit.sum().backward()
        sizes.append(largest.size)
    assert sizes[0] >= 1024
    assert sizes[1] < 4.1 * sizes[0]


@every_head
@torch.inference_mode()
def test_half_precision_says_about_the_same(name: str, bags: list[Tensor], pad: Pad) -> None:
    head = small(name).float()
    features, mask = pad([bag.float() for bag in bags], filler=0)
    exact = head(features, mask)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = head(features, mask)
        loss = head.auxiliary_loss(coarse, features, mask, torch.tensor([0, 1, 2, 1]))
    assert loss.isfinite().all()
    np.testing.assert_allclose(coarse.slide_logit.float(), exact.slide_logit, rtol=0, atol=0.1)
    np.testing.assert_allclose(coarse.attention.float().sum(-1), 1, rtol=0.02)


def test_names_of_the_weights_are_stable() -> None:
    attention = ["embed", "attend.value", "classify"]
    gated = [*attention, "attend.gate"]
    clam = [*gated, "instances.0", "instances.1", "instances.2"]
    layers = ["embed", "norms.0", "norms.1", "norms.2", "first.out", "second.out", "classify"]
    layers += ["position.wide", "position.middle", "position.narrow"]
    projections = [
        f"{layer}.{part}.weight"
        for layer in ("first", "second")
        for part in ("project", "residual")
    ]
    expected = {
        "attention": both(attention) | {"attend.weigh.weight"},
        "clam_mb": both(clam) | {"attend.weigh.weight"},
        "clam_sb": both(clam) | {"attend.weigh.weight"},
        "dsmil": both(["instance", "query.0", "query.2", "classify"]),
        "gated_attention": both(gated) | {"attend.weigh.weight"},
        "max": both(["embed", "classify"]),
        "mean": both(["embed", "classify"]),
        "nnmil": both(["value", "gate", "classify"]) | {"weigh.weight", "order"},
        "transmil": both(layers) | {"token", *projections},
    }
    assert {name: set(small(name).state_dict()) for name in HEADS} == expected


def both(layers: list[str]) -> set[str]:
    return {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


@every_head
def test_weights_go_from_one_head_to_another(name: str, bags: list[Tensor], pad: Pad) -> None:
    features, mask = pad(bags)
    one, other = small(name), small(name)
    assert not torch.equal(one(features, mask).slide_logit, other(features, mask).slide_logit)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(features, mask).slide_logit, other(features, mask).slide_logit)


@every_head
def test_defaults_build_and_score(name: str) -> None:
    head = build_head(name, 384, 2).eval()
    with torch.inference_mode():
        output = head(torch.randn(1, 30, 384), torch.ones(1, 30, dtype=torch.bool))
    assert output.slide_logit.isfinite().all()
