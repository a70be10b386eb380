"""Several networks that were fine-tuned from the same weights, averaged into one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from breast_idc.tile_stage import TileClassifier


@torch.no_grad()
def average_weights(models: Sequence[TileClassifier]) -> TileClassifier:
    """One network whose weights and statistics are the means of theirs, in eval mode.

    Fine-tuned from the same weights, they lie in one basin, and their mean does what their ensemble
    does at the cost of one (Wortsman et al., "Model soups", ICML 2022).
    """
    mean = copy.deepcopy(models[0]).eval()
    states = [model.state_dict() for model in models]
    for name, kept in mean.state_dict().items():
        if kept.is_floating_point():
            kept.copy_(torch.stack([state[name] for state in states]).mean(0))
    return mean
