"""Train the bundle breast-idc-scout from labelled tiles and ImageNet weights.

    python tools/train_breast_idc_scout.py --data ../shared/data --out bundle --metrics metrics.json

Writes card.json and weights.safetensors to --out, and the figures on the test patients to
--metrics. The same seed and number of threads give the same bytes on the same machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import platform
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from breast_idc.averaging import average_weights
from breast_idc.bag_stage import BagRecipe, TileFeatures, score_bags
from breast_idc.building import Plan, compose_card, finish
from breast_idc.measures import measures, triage_measures, with_intervals
from breast_idc.tile_stage import TileClassifier, TileRecipe, train_tiles
from breast_idc.tiles import LabelledTiles, Split, load_tiles, split_patients
from breast_idc.trust_stage import describe_bags, sigmoid
from torch import nn

from slidetriage.models import Bundle, Card, Metric, SlideHead, load_bundle, save_bundle
from slidetriage.models.trust import NoveltyReference

SPLIT_SEED = 14


def main() -> None:
    """Train, calibrate, save, load what was saved, and measure that on the test patients."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    plan = make_plan(arguments)
    tiles = load_tiles(arguments.data / "idc" / "idc_tiles.npz")
    split = split_patients(tiles.patients, seed=SPLIT_SEED)
    if arguments.quick:
        split = Split(split.train[:8], split.validation, split.test[:6])
    train, validation, test = map(tiles.of, (split.train, split.validation, split.test))
    pretrained = arguments.data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    model = train_network(train, pretrained, plan)
    trained = finish(model, train, validation, plan)
    parts = Parts(trained.encoder.backbone, trained.head, trained.novelty)
    card = save(arguments.out, compose_card(trained, split, train, plan), parts)
    metrics = evaluate(load_bundle(arguments.out), test, plan)
    save(arguments.out, dataclasses.replace(card, metrics=metrics), parts)
    figures = {"metrics": [dataclasses.asdict(metric) for metric in metrics]}
    arguments.metrics.parent.mkdir(parents=True, exist_ok=True)
    arguments.metrics.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


class Parts(NamedTuple):
    """What goes to the file of weights."""

    backbone: nn.Module
    head: SlideHead
    novelty: NoveltyReference


def save(folder: Path, card: Card, parts: Parts) -> Card:
    """Write the bundle."""
    return save_bundle(
        folder, card, backbone=parts.backbone, head=parts.head, novelty=parts.novelty
    )


def train_network(train: LabelledTiles, pretrained: Path, plan: Plan) -> TileClassifier:
    """Train the members one after the other, and average their weights."""
    seeds = range(plan.seed, plan.seed + plan.tile.members)
    return average_weights([train_tiles(train, plan.tile, pretrained, seed=s) for s in seeds])


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with idc/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=TileRecipe().epochs)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few tiles, seconds: tries the code")
    return parser.parse_args()


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The recipes, shrunk if only the code is to be tried."""
    tile = TileRecipe(epochs=arguments.epochs)
    bag = BagRecipe()
    if arguments.quick:
        tile = dataclasses.replace(tile, epochs=1, input_px=32, batch=16)
        bag = dataclasses.replace(bag, steps=5, views=1, largest=32)
    machine = f"CPU ({platform.machine()}), {arguments.threads} threads, torch {torch.__version__}"
    plan = Plan(arguments.seed, SPLIT_SEED, tile, bag, machine)
    return dataclasses.replace(plan, bags_per_patient=2, draws=20) if arguments.quick else plan


def evaluate(bundle: Bundle, test: LabelledTiles, plan: Plan) -> tuple[Metric, ...]:
    """Measure the bundle as it lies on disk, on the test patients."""
    features = bundle.encode(test.images)
    scores = bundle.score_features(features).astype(np.float64)
    tile_truth = test.labels == 1
    patients = len(np.unique(test.patients))
    where = f"{patients} test patients, {len(test)} tiles"
    found = with_intervals(
        scores,
        tile_truth,
        test.patients,
        wanted=measures(bundle.card.tile_threshold.value),
        seed=plan.seed,
        rounds=plan.draws,
    )
    metrics = [_metric(f"tile {name}", figures, where) for name, figures in found.items()]
    held_out = TileFeatures.of(test, [features])
    bags = score_bags(
        bundle.head, held_out, plan.bag, per_patient=plan.bags_per_patient, seed=plan.seed
    )
    assert bundle.card.calibration is not None
    probabilities = bundle.card.calibration.apply(sigmoid(bags.logits))
    found = with_intervals(
        probabilities,
        bags.labels,
        bags.patients,
        wanted=measures(bundle.card.slide_threshold.value) | triage_measures(bundle.card),
        seed=plan.seed,
        rounds=plan.draws,
    )
    where = describe_bags(bags, "test")
    metrics += [_metric(f"slide {name}", figures, where) for name, figures in found.items()]
    return tuple(metrics)


def _metric(name: str, figures: tuple[float, float, float], where: str) -> Metric:
    value, low, high = (round(figure, 4) for figure in figures)
    return Metric(name, value, low, high, where)


if __name__ == "__main__":
    main()
