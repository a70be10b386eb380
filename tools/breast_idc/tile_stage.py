"""Stage one: fine-tune the backbone with a linear tile classifier on single tiles."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from breast_idc.augment import augment, paint_blank
from breast_idc.pretext import learn_without_labels
from breast_idc.tiles import LabelledTiles

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TileRecipe:
    """Everything that decides how the tile stage trains."""

    input_px: int = 96
    epochs: int = 14
    batch: int = 64
    backbone_rate: float = 5e-4
    classifier_rate: float = 2e-3
    weight_decay: float = 0.03
    dropout: float = 0.3
    drop_path: float = 0.1
    mixup: float = 0.2
    """Both parameters of the beta distribution that half of the batches are mixed by."""
    blank_share: float = 0.04
    """Share of each batch that is painted glass instead of tissue, labelled negative."""
    averaging: float = 0.99
    """Decay per step of the running average of the weights, which is what is kept."""
    stain: float = 1.0
    """Share of the tiles whose colours are altered."""
    elastic: float = 0.0
    """By what share of its side a tile is bent."""
    cutmix: float = 0.0
    """Share of the batches in which a rectangle of another tile is pasted (Yun et al. 2019)."""
    pretext_epochs: int = 0
    """Epochs of learning without labels before (see `pretext`)."""
    members: int = 2
    """Networks trained alike from seeds that follow one another, whose weights are averaged."""


class TileClassifier(nn.Module):
    """Backbone, pooled features, dropout and one logit: p(IDC) of a tile."""

    def __init__(self, recipe: TileRecipe, pretrained: Path | None) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            "mobilenetv2_100", pad_type="same", num_classes=0, drop_path_rate=recipe.drop_path
        )
        if pretrained is not None:
            weights = load_file(pretrained)
            weights = {k: v for k, v in weights.items() if not k.startswith("classifier.")}
            self.backbone.load_state_dict(
                {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
            )
        self.dropout = nn.Dropout(recipe.dropout)
        features = int(self.backbone.num_features)  # type: ignore[arg-type]  # timm's attribute
        self.classifier = nn.Linear(features, 1)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x P x P, normalised -> N logits."""
        features = self.backbone(x)  # N x D
        logits: Tensor = self.classifier(self.dropout(features))  # N x 1
        return logits.squeeze(1)


def train_tiles(
    tiles: LabelledTiles, recipe: TileRecipe, pretrained: Path | None, *, seed: int
) -> TileClassifier:
    """Fine-tune on `tiles` and return the running average of the weights, in eval mode."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = TileClassifier(recipe, pretrained)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    first = rng.choice(len(tiles), min(256, len(tiles)), replace=False)
    unfold_normalisation(model, (augment(tiles.images[first], recipe.input_px, rng) - 0.5) / 0.5)
    if recipe.pretext_epochs:
        learn_without_labels(model.backbone, tiles.images, recipe, rng)
    average = copy.deepcopy(model)
    average.eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(_groups(model, recipe), weight_decay=recipe.weight_decay)
    steps = recipe.epochs * (len(tiles) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    step = 0
    for epoch in range(recipe.epochs):
        model.train()
        losses = []
        for images, labels in _batches(tiles, recipe, rng):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
            loss = functional.binary_cross_entropy_with_logits(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            step += 1
            _average(average, model, min(recipe.averaging, step / (step + 10)))
            losses.append(loss.item())
        _logger.info("epoch %d of %d: loss %.4f", epoch + 1, recipe.epochs, np.mean(losses))
    return average


@torch.no_grad()
def unfold_normalisation(model: nn.Module, sample: Tensor) -> None:
    """Give folded batch normalisations real statistics without changing the network's function.

    The published weights have mean 0, variance 1 and scale 1: normalisation was folded into the
    convolutions, and training with batch statistics would destroy the network at the first step.
    With mean m and variance v of each input on `sample`, scale sqrt(v + eps) and offset b + m
    compute the same x + b.
    """
    inputs: dict[nn.BatchNorm2d, Tensor] = {}

    def keep(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        inputs[layer] = given[0]

    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    model.eval()(sample)
    for hook in hooks:
        hook.remove()
    for layer, x in inputs.items():
        assert layer.running_mean is not None
        assert layer.running_var is not None
        variance, mean = torch.var_mean(x, (0, 2, 3))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)
        layer.weight.copy_((variance + layer.eps).sqrt())
        layer.bias.add_(mean)


def _groups(model: TileClassifier, recipe: TileRecipe) -> list[dict[str, object]]:
    return [
        {"params": model.backbone.parameters(), "lr": recipe.backbone_rate},
        {"params": model.classifier.parameters(), "lr": recipe.classifier_rate},
    ]


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 15)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(
    tiles: LabelledTiles, recipe: TileRecipe, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    order = rng.permutation(len(tiles))
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        chosen = order[start : start + recipe.batch]
        images, labels = tiles.images[chosen], tiles.labels[chosen].astype(np.float32)
        blank = np.flatnonzero(rng.random(len(chosen)) < recipe.blank_share)
        images[blank] = paint_blank(len(blank), images.shape[1], rng)
        labels[blank] = 0
        kinds = {"stain": recipe.stain, "elastic": recipe.elastic}
        x = (augment(images, recipe.input_px, rng, **kinds) - 0.5) / 0.5
        y = torch.from_numpy(labels)
        if recipe.cutmix and rng.random() < recipe.cutmix:
            x, y = paste_rectangle(x, y, rng)
        if recipe.mixup and rng.random() < 0.5:
            share = float(rng.beta(recipe.mixup, recipe.mixup))
            x, y = share * x + (1 - share) * x.flip(0), share * y + (1 - share) * y.flip(0)
        yield x.contiguous(memory_format=torch.channels_last), y


def paste_rectangle(x: Tensor, y: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Paste the same random rectangle of the tiles in reverse order; labels mix by its area."""
    side = x.shape[-1]
    height, width = (round(side * math.sqrt(share)) for share in rng.uniform(0, 1, 2))
    top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    mixed = x.clone()
    here = (..., slice(top, top + height), slice(left, left + width))
    mixed[here] = x.flip(0)[here]
    share = height * width / side**2
    return mixed, (1 - share) * y + share * y.flip(0)


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


@torch.inference_mode()
def score_plain(
    model: TileClassifier, images: NDArray[np.uint8], input_px: int
) -> NDArray[np.float32]:
    """Logits of tiles as inference will see them: resized, normalised, not augmented."""
    logits = []
    for start in range(0, len(images), 128):
        x = torch.from_numpy(images[start : start + 128]).permute(0, 3, 1, 2).float() / 255
        x = functional.interpolate(x, (input_px, input_px), mode="bilinear", antialias=True)
        logits.append(model((x - 0.5) / 0.5))
    return torch.cat(logits).numpy()
