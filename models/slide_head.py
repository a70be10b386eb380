"""What a bundle has behind its encoder: a head of one logit, and perhaps a classifier of tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .heads import AttentionHead, Head, HeadOutput, PoolingHead


class SlideHead(nn.Module):
    r"""A head over standardised features, and a logit for each tile.

        slide logit  = head((f - mean) / sd)
        tile logit_k = t^T f_k + t_0                     (with a tile classifier)
        tile logit_k = what the head says of tile k      (without)

    With a classifier, and with heads of attention or pooling, a tile's logit depends on no other
    tile (`tile_wise`); other heads see it in its bag. Mean and sd are 0 and 1 where a head learned
    from features as they are.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, head: Head, *, tile_classifier: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(head.features))
        self.register_buffer("sd", torch.ones(head.features))
        self.head = head
        self.tile = nn.Linear(head.features, 1) if tile_classifier else None

    @property
    def features(self) -> int:
        """D, the numbers per tile."""
        return self.head.features

    def standardise(self, features: Tensor) -> Tensor:
        """... x D as the head takes them."""
        return (features - self.mean) / self.sd

    def forward(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score B x N x D features of which B x N are tiles (see `Head`)."""
        output: HeadOutput = self.head(self.standardise(features), mask)
        return output

    @property
    def tile_wise(self) -> bool:
        """Whether tiles are scored one by one, whatever their bag."""
        return self.tile is not None or isinstance(self.head, AttentionHead | PoolingHead)

    def tile_logit(self, features: Tensor) -> Tensor:
        """N x D -> N logits of the positive class; of one bag where not `tile_wise`."""
        if self.tile is not None:
            logit: Tensor = self.tile(features)  # N x 1
            return logit.squeeze(-1)
        mask = torch.ones((1, len(features)), dtype=torch.bool, device=features.device)
        return self.forward(features[None], mask).tile_logit[0, :, 0]
