"""nnMIL's aggregator, attention from changing subsets of the features (Luo et al., 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attention import masked_softmax
from .contract import Head, HeadOutput, check_count, check_dropout


class FeatureSamplingHead(Head):
    r"""Gated attention that sees some of the features at a time; in `eval` the mean over windows.

    Luo, Xiang, Ji and Li, "nnMIL: A generalizable multiple instance learning framework for
    computational pathology", 2025 (arXiv:2511.14907), with the constants of the authors' code. For
    the features f_n of tile n and a set G of L of the D features, V_G and U_G being the columns of
    V and U for them:

        a_n(G) = softmax_n(w^T (tanh(V_G f_nG + v) * sigm(U_G f_nG + u)))
        z      = mean_G sum_n a_n(G) f_n
        slide logit  = C z + c
        tile logit_n = C f_n + c

    In training there is one G, drawn anew for each batch. In `eval` mode the features stand in an
    order drawn once, which is part of the weights, and G slides over them by L / 4. There is no
    embedding layer: all D features are pooled and classified. The authors average logits over
    windows, which is this since the classifier is linear; for Cox models they average hazards
    instead, which this head does not.

    Why this one of the methods since the end of 2024. Of those found it was evaluated most widely:
    40,000 slides, 35 tasks and four encoders, for diagnosis, subtypes, biomarkers and survival,
    with external cohorts; its authors report it ahead of the methods they compared. It is hardly
    more than gated attention: memory is linear in tiles, and the evidence of a tile depends on no
    other. Beside it stood ABMILX (Tang et al., NeurIPS 2025, arXiv:2506.02408), made for training
    the encoder along and of quadratic cost; MAMMOTH (Shao et al., ICLR 2026, arXiv:2603.22198),
    better in 130 of 152 comparisons, all of them classification, with 4,800 routing weights a tile
    in place of the embedding layer; and SiMLP (arXiv:2502.20823), the mean of tiles and a small
    network. The evidence is the authors' own, from a preprint, and for their whole recipe, in which
    large batches of sampled tiles have a part that is not told apart here.
    """

    order: Tensor

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        sampled: int = 256,
        attention: int = 256,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(features, outputs)
        self.sampled = min(check_count("sampled", sampled), features)
        self.value = nn.Linear(features, check_count("attention", attention))
        self.gate = nn.Linear(features, attention)
        self.weigh = nn.Linear(attention, 1, bias=False)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.classify = nn.Linear(features, outputs)
        self.register_buffer("order", torch.randperm(features))

    @property
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide."""
        return self.features

    def windows(self) -> list[Tensor]:
        """Sets of features, L indices each: one at random in training, else those of `eval`."""
        if self.sampled == self.features:
            return [self.order]
        if self.training:
            return [torch.randperm(self.features, device=self.order.device)[: self.sampled]]
        last = self.features - self.sampled
        starts = sorted({*range(0, last, max(1, self.sampled // 4)), last})
        return [self.order[start : start + self.sampled] for start in starts]

    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features."""
        windows = self.windows()
        attention = sum(
            (masked_softmax(self._attend(features, window), mask) for window in windows),
            start=features.new_zeros(()),
        )  # B x 1 x N
        attention = attention / len(windows)  # B x 1 x N
        z = (attention @ features).squeeze(1)  # B x D
        return HeadOutput(self.classify(z), attention.squeeze(1), self.classify(features), z)

    def _attend(self, features: Tensor, window: Tensor) -> Tensor:
        """B x N x D -> B x N x 1 logits of the attention, from the features of the window."""
        part = features[..., window]  # B x N x L
        value, gate = (
            functional.linear(part, layer.weight[:, window], layer.bias)  # B x N x A
            for layer in (self.value, self.gate)
        )
        inner = self.dropout(torch.tanh(value)) * self.dropout(torch.sigmoid(gate))  # B x N x A
        logit: Tensor = self.weigh(inner)  # B x N x 1
        return logit
