"""Attention pooling, plain and gated (Ilse, Tomczak and Welling, ICML 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .contract import Head, HeadOutput, check_count, check_dropout


class AttentionHead(Head):
    r"""Slide logits from the mean of the embedded tiles, weighted by learned attention.

    Equations 7 to 9 of Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance
    Learning", ICML 2018 (arXiv:1802.04712). For the features f_n of tile n:

        h_n = ReLU(E f_n + e)
        a_n = softmax_n(w^T tanh(V h_n))                        (8, plain)
        a_n = softmax_n(w^T (tanh(V h_n) * sigm(U h_n)))        (9, gated)
        z   = sum_n a_n h_n                                     (7)
        slide logit  = C z + c
        tile logit_n = C h_n + c

    V and U carry biases, as in the authors' code. The tile logit is what the slide classifier says
    of a bag of this tile alone. The sizes are those of the paper's histology networks; the paper
    has no dropout in these layers. Where `dropout` is given it acts on h and on the factors of the
    attention, as in CLAM. With more `layers` others come before E, each twice as wide as the next
    (`hidden` 64 and 3 layers: 256, 128, 64, the paper's network for MUSK and ELEPHANT), with ReLU
    and dropout.
    """

    def __init__(  # noqa: PLR0913 - each is a size of the network
        self,
        features: int,
        outputs: int,
        *,
        gated: bool = False,
        hidden: int = 512,
        attention: int = 128,
        dropout: float = 0.0,
        layers: int = 1,
    ) -> None:
        super().__init__(features, outputs)
        self.before = nn.Sequential()
        width = features
        for number in range(check_count("layers", layers) - 1, 0, -1):
            wider = check_count("hidden", hidden) * 2**number
            step = nn.Linear(width, wider), nn.ReLU(), nn.Dropout(check_dropout(dropout))
            self.before.extend(step)
            width = wider
        self.embed = nn.Linear(width, check_count("hidden", hidden))
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.attend = AttentionLogits(hidden, attention, gated=gated, dropout=dropout)
        self.classify = nn.Linear(hidden, outputs)

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide."""
        return self.classify.in_features

    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features."""
        h = self.embed_tiles(features)  # B x N x H
        attention = masked_softmax(self.attend(h), mask).squeeze(1)  # B x N
        z = torch.einsum("bn,bnh->bh", attention, h)  # B x H
        return HeadOutput(self.classify(z), attention, self.classify(h), z)

    def embed_tiles(self, features: Tensor) -> Tensor:
        """... x D -> ... x H, tile by tile."""
        h: Tensor = self.dropout(torch.relu(self.embed(self.before(features))))
        return h


class AttentionLogits(nn.Module):
    """Logits of the attention over tiles, before the softmax: one branch or several.

    The output layer has no bias: the softmax over tiles would take it away again.
    """

    def __init__(
        self,
        hidden: int,
        attention: int,
        *,
        gated: bool,
        branches: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.value = nn.Linear(hidden, check_count("attention", attention))
        self.gate = nn.Linear(hidden, attention) if gated else None
        self.weigh = nn.Linear(attention, branches, bias=False)
        self.dropout = nn.Dropout(check_dropout(dropout))

    def forward(self, h: Tensor) -> Tensor:
        """... x N x H -> ... x N x branches."""
        inner = self.dropout(torch.tanh(self.value(h)))  # ... x N x L
        if self.gate is not None:
            inner = inner * self.dropout(torch.sigmoid(self.gate(h)))  # ... x N x L
        logit: Tensor = self.weigh(inner)  # ... x N x branches
        return logit


def masked_softmax(logit: Tensor, mask: Tensor) -> Tensor:
    """B x N x C logits and B x N mask -> B x C x N weights; 0 where padded, sum to 1 along N."""
    logit = logit.transpose(1, 2).masked_fill(~mask[:, None], -torch.inf)  # B x C x N
    return logit.softmax(-1)
