"""Mean and max pooling against numbers by hand and against torchmil."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmil.nn import MaxPool, MeanPool

from slidetriage.errors import UsageError
from slidetriage.models.heads import PoolingHead

Pad = Callable[..., tuple[Tensor, Tensor]]


def by_hand(pool: str) -> PoolingHead:
    """Two features are the embedding itself; the logit is h_0 + 10 h_1 + 0.5."""
    head = PoolingHead(2, 1, pool=pool, hidden=2).double().eval()  # type: ignore[arg-type]  # str
    with torch.no_grad():
        head.embed.weight.copy_(torch.eye(2))
        head.embed.bias.zero_()
        head.classify.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.classify.bias.fill_(0.5)
    return head


@torch.inference_mode()
def test_numbers_by_hand() -> None:
    bag = torch.tensor([[[1.0, 4.0], [3.0, -2.0], [2.0, 4.0], [9.0, 9.0]]]).double()
    mask = torch.tensor([[True, True, True, False]])
    mean = by_hand("mean")(bag, mask)
    # The rectifier makes -2 a 0: means 2 and 8/3.
    assert mean.slide_logit.item() == pytest.approx(2 + 80 / 3 + 0.5)
    assert mean.attention[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert mean.tile_logit[0, :3, 0].tolist() == pytest.approx([41.5, 3.5, 42.5])
    largest = by_hand("max")(bag, mask)
    assert largest.slide_logit.item() == pytest.approx(3 + 40 + 0.5)
    # Unit 0 is the second tile's; unit 1 is shared by the first and the third.
    assert largest.attention[0].tolist() == pytest.approx([0.25, 0.5, 0.25, 0])
    assert largest.embedding[0].tolist() == [3, 4]


@pytest.mark.parametrize(("pool", "other"), [("mean", MeanPool()), ("max", MaxPool())])
@torch.inference_mode()
def test_same_embedding_as_torchmil(
    pool: str, other: torch.nn.Module, bags: list[Tensor], pad: Pad
) -> None:
    features, mask = pad(bags)
    head = PoolingHead(6, 2, pool=pool, hidden=9).double().eval()  # type: ignore[arg-type]  # str
    h = torch.relu(head.embed(features))
    torch.testing.assert_close(head(features, mask).embedding, other(h, mask), rtol=1e-4, atol=0)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(UsageError, match="no pooling 'median'"):
        PoolingHead(2, 1, pool="median")  # type: ignore[arg-type]  # what is tested
