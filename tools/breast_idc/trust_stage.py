"""Calibration, thresholds, conformal rule and novelty limit, all from validation patients."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from breast_idc.bag_stage import BagRecipe, ScoredBags, TileFeatures, score_bags
from breast_idc.measures import (
    best_threshold,
    sensitivity,
    specificity,
    threshold_for_sensitivity,
)
from slidetriage.models import NoveltyCard, OperatingPoint, SlideHead
from slidetriage.models.evaluation import (
    fit_conformal,
    fit_novelty,
    fit_platt,
    novelty_threshold,
    slide_distance,
)
from slidetriage.models.trust import Calibrator, ConformalRule, NoveltyReference

_logger = logging.getLogger(__name__)

ERROR_RATE = 0.1
"""Of the conformal rule; with some 30 patients a smaller one would abstain nearly always."""

FAMILIAR = 0.95
"""Share of familiar slides, and of familiar tiles, that stay within the limits of novelty."""

LEAST_TILES = 10
"""Patients with fewer tiles say nothing of how far a whole slide lies."""


@dataclass(frozen=True, slots=True)
class SlideTrust:
    """What turns the head's probability of a slide into a verdict."""

    calibration: Calibrator
    threshold: OperatingPoint
    rule_out: OperatingPoint
    conformal: ConformalRule


def calibrate_tiles(head: SlideHead, tiles: TileFeatures) -> OperatingPoint:
    """Fold Platt's line into the tile classifier and choose the tile threshold."""
    assert head.tile is not None
    truth = tiles.labels == 1
    slope, intercept = fit_platt(truth, sigmoid(tile_logits(head, tiles))).numbers
    _logger.info("tile logits x %.3f + %.3f", slope, intercept)
    with torch.no_grad():
        head.tile.weight.mul_(slope)
        head.tile.bias.mul_(slope).add_(intercept)
    round_to_half(head.tile)
    p = sigmoid(tile_logits(head, tiles))
    threshold = best_threshold(p, truth)
    return OperatingPoint(
        value=threshold,
        chosen="best mean of balanced accuracy and F1 over tiles of the validation patients",
        measured_on=f"{len(np.unique(tiles.patients))} validation patients, {len(p)} tiles",
        sensitivity=round(sensitivity(p, truth, threshold), 4),
        specificity=round(specificity(p, truth, threshold), 4),
    )


def trust_slides(
    head: SlideHead, tiles: TileFeatures, recipe: BagRecipe, *, per_patient: int, seed: int
) -> SlideTrust:
    """Calibrate the slide's probability, and choose its thresholds and its conformal rule."""
    bags = score_bags(head, tiles, recipe, per_patient=per_patient, seed=seed)
    raw = sigmoid(bags.logits)
    calibration = fit_platt(bags.labels, raw)
    calibration = Calibrator("platt", tuple(round(n, 6) for n in calibration.numbers))
    p = calibration.apply(raw)
    first = first_of_each(bags)
    conformal = fit_conformal(
        bags.labels[first], p[first], error_rate=ERROR_RATE, label_conditional=True
    )
    return SlideTrust(
        calibration,
        _point(bags, p, 0.95, "flags: highest with sensitivity of at least 0.95"),
        _point(bags, p, 0.99, "rules out below: highest with sensitivity of at least 0.99"),
        conformal,
    )


def first_of_each(bags: ScoredBags) -> NDArray[np.intp]:
    """The first positive and the first negative bag of each patient: rows that are exchangeable."""
    kinds = np.stack([bags.patients, bags.labels.astype(np.int64)], axis=1)
    return np.sort(np.unique(kinds, axis=0, return_index=True)[1])


def know_the_familiar(
    train: TileFeatures, held_out: TileFeatures
) -> tuple[NoveltyReference, NoveltyCard]:
    """The reference of the tiles learned from, and what new patients' slides stay within."""
    reference = fit_novelty(train.features[:, 0])
    distances = reference.distance(held_out.features[:, 0])
    rows = [distances[held_out.patients == patient] for patient in np.unique(held_out.patients)]
    slides = [slide_distance(row) for row in rows if len(row) >= LEAST_TILES]
    return reference, NoveltyCard(
        limit=round(novelty_threshold(slides, kept=FAMILIAR), 4),
        quantile=0.5,
        kept=FAMILIAR,
        tile_limit=round(float(np.quantile(distances, FAMILIAR)), 4),
        measured_on=f"{len(slides)} validation patients with at least {LEAST_TILES} tiles",
    )


def describe_bags(bags: ScoredBags, part: str) -> str:
    """Say which bags a figure was measured on."""
    return (
        f"{len(bags.labels)} bags of {bags.sizes.min()} to {bags.sizes.max()} tiles from "
        f"{len(np.unique(bags.patients))} {part} patients"
    )


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round weights to what float16 can hold; statistics of normalisation stay exact."""
    for parameter in module.parameters():
        parameter.copy_(parameter.half().float())


@torch.inference_mode()
def tile_logits(head: SlideHead, tiles: TileFeatures) -> NDArray[np.float64]:
    """One for each tile, of its plain view."""
    return head.tile_logit(torch.from_numpy(tiles.features[:, 0])).numpy().astype(np.float64)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities."""
    return 1 / (1 + np.exp(-logits))


def _point(bags: ScoredBags, p: NDArray[np.float64], wanted: float, chosen: str) -> OperatingPoint:
    threshold = threshold_for_sensitivity(p, bags.labels, wanted)
    return OperatingPoint(
        value=threshold,
        chosen=f"{chosen} on bags of the validation patients",
        measured_on=describe_bags(bags, "validation"),
        sensitivity=round(sensitivity(p, bags.labels, threshold), 4),
        specificity=round(specificity(p, bags.labels, threshold), 4),
    )
