"""TransMIL, a transformer over the tiles of a slide (Shao et al., NeurIPS 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Head, HeadOutput, check_count
from .nystrom import NystromAttention


class TransformerHead(Head):
    r"""Slide logits from a class token that attended to all tiles, twice.

    Shao, Bian, Chen, Wang, Zhang, Ji and Zhang, "TransMIL: Transformer based Correlated Multiple
    Instance Learning for Whole Slide Image Classification", NeurIPS 2021 (arXiv:2106.00908),
    algorithms 1 and 2. For the features f_n of tile n, in the order given:

        h_n = ReLU(E f_n + e)
        h   = [token; h_1 ... h_N; h_1 ... h_r]      with N + r the next square S x S
        h   = h + Nystrom(LN(h))
        h   = [token; PPEG(tiles as S x S)]          PPEG(x) = x + conv7(x) + conv5(x) + conv3(x)
        h   = h + Nystrom(LN(h))
        z   = LN(h)_token
        slide logit  = C z + c
        tile logit_n = C LN(h)_n + c

    The tile logit is what the slide classifier says of the tile's own token. Of all heads here this
    is the one whose tile evidence depends on the other tiles, and on their order.

    The attention is the row of the token in the second layer, the mean over heads. Negative
    weights, which the Nystrom approximation has, are set to 0, a repeated tile gets the weights of
    both its tokens, and the rest is scaled to sum 1. It carries no gradient.

    Bags go one by one, without their padding, since squares and landmarks depend on their length.
    The default has the authors' sizes: 8 heads, M = H / 2 landmarks, 6 iterations, dropout 0.1.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        hidden: int = 512,
        heads: int = 8,
        landmarks: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(features, outputs)
        self.embed = nn.Linear(features, check_count("hidden", hidden))
        self.token = nn.Parameter(torch.randn(1, 1, hidden))
        if landmarks is None:
            landmarks = max(1, hidden // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3))
        self.first, self.second = (
            NystromAttention(hidden, heads=heads, landmarks=landmarks, dropout=dropout)
            for _ in range(2)
        )
        self.position = PyramidPositions(hidden)
        self.classify = nn.Linear(hidden, outputs)

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide."""
        return self.classify.in_features

    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features."""
        embeddings, attentions, tiles = [], [], []
        for bag, tile in zip(features, mask, strict=True):  # N x D, N
            h, attention = self._transform(bag[tile])  # (n + 1) x H, n
            h = self.norms[2](h)  # (n + 1) x H
            logit = self.classify(h[1:])  # n x K
            embeddings.append(h[0])
            attentions.append(attention.new_zeros(len(tile)).masked_scatter(tile, attention))
            wide = tile[:, None].expand(-1, self.outputs)  # N x K
            tiles.append(logit.new_zeros(wide.shape).masked_scatter(wide, logit))
        embedding = torch.stack(embeddings)  # B x H
        return HeadOutput(
            self.classify(embedding), torch.stack(attentions), torch.stack(tiles), embedding
        )

    def _transform(self, bag: Tensor) -> tuple[Tensor, Tensor]:
        """From n x D: (n + 1) x H, the slide's token and the tiles', and n attention weights."""
        h = torch.relu(self.embed(bag))[None]  # 1 x n x H
        count, side = len(bag), math.isqrt(len(bag) - 1) + 1
        h = torch.cat([self.token, h, h[:, : side * side - count]], dim=1)  # 1 x (S S + 1) x H
        parts = self.first.prepare(self.norms[0](h))
        h = h + self.first.mix(parts, h.shape[1])  # 1 x (S S + 1) x H
        square = h[:, 1:].transpose(1, 2).reshape(1, -1, side, side)  # 1 x H x S x S
        placed = self.position(square).flatten(2).transpose(1, 2)  # 1 x (S S) x H
        h = torch.cat([h[:, :1], placed], dim=1)  # 1 x (S S + 1) x H
        parts = self.second.prepare(self.norms[1](h))
        h = h + self.second.mix(parts, h.shape[1])  # 1 x (S S + 1) x H
        with torch.no_grad():
            row = self.second.row(parts, h.shape[1]).mean(dim=1)[0, 1:]  # S S
        return h[0, : count + 1], _as_attention(row, count)


class PyramidPositions(nn.Module):
    """PPEG: three convolutions of the square of tiles, channel by channel, added to it.

    They are added up into one kernel of 7 x 7 first, which is the same sum.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (
            nn.Conv2d(size, size, side, padding=side // 2, groups=size) for side in (7, 5, 3)
        )

    def forward(self, square: Tensor) -> Tensor:
        """B x H x S x S -> B x H x S x S."""
        kernel = self.wide.weight + functional.pad(
            self.middle.weight, (1, 1, 1, 1)
        )  # H x 1 x 7 x 7
        kernel = kernel + functional.pad(self.narrow.weight, (2, 2, 2, 2))  # H x 1 x 7 x 7
        itself = functional.pad(kernel.new_ones(1, 1, 1, 1), (3, 3, 3, 3))  # 1 x 1 x 7 x 7
        parts = (self.wide.bias, self.middle.bias, self.narrow.bias)
        bias = torch.stack([part for part in parts if part is not None]).sum(dim=0)  # H
        return functional.conv2d(square, kernel + itself, bias, padding=3, groups=len(kernel))


def _as_attention(row: Tensor, count: int) -> Tensor:
    """Weights of the S x S tokens -> `count` weights of tiles, from 0 and with sum 1."""
    row = row.clamp(min=0)  # S S
    attention = row[:count].clone()  # n
    attention[: len(row) - count] += row[count:]
    total = attention.sum()
    # A row without any positive weight says nothing of the tiles.
    return attention / total if total > 0 else torch.full_like(attention, 1 / count)
