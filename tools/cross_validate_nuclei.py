"""How well the recipe of the nucleus detector does on each labelled image when it has not seen it.

    python tools/cross_validate_nuclei.py --data ../shared/data --fold 1 --out fold1.json
    python tools/cross_validate_nuclei.py --data ../shared/data --join fold1.json fold2.json

21 held-out images are few, and how hard they are is chance. So the other images are dealt into two
folds, whole pictures and kind after kind, and a network is trained for each fold on all images
outside it. The held-out images are the third fold, which the shipped detector has not seen. Folds
learn 1,300 steps in two stages, the shipped detector learned 2,400 in three; how maps become nuclei
is taken from its card, chosen on 16 images that lie in these folds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from nuclei.figures import by_kind, compare_all
from nuclei.images import LabelledImage, deal_folds, load_images, split_images
from nuclei.learning import Material, Recipe, train
from nuclei.phantoms import cut_crops
from threadpoolctl import threadpool_limits
from train_nucleus_detector import PHANTOMS, SPLIT_SEED, mean_weights, wrap

from slidetriage.models.nuclei.classical import ClassicalDetector
from slidetriage.models.nuclei.learned import LearnedDetector, load_detector
from slidetriage.models.nuclei.matching import Agreement

FOLDS = (1, 2)
STEPS = (700, 600)
FINDERS = ("nuclei-he", "classical")


def main() -> None:
    """Train for a fold and measure it, or put the folds together."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    images = load_images(arguments.data / "nuclei")
    folds = deal_into_folds(images)
    if arguments.join:
        found = measure(load_detector(), [image for image in images if image.name in folds[0]])
        for path in arguments.join:
            found |= json.loads(path.read_text())
        print(json.dumps(summarise(found, images, folds), indent=2))
        return
    fold = folds[arguments.fold]
    rest = [image for image in images if image.name not in fold]
    held = [image for image in images if image.name in fold]
    detector = learn(arguments, rest)
    arguments.out.write_text(json.dumps(measure(detector, held), indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with nuclei/ and weights/")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fold", type=int, choices=FOLDS)
    what.add_argument("--join", type=Path, nargs="+", help="figures of folds")
    parser.add_argument("--out", type=Path, help="JSON file for the fold's figures")
    parser.add_argument("--steps", type=int, nargs=2, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.fold and not arguments.out:
        parser.error("--fold needs --out")
    return arguments


def deal_into_folds(images: Sequence[LabelledImage]) -> list[set[str]]:
    """Names of the held-out images, and of those of each fold."""
    held_out = set(split_images(list(images), seed=SPLIT_SEED).held_out)
    rest = [image for image in images if image.name not in held_out]
    return [held_out, *deal_folds(rest, seed=SPLIT_SEED, count=len(FOLDS))]


def learn(arguments: argparse.Namespace, images: Sequence[LabelledImage]) -> LearnedDetector:
    """A detector that has seen these images only."""
    first, second = arguments.steps
    recipe = Recipe(steps=first)
    last = dataclasses.replace(
        recipe, steps=second, touching_weight=6.0, encoder_rate=4e-4, decoder_rate=1.6e-3
    )
    with threadpool_limits(1):
        crops, empty = cut_crops(PHANTOMS, per_seed=15, size_px=384)
    material = Material(images, crops, empty)
    pretrained = arguments.data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    network = train(material, recipe, pretrained, seed=arguments.fold)
    network = mean_weights(network, train(material, last, network, seed=arguments.fold + 10))
    return wrap(network, load_detector().card)


def measure(
    detector: LearnedDetector, held: Sequence[LabelledImage]
) -> dict[str, dict[str, dict[str, float]]]:
    """Agreement on each image by its name, of the detector and the classical one."""
    classical = ClassicalDetector()
    pairs = zip(
        held,
        compare_all(lambda image: detector.detect(image[None])[0], held),
        compare_all(lambda image: classical.detect(image[None])[0], held),
        strict=True,
    )
    return {
        image.name: {
            name: dataclasses.asdict(agreement)
            for name, agreement in zip(FINDERS, found, strict=True)
        }
        for image, *found in pairs
    }


def summarise(
    found: dict[str, dict[str, dict[str, float]]],
    images: Sequence[LabelledImage],
    folds: Sequence[set[str]],
) -> dict[str, object]:
    """Means over all images that were measured, of each kind, and of each fold."""
    known = [image for image in images if image.name in found]
    report: dict[str, object] = {"measured": len(known), "not measured": len(images) - len(known)}
    for name in FINDERS:
        agreements = {
            image.name: Agreement(**found[image.name][name])  # type: ignore[arg-type]  # as written
            for image in known
        }
        report[name] = by_kind(known, list(agreements.values()))
        report[f"{name}, F1 of folds"] = [
            round(float(np.mean([agreements[key].f1 for key in fold & found.keys()])), 4)
            for fold in folds
            if fold & found.keys()
        ]
    return report


if __name__ == "__main__":
    main()
