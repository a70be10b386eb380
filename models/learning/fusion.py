"""A slide model: standardised features, a head over the tiles, and clinical columns added late."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slidetriage.errors import UsageError
from slidetriage.models.heads import Head, HeadOutput


class SlideModel(nn.Module):
    r"""A head over standardised features, whose logits clinical covariates shift.

        logit = head((tiles - mean) / sd) + W c

    for C covariates c (see `CovariateCoder`): what each adds can be read from W, and without
    covariates it is the head alone. This is late fusion by sum, in which neither part can drown
    the other's gradient. Mean and sd are 0 and 1 until `standardise` sets them.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, head: Head, covariates: int = 0) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(head.features))
        self.register_buffer("sd", torch.ones(head.features))
        self.covariates: nn.Linear | None = None
        if covariates:
            self.covariates = nn.Linear(covariates, head.outputs, bias=False)
            nn.init.zeros_(self.covariates.weight)

    def standardise(self, bags: Iterable[NDArray[np.float32]]) -> None:
        """Take mean and sd of each feature from bags to train on, each bag counting the same.

        A feature that never varies is left as it is.
        """
        count, total, square = 0, torch.zeros(0), torch.zeros(0)
        for bag in bags:
            tiles = torch.from_numpy(bag).double()  # N x D
            first, second = tiles.mean(0), tiles.square().mean(0)  # D, D
            total = first if count == 0 else total + first
            square = second if count == 0 else square + second
            count += 1
        if count == 0:
            raise UsageError("There is no bag to take means from.")
        mean = total / count
        sd = (square / count - mean.square()).clamp(min=0).sqrt()
        constant = sd <= 1e-6 * mean.abs().clamp(min=1)
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(constant, torch.ones_like(sd), sd))

    def forward(
        self, features: Tensor, mask: Tensor, covariates: Tensor | None = None
    ) -> HeadOutput:
        """Score bags.

        Parameters
        ----------
        features
            B x N x D.
        mask
            B x N bool; True is a tile.
        covariates
            B x C, where the model has covariates.

        Returns
        -------
        What the head gives, with `slide_logit` shifted.
        """
        output: HeadOutput = self.head((features - self.mean) / self.sd, mask)
        if self.covariates is None:
            return output
        if covariates is None:
            raise UsageError(
                "This model was trained with covariates.", mend="Give their columns as well."
            )
        shift = self.covariates(covariates)  # B x K
        return output._replace(slide_logit=output.slide_logit + shift)
