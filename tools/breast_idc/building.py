"""From trained parts to a calibrated bundle on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from breast_idc import description
from breast_idc.augment import augment
from breast_idc.bag_stage import (
    BagRecipe,
    ScoredBags,
    TileFeatures,
    score_bags,
    train_head,
)
from breast_idc.measures import (
    best_threshold,
    fit_temperature,
    sensitivity,
    specificity,
    threshold_for_sensitivity,
)
from breast_idc.tile_stage import TileClassifier, TileRecipe
from breast_idc.tiles import LabelledTiles, Split
from slidetriage.models import (
    Card,
    Device,
    EncoderCard,
    GatedAttentionHead,
    HeadCard,
    Metric,
    OperatingPoint,
    TileEncoder,
    TrainingCard,
    WeightsCard,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one training run was asked to do."""

    seed: int
    split_seed: int
    tile: TileRecipe
    bag: BagRecipe
    machine: str
    bags_per_patient: int = 20
    """Bags of each kind drawn from a held-out patient to calibrate and to measure."""
    draws: int = 1000
    """Draws of the bootstrap over patients."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The parts of a bundle, calibrated, with their operating points."""

    encoder: TileEncoder
    head: GatedAttentionHead
    tile_threshold: OperatingPoint
    slide_threshold: OperatingPoint


def finish(
    model: TileClassifier, train: LabelledTiles, validation: LabelledTiles, plan: Plan
) -> Trained:
    """Calibrate the tile classifier, train the head on frozen features and calibrate it."""
    torch.manual_seed(plan.seed)
    round_to_half(model)
    encoder = wrap(model, plan.tile)
    head = GatedAttentionHead(
        encoder.feature_size, hidden=plan.bag.hidden, attention=plan.bag.attention
    )
    head.tile.load_state_dict(model.classifier.state_dict())
    held_out = featurise(encoder, validation, views=0, seed=plan.seed)
    tile_threshold = calibrate_tiles(head, held_out)
    _logger.info("tile threshold: %s", tile_threshold)
    fitted = featurise(encoder, train, views=plan.bag.views, seed=plan.seed)
    train_head(head, fitted, plan.bag, seed=plan.seed)
    slide_threshold = calibrate_slides(head, held_out, plan)
    _logger.info("slide threshold: %s", slide_threshold)
    return Trained(encoder, head, tile_threshold, slide_threshold)


def wrap(model: TileClassifier, recipe: TileRecipe) -> TileEncoder:
    """The trained backbone as the encoder that inference uses."""
    card = description.describe_encoder(recipe, model.classifier.in_features)
    # What the head is fitted to must not depend on what this machine's processor does fast.
    device = Device(precision="float32")
    return TileEncoder(model.backbone, card, weights_sha256="0" * 64, device=device)


def featurise(encoder: TileEncoder, tiles: LabelledTiles, *, views: int, seed: int) -> TileFeatures:
    """Features of each tile and of `views` augmented copies, through the encoder itself."""
    rng = np.random.default_rng(seed)
    found = [encoder.encode(tiles.images)]
    for _ in range(views):
        copies = [
            augment(tiles.images[i : i + 256], tiles.images.shape[1], rng)
            for i in range(0, len(tiles), 256)
        ]
        pixels = (torch.cat(copies).permute(0, 2, 3, 1).clamp(0, 1) * 255).round().byte()
        found.append(encoder.encode(pixels.numpy()))
    return TileFeatures.of(tiles, found)


def calibrate_tiles(head: GatedAttentionHead, tiles: TileFeatures) -> OperatingPoint:
    """Fold the temperature into the tile classifier and choose the tile threshold."""
    truth = tiles.labels == 1
    _fold(head.tile, fit_temperature(_tile_logits(head, tiles), truth))
    p = _sigmoid(_tile_logits(head, tiles))
    threshold = best_threshold(p, truth)
    return OperatingPoint(
        value=threshold,
        chosen="best mean of balanced accuracy and F1 over tiles of the validation patients",
        measured_on=f"{len(np.unique(tiles.patients))} validation patients, {len(p)} tiles",
        sensitivity=round(sensitivity(p, truth, threshold), 4),
        specificity=round(specificity(p, truth, threshold), 4),
    )


def calibrate_slides(head: GatedAttentionHead, tiles: TileFeatures, plan: Plan) -> OperatingPoint:
    """Fold the temperature into the slide classifier and choose the slide threshold."""
    bags = score_bags(head, tiles, plan.bag, per_patient=plan.bags_per_patient, seed=plan.seed)
    _fold(head.slide, fit_temperature(bags.logits, bags.labels))
    round_to_half(head)
    bags = score_bags(head, tiles, plan.bag, per_patient=plan.bags_per_patient, seed=plan.seed)
    p = _sigmoid(bags.logits)
    threshold = threshold_for_sensitivity(p, bags.labels, 0.95)
    return OperatingPoint(
        value=threshold,
        chosen="highest with sensitivity of at least 0.95 on bags of the validation patients",
        measured_on=describe_bags(bags, "validation"),
        sensitivity=round(sensitivity(p, bags.labels, threshold), 4),
        specificity=round(specificity(p, bags.labels, threshold), 4),
    )


def describe_bags(bags: ScoredBags, part: str) -> str:
    """Say which bags a figure was measured on."""
    return (
        f"{len(bags.labels)} bags of {bags.sizes.min()} to {bags.sizes.max()} tiles from "
        f"{len(np.unique(bags.patients))} {part} patients"
    )


def compose_card(trained: Trained, split: Split, train: LabelledTiles, plan: Plan) -> Card:
    """Write the card, yet without metrics and weights' hash."""
    training = TrainingCard(
        data=(description.DATA,),
        started_from=description.STARTED_FROM,
        patients=len(np.unique(train.patients)),
        tiles=len(train),
        seed=plan.seed,
        split_seed=plan.split_seed,
        validation_patients=tuple(split.validation.tolist()),
        test_patients=tuple(split.test.tolist()),
        tile_stage=description.describe_tile_stage(plan.tile),
        bag_stage=description.describe_bag_stage(plan.bag),
        machine=plan.machine,
    )
    encoder: EncoderCard = trained.encoder.card
    metrics: tuple[Metric, ...] = ()
    return Card(
        schema_version=1,
        name=description.NAME,
        version="1.0.0",
        summary=description.SUMMARY,
        intended_use=description.INTENDED_USE,
        licence="Apache-2.0",
        stain="H&E",
        tissue="breast",
        classes=description.CLASSES,
        mpp=4.0,
        mpp_range=(3.5, 4.5),
        tile_px=train.images.shape[1],
        encoder=encoder,
        head=HeadCard("gated_attention", plan.bag.hidden, plan.bag.attention),
        tile_threshold=trained.tile_threshold,
        slide_threshold=trained.slide_threshold,
        training=training,
        metrics=metrics,
        limits=description.LIMITS,
        weights=WeightsCard("weights.safetensors", "0" * 64),
    )


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round weights to what float16 can hold; statistics of normalisation stay exact."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half().float())


@torch.no_grad()
def _fold(linear: nn.Linear, temperature: float) -> None:
    _logger.info("temperature %.3f", temperature)
    linear.weight.div_(temperature)
    linear.bias.div_(temperature)
    round_to_half(linear)


@torch.inference_mode()
def _tile_logits(head: GatedAttentionHead, tiles: TileFeatures) -> NDArray[np.float64]:
    return head.tile_logit(torch.from_numpy(tiles.features[:, 0])).numpy().astype(np.float64)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits))
