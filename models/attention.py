"""Gated attention over the tiles of a slide (Ilse, Tomczak and Welling, ICML 2018)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class HeadOutput(NamedTuple):
    """What the head says of a batch of padded bags."""

    slide_logit: Tensor
    """B."""
    attention: Tensor
    """B x N; 0 where padded, sums to 1 along N."""
    tile_logit: Tensor
    """B x N; each tile on its own, whatever its bag; of no meaning where padded."""


class GatedAttentionHead(nn.Module):
    r"""Slide logit by gated attention, and a logit for each tile on its own.

    With h_k = ReLU(E f_k + e) for the features f_k of tile k, the attention is equation 9 of
    Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018
    (arXiv:1802.04712), and the bag is their equation 7:

        a_k = exp(w^T (tanh(V h_k) * sigm(U h_k))) / sum_j exp(w^T (tanh(V h_j) * sigm(U h_j)))
        z   = sum_k a_k h_k
        slide logit  = c^T z + c_0
        tile logit_k = t^T f_k + t_0

    V and U carry biases, as in the authors' code. The tile classifier (t, t_0) sees the features
    themselves, so a tile's score depends on no other tile.
    """

    def __init__(self, features: int, *, hidden: int, attention: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.attend = nn.Linear(hidden, attention)
        self.gate = nn.Linear(hidden, attention)
        self.weigh = nn.Linear(attention, 1, bias=False)
        self.slide = nn.Linear(hidden, 1)
        self.tile = nn.Linear(features, 1)

    def forward(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score bags.

        Parameters
        ----------
        features
            B x N x D, float; anything finite where padded.
        mask
            B x N, bool; True is a tile, False is padding. Each bag has at least one tile.
        """
        h, logit = self.embed_tiles(features)  # B x N x H, B x N
        attention = logit.masked_fill(~mask, -torch.inf).softmax(-1)  # B x N
        z = torch.einsum("bn,bnh->bh", attention, h)  # B x H
        return HeadOutput(self.slide(z).squeeze(-1), attention, self.tile_logit(features))

    def embed_tiles(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """... x D -> h, ... x H, and the logits of the attention, ...; tile by tile."""
        h = torch.relu(self.embed(features))  # ... x H
        gated = torch.tanh(self.attend(h)) * torch.sigmoid(self.gate(h))  # ... x L
        return h, self.weigh(gated).squeeze(-1)

    def tile_logit(self, features: Tensor) -> Tensor:
        """... x D -> ... logits of the positive class, tile by tile."""
        logit: Tensor = self.tile(features)  # ... x 1
        return logit.squeeze(-1)
