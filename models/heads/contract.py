"""What every head promises: bags of features in, a slide's logits with their evidence out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slidetriage.errors import ModelError, UsageError


class HeadOutput(NamedTuple):
    """What a head says of a batch of padded bags."""

    slide_logit: Tensor
    """B x K."""
    attention: Tensor
    """B x N; not negative, 0 where padded, sums to 1 over the tiles of a bag."""
    tile_logit: Tensor
    """B x N x K; the evidence of each tile for each output; of no meaning where padded."""
    embedding: Tensor
    """B x H; what the slide classifier sees."""
    class_attention: Tensor | None = None
    """B x K x N; the branches whose mean is `attention`, of heads that have one for each output."""


class Head(nn.Module, ABC):
    """Scores bags of tile features, whatever their length.

    The result does not depend on padding nor on the other bags of the batch, and a bag of one tile
    is a bag like any other. In `eval` mode equal bags give equal results.

    Parameters
    ----------
    features
        Numbers per tile, D.
    outputs
        Logits per slide, K: 1 for a binary target, a continuous value or a log risk; the number of
        classes, or of time intervals, otherwise.
    """

    auxiliary_weight: float = 0.0
    """Share of `auxiliary_loss` in the whole loss, as the paper has it: 0.3 means 0.7 of the slide
    loss and 0.3 of the other."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.features = check_count("features", features)
        self.outputs = check_count("outputs", outputs)

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """Numbers in the embedding of a slide, H."""

    @abstractmethod
    def score_bags(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score bags that were checked and are zero where padded; call the head instead."""

    def forward(self, features: Tensor, mask: Tensor) -> HeadOutput:
        """Score bags.

        Parameters
        ----------
        features
            B x N x D, float; anything where padded.
        mask
            B x N, bool; True is a tile, False is padding. Tiles need not come first.

        Raises
        ------
        UsageError
            Shapes or types are others, or the features are not of the type of the weights.
        ModelError
            A bag has no tile.
        """
        self._check_bags(features, mask)
        if not mask.all():
            # Zero times a padded infinity would be NaN.
            features = features.masked_fill(~mask[..., None], 0)  # B x N x D
        return self.score_bags(features, mask)

    def auxiliary_loss(
        self, output: HeadOutput, features: Tensor, mask: Tensor, label: Tensor | None
    ) -> Tensor:
        """Loss that the paper adds to the slide loss, one for each bag; zeros where it has none.

        Parameters
        ----------
        output
            What the head said of these bags.
        features, mask
            As for `forward`.
        label
            B, int64: the class (0 or 1 for a single output); None for targets without classes.

        Returns
        -------
        B, to be weighted by `auxiliary_weight`.
        """
        return output.slide_logit.new_zeros(len(features))  # B

    def _check_bags(self, features: Tensor, mask: Tensor) -> None:
        if (
            features.ndim != 3
            or features.shape[2] != self.features
            or not features.is_floating_point()
        ):
            raise UsageError(
                f"Features must be B x N x {self.features} floats, not "
                f"{tuple(features.shape)} of {features.dtype}.",
                mend="Use the features that the head was made for.",
            )
        weights = next(self.parameters()).dtype
        if features.dtype != weights and not torch.is_autocast_enabled(features.device.type):
            raise UsageError(
                f"Features are {features.dtype}, the weights of the head {weights}.",
                mend=f"Convert the features to {weights}.",
            )
        if mask.shape != features.shape[:2] or mask.dtype != torch.bool:
            raise UsageError(
                f"The mask must be {tuple(features.shape[:2])} bool, not "
                f"{tuple(mask.shape)} of {mask.dtype}.",
                mend="Give True for a tile and False for padding.",
            )
        if not mask.any(dim=1).all():
            empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
            raise ModelError(
                f"Bags without any tile: {empty} (position in the batch).",
                mend="Leave out slides without tissue; they have no score.",
            )


def check_labels(label: Tensor, bags: int, classes: int) -> Tensor:
    """Return the labels if they are one class index below `classes` for each bag.

    Raises `UsageError` if they are not.
    """
    if label.shape != (bags,) or label.is_floating_point() or label.is_complex():
        raise UsageError(
            f"Labels must be {bags} class indices, not {tuple(label.shape)} of {label.dtype}.",
            mend="Give one integer for each bag, or None for targets without classes.",
        )
    if not ((label >= 0) & (label < classes)).all():
        raise UsageError(
            f"Labels must be from 0 to {classes - 1}, not {sorted(set(label.tolist()))}.",
            mend="Number the classes from 0, or give the head as many outputs as classes.",
        )
    return label


def check_count(name: str, value: int) -> int:
    """Return `value` if it is a whole number above 0; raises `UsageError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"{name} must be a whole number above 0, not {value!r}.", mend=f"Mend {name}."
        )
    return value


def check_dropout(value: float) -> float:
    """Return `value` if it is a share from 0 up to below 1; raises `UsageError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UsageError(
            f"dropout must be from 0 up to below 1, not {value!r}.",
            mend="Give the share of values to drop in training, such as 0.25.",
        )
    return float(value)
