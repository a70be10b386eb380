"""Learning from tiles without labels: two views of one tile shall predict each other (SimSiam)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from breast_idc.augment import augment

if TYPE_CHECKING:
    from breast_idc.tile_stage import TileRecipe

_logger = logging.getLogger(__name__)


def learn_without_labels(
    backbone: nn.Module, images: NDArray[np.uint8], recipe: TileRecipe, rng: np.random.Generator
) -> None:
    """Train the backbone in place, as Chen and He ("Exploring Simple Siamese Representation
    Learning", CVPR 2021) do: projector, predictor, and no gradient through the other view.
    """  # noqa: D205 - one sentence
    width = int(backbone.num_features)  # type: ignore[arg-type]  # timm's attribute
    project = nn.Sequential(
        nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 256)
    )
    predict = nn.Sequential(
        nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 256)
    )
    parts = nn.ModuleList([backbone, project, predict]).train()
    optimiser = torch.optim.AdamW(parts.parameters(), lr=2e-4, weight_decay=recipe.weight_decay)
    for epoch in range(recipe.pretext_epochs):
        losses = []
        order = rng.permutation(len(images))
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            chosen = images[order[start : start + recipe.batch]]
            views = [(augment(chosen, recipe.input_px, rng) - 0.5) / 0.5 for _ in range(2)]
            z = [
                project(backbone(view.contiguous(memory_format=torch.channels_last)))
                for view in views
            ]
            loss = 0.5 * (_apart(predict(z[0]), z[1]) + _apart(predict(z[1]), z[0]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            losses.append(loss.item())
        _logger.info("pretext epoch %d: loss %.4f", epoch + 1, np.mean(losses))


def _apart(predicted: Tensor, seen: Tensor) -> Tensor:
    return -functional.cosine_similarity(predicted, seen.detach(), dim=-1).mean()
