"""DSMIL against the authors' equations in NumPy on their weights, and against torchmil."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmil.models import DSMIL

from slidetriage.errors import ModelError
from slidetriage.models.heads import DualStreamHead

Pad = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture
def published(data: Callable[[str], Path]) -> dict[str, Tensor]:
    path = data("weights/dsmil_c16_aggregator.pth")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def streams(p: dict[str, np.ndarray], bag: np.ndarray) -> tuple[np.ndarray, ...]:
    """Scores of tiles, attention and bag stream as the authors' code computes them for one bag."""
    score = bag @ p["i_classifier.fc.0.weight"].T + p["i_classifier.fc.0.bias"]
    hidden = np.maximum(bag @ p["b_classifier.q.0.weight"].T + p["b_classifier.q.0.bias"], 0)
    query = np.tanh(hidden @ p["b_classifier.q.2.weight"].T + p["b_classifier.q.2.bias"])
    kernel = p["b_classifier.fcc.weight"]  # K x K x D
    columns, rows = [], []
    for index in range(score.shape[1]):
        critical = query[np.argsort(-score[:, index])[0]]
        energy = np.exp(query @ critical / math.sqrt(len(critical)))
        columns.append(energy / energy.sum())
        rows.append(columns[-1] @ bag)
    logit = [(kernel[index] * np.array(rows)).sum() for index in range(len(kernel))]
    return score, np.array(columns), np.array(logit) + p["b_classifier.fcc.bias"]


@pytest.mark.parametrize("average", [False, True])
@torch.inference_mode()
def test_published_weights_give_the_authors_numbers(
    published: dict[str, Tensor], pad: Pad, average: bool
) -> None:
    head = DualStreamHead.from_published(published, average=average).eval()
    assert head.features == 512
    rng = np.random.default_rng(11)
    bags = [np.abs(rng.normal(size=(count, 512))) for count in (1, 40, 7)]
    features, mask = pad([torch.from_numpy(bag).float() for bag in bags])
    output = head(features, mask)
    p = {name: tensor.double().numpy() for name, tensor in published.items()}
    for index, bag in enumerate(bags):
        score, attention, logit = streams(p, bag)
        if average:
            logit = (logit + score.max(axis=0)) / 2
        tile = mask[index]
        np.testing.assert_allclose(output.slide_logit[index], logit, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(output.tile_logit[index, tile], score, rtol=1e-4, atol=1e-5)
        assert output.class_attention is not None
        np.testing.assert_allclose(
            output.class_attention[index][:, tile], attention, rtol=1e-4, atol=1e-7
        )


@torch.inference_mode()
def test_several_classes_mix_their_bags(bags: list[Tensor]) -> None:
    head = DualStreamHead(6, 3, query=5).double().eval()
    ours = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    names = {"instance": "i_classifier.fc.0", "query.0": "b_classifier.q.0"}
    names |= {"query.2": "b_classifier.q.2", "classify": "b_classifier.fcc"}
    p = {
        f"{theirs}.{part}": ours[f"{name}.{part}"]
        for name, theirs in names.items()
        for part in ("weight", "bias")
    }
    p["b_classifier.fcc.weight"] = p["b_classifier.fcc.weight"].reshape(3, 3, 6)
    score, attention, logit = streams(p, bags[2].numpy())
    output = head(bags[2][None], torch.ones(1, 11, dtype=torch.bool))
    np.testing.assert_allclose(output.slide_logit[0], (logit + score.max(axis=0)) / 2, rtol=1e-9)
    assert output.class_attention is not None
    np.testing.assert_allclose(output.class_attention[0], attention, rtol=1e-9)
    # What the classifier sees: the bags of the classes, then their critical tiles.
    assert output.embedding.shape == (1, head.embedding_size) == (1, 36)
    critical = bags[2][score.argmax(axis=0)]
    torch.testing.assert_close(output.embedding[0, 18:].reshape(3, 6), critical)


@pytest.mark.parametrize("nonlinear", [False, True])
@torch.inference_mode()
def test_same_as_torchmil(nonlinear: bool, bags: list[Tensor], pad: Pad) -> None:
    arguments = {"nonlinear_query": nonlinear, "project_values": nonlinear}
    head = DualStreamHead(6, 1, query=5, average=False, **arguments).double().eval()
    other = DSMIL(in_shape=(6,), att_dim=5, nonlinear_q=nonlinear, nonlinear_v=nonlinear)
    names = {"instance": "inst_classifier", "classify": "bag_classifier", "value": "v_nn"}
    names["query"] = "q_nn"
    state = {}
    for name, tensor in head.state_dict().items():
        layer, _, rest = name.partition(".")
        state[f"{names[layer]}.{rest}"] = tensor
    other.load_state_dict(state)
    other = other.double().eval()
    features, mask = pad(bags)
    # Torchmil looks for the critical tile in the padding too; here that scores below any tile.
    features[~mask] = -1e4 * head.instance.weight[0]
    ours = head(features, mask)
    logit, attention, score = other(features, mask, return_att=True, return_inst_pred=True)
    close = {"rtol": 1e-4, "atol": 1e-8}
    torch.testing.assert_close(ours.slide_logit[:, 0], logit, **close)
    torch.testing.assert_close(ours.attention, attention.reshape(mask.shape), **close)
    torch.testing.assert_close(ours.tile_logit[..., 0][mask], score[mask], **close)
    head.average = True
    both = head(features, mask)
    torch.testing.assert_close(both.slide_logit[:, 0], other.predict(features, mask), **close)


def test_highest_tile_is_trained_by_its_own_loss() -> None:
    head = DualStreamHead(2, 1).double()
    with torch.no_grad():
        head.instance.weight.copy_(torch.tensor([[1.0, 0.0]]))
        head.instance.bias.fill_(0.25)
    features = torch.tensor([[[0.5, 9.0], [-2.0, 9.0], [8.0, 0.0]]]).double()
    mask = torch.tensor([[True, True, False]])
    for label, expected in ((1, math.log1p(math.exp(-0.75))), (0, math.log1p(math.exp(0.75)))):
        loss = head.auxiliary_loss(head(features, mask), features, mask, torch.tensor([label]))
        assert loss.tolist() == pytest.approx([expected])


def test_other_state_dicts_are_refused(published: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match=r"missing \['b_classifier.fcc.bias'.*unknown \['fc'\]"):
        DualStreamHead.from_published({"fc": torch.zeros(1)})
    published["b_classifier.q.2.bias"] = torch.zeros(3)
    with pytest.raises(ModelError, match=r"do not go together.*query\.2\.bias"):
        DualStreamHead.from_published(published)
