"""What each idea buys on the validation patients of breast-idc-scout, test patients unseen.

    python tools/ablate_breast_idc.py --data ../shared/data --epochs 5 [--only elastic cutmix]

Every variant is trained alike but for one thing, from the same seed; a line of JSON for each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from breast_idc.averaging import average_weights
from breast_idc.distillation import score_all_sides, soften
from breast_idc.measures import balanced_accuracy, best_threshold, f1
from breast_idc.tile_stage import TileClassifier, TileRecipe, score_plain, train_tiles
from breast_idc.tiles import LabelledTiles, load_tiles, split_patients
from breast_idc.trust_stage import sigmoid
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from train_breast_idc_scout import SPLIT_SEED

from slidetriage.models.evaluation import fit_platt

SOFTENED = "labels softened by three teachers"
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "colours unaltered": {"stain": 0.0},
    "colours of half the tiles": {"stain": 0.5},
    "no mixup": {"mixup": 0.0},
    "elastic": {"elastic": 0.03},
    "cutmix": {"cutmix": 0.5},
    "80 px": {"input_px": 80},
    "112 px": {"input_px": 112},
    "no painted glass": {"blank_share": 0.0},
    "SimSiam first": {"pretext_epochs": 3},
    "no running average": {"averaging": 0.0},
    "weights of two averaged": {"members": 2},
    "weights of three averaged": {"members": 3},
    SOFTENED: {},
}


def main() -> None:
    """Train and measure each variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tiles = load_tiles(arguments.data / "idc" / "idc_tiles.npz")
    split = split_patients(tiles.patients, seed=SPLIT_SEED)
    train, validation = tiles.of(split.train), tiles.of(split.validation)
    pretrained = arguments.data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    for name in arguments.only:
        recipe = TileRecipe(epochs=arguments.epochs, members=1)
        recipe = dataclasses.replace(recipe, **VARIANTS[name])
        begin = time.perf_counter()
        model = build(name, train, recipe, pretrained)
        figures = measure(model, validation, recipe.input_px)
        seconds = round(time.perf_counter() - begin)
        print(json.dumps({"variant": name, **figures, "seconds": seconds}), flush=True)


def build(name: str, train: LabelledTiles, recipe: TileRecipe, pretrained: Path) -> TileClassifier:
    """The network of a variant, from seed 0 on."""
    if name == SOFTENED:
        teachers = [train_tiles(train, recipe, pretrained, seed=seed) for seed in (0, 1, 2)]
        soft = soften(train, teachers, share=0.6, input_px=recipe.input_px)
        return train_tiles(soft, recipe, pretrained, seed=3)
    seeds = range(recipe.members)
    return average_weights([train_tiles(train, recipe, pretrained, seed=s) for s in seeds])


def measure(model: TileClassifier, tiles: LabelledTiles, input_px: int) -> dict[str, float]:
    """AUC, balanced accuracy and F1 at the threshold of the rule, and AUC from eight sides."""
    truth = tiles.labels == 1
    logits = score_plain(model, tiles.images, input_px).astype(np.float64)
    p = fit_platt(truth, sigmoid(logits)).apply(sigmoid(logits))
    threshold = best_threshold(p, truth)
    sides = score_all_sides(model, tiles.images, input_px)
    return {
        "auc": _round(roc_auc_score(truth, logits)),
        "balanced_accuracy": _round(balanced_accuracy(p, truth, threshold)),
        "f1": _round(f1(p, truth, threshold)),
        "auc_of_eight_sides": _round(roc_auc_score(truth, sides)),
    }


def _round(value: float | NDArray[np.float64]) -> float:
    return round(float(value), 4)


if __name__ == "__main__":
    main()
