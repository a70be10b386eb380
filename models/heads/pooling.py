"""Mean and max pooling of embedded tiles (Wang et al., Pattern Recognition 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from slidetriage.errors import UsageError

from .contract import Head, HeadOutput, check_count, check_dropout


class PoolingHead(Head):
    r"""Slide logits from the mean or the maximum of the embedded tiles.

    The embedding-space networks (MI-Net) of Wang, Yan, Tang, Bai and Liu, "Revisiting multiple
    instance neural networks", Pattern Recognition 74 (2018) (arXiv:1610.02501), with one layer of
    embedding. For the features f_n of tile n:

        h_n = ReLU(E f_n + e)
        z   = 1/N sum_n h_n          (mean)
        z_i = max_n h_ni             (max)
        slide logit  = C z + c
        tile logit_n = C h_n + c

    The attention is what each tile gave to z: 1/N for the mean; for the maximum the share of the
    units of z that are the tile's own, shared evenly where several tiles have the same value.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        pool: Literal["mean", "max"],
        hidden: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(features, outputs)
        if pool not in ("mean", "max"):
            raise UsageError(f"There is no pooling {pool!r}.", mend="Choose mean or max.")
        self.pool = pool
        self.embed = nn.Linear(features, check_count("hidden", hidden))
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.classify = nn.Linear(hidden, outputs)

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide."""
        return self.classify.in_features

    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features."""
        h = self.dropout(torch.relu(self.embed(features)))  # B x N x H
        if self.pool == "mean":
            tile = mask.to(h.dtype)  # B x N
            attention = tile / tile.sum(-1, keepdim=True)  # B x N
            z = torch.einsum("bn,bnh->bh", attention, h)  # B x H
        else:
            z = h.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)  # B x H
            attention = _share_of_maximum(h.detach(), z.detach(), mask)  # B x N
        return HeadOutput(self.classify(z), attention, self.classify(h), z)


def _share_of_maximum(h: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    largest = ((h == z[:, None]) & mask[..., None]).to(h.dtype)  # B x N x H
    return torch.einsum("bnh,bh->bn", largest, 1 / largest.sum(dim=1)) / h.shape[2]  # B x N
