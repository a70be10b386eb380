"""From trained parts to a calibrated bundle on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from breast_idc import description
from breast_idc.augment import augment
from breast_idc.bag_stage import BagRecipe, TileFeatures, train_head
from breast_idc.tile_stage import TileClassifier, TileRecipe
from breast_idc.tiles import LabelledTiles, Split
from breast_idc.trust_stage import (
    SlideTrust,
    calibrate_tiles,
    know_the_familiar,
    round_to_half,
    trust_slides,
)
from slidetriage.models import (
    Card,
    Device,
    HeadCard,
    NoveltyCard,
    OperatingPoint,
    SlideHead,
    TileEncoder,
    TrainingCard,
    WeightsCard,
)
from slidetriage.models.heads import build_head
from slidetriage.models.trust import NoveltyReference

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
    head: SlideHead
    tile_threshold: OperatingPoint
    trust: SlideTrust
    novelty: NoveltyReference
    novelty_card: NoveltyCard


def finish(
    model: TileClassifier, train: LabelledTiles, validation: LabelledTiles, plan: Plan
) -> Trained:
    """Calibrate the tile classifier, train the head on frozen features and calibrate it."""
    torch.manual_seed(plan.seed)
    round_to_half(model)
    encoder = wrap(model, plan.tile)
    head = SlideHead(
        build_head("gated_attention", encoder.feature_size, 1, **head_sizes(plan.bag)),
        tile_classifier=True,
    )
    assert head.tile is not None
    head.tile.load_state_dict(model.classifier.state_dict())
    held_out = featurise(encoder, validation, views=0, seed=plan.seed)
    tile_threshold = calibrate_tiles(head, held_out)
    _logger.info("tile threshold: %s", tile_threshold)
    fitted = featurise(encoder, train, views=plan.bag.views, seed=plan.seed)
    train_head(head, fitted, plan.bag, seed=plan.seed)
    round_to_half(head)
    trust = trust_slides(
        head, held_out, plan.bag, per_patient=plan.bags_per_patient, seed=plan.seed
    )
    _logger.info("slide: %s", trust)
    novelty, novelty_card = know_the_familiar(fitted, held_out)
    _logger.info("novelty: %s", novelty_card)
    return Trained(encoder, head, tile_threshold, trust, novelty, novelty_card)


def head_sizes(recipe: BagRecipe) -> dict[str, object]:
    """The arguments of the head."""
    return {"hidden": recipe.hidden, "attention": recipe.attention}


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


def compose_card(trained: Trained, split: Split, train: LabelledTiles, plan: Plan) -> Card:
    """Write the card, yet without metrics and weights' hash."""
    training = TrainingCard(
        data=(description.DATA,),
        started_from=description.STARTED_FROM,
        patients=len(np.unique(train.patients)),
        tiles=len(train),
        seed=plan.seed,
        split_seed=plan.split_seed,
        validation_patients=tuple(str(n) for n in split.validation),
        test_patients=tuple(str(n) for n in split.test),
        tile_stage=description.describe_tile_stage(plan.tile),
        bag_stage=description.describe_bag_stage(plan.bag),
        machine=plan.machine,
    )
    return Card(
        schema_version=2,
        name=description.NAME,
        version="2.0.0",
        summary=description.SUMMARY,
        intended_use=description.INTENDED_USE,
        licence="Apache-2.0",
        stain="H&E",
        tissue="breast",
        classes=description.CLASSES,
        mpp=4.0,
        mpp_range=(3.5, 4.5),
        tile_px=train.images.shape[1],
        encoder=trained.encoder.card,
        encoder_from=None,
        stain_normaliser=None,
        head=HeadCard("gated_attention", head_sizes(plan.bag), tile_classifier=True),
        calibration=trained.trust.calibration,
        tile_threshold=trained.tile_threshold,
        slide_threshold=trained.trust.threshold,
        rule_out=trained.trust.rule_out,
        conformal=trained.trust.conformal,
        novelty=trained.novelty_card,
        training=training,
        metrics=(),
        limits=description.LIMITS,
        weights=WeightsCard("weights.safetensors", "0" * 64),
    )
