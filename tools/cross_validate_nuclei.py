"""How well the recipe of the nucleus detector does on each labelled image when it has not seen it.

    python tools/cross_validate_nuclei.py --data ../shared/data --fold 1 --out fold1.json
    python tools/cross_validate_nuclei.py --data ../shared/data --join fold1.json fold2.json

21 held-out images are few, and how hard they are is chance. So the other images are dealt into two
folds, whole pictures and kind after kind, and a network is trained for each fold on all images
outside it. The held-out images are the third fold, which the shipped detector has not seen. Folds
learn in two stages, of 700 and 600 steps, in place of the shipped detector's three of 2,400; how
maps become nuclei is taken from its card, chosen on 16 images that lie in these folds.
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
from nuclei.images import ImageSplit, LabelledImage, load_images, split_images
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
    split = split_images(images, seed=SPLIT_SEED)
    if arguments.join:
        parts = [json.loads(path.read_text()) for path in arguments.join]
        held = [image for image in images if image.name in split.held_out]
        found = measure(load_detector(), held)
        for part in parts:
            found |= part
        print(json.dumps(summarise(found, images, split), indent=2))
        return
    fold = deal_folds(images, split)[arguments.fold - 1]
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


def deal_folds(images: Sequence[LabelledImage], split: ImageSplit) -> list[set[str]]:
    """Names of the images of each fold: pictures at random to the fold with the fewer images."""
    rng = np.random.default_rng(SPLIT_SEED)
    folds: list[set[str]] = [set() for _ in FOLDS]
    members: dict[str, list[LabelledImage]] = {}
    for image in images:
        if image.name not in split.held_out:
            members.setdefault(image.picture, []).append(image)
    for kind in sorted({image.kind for image in images}):
        pictures = sorted(name for name in members if members[name][0].kind == kind)
        for number in rng.permutation(len(pictures)):
            fold = min(folds, key=len)
            fold.update(image.name for image in members[pictures[number]])
    return folds


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
    split: ImageSplit,
) -> dict[str, object]:
    """Means over all images that were measured, of each kind, and of each fold."""
    folds = [set(split.held_out), *deal_folds(images, split)]
    missing = {image.name for image in images} - found.keys()
    report: dict[str, object] = {"images": len(found), "not measured": len(missing)}
    for name in FINDERS:
        known = [image for image in images if image.name in found]
        agreements = [Agreement(**found[image.name][name]) for image in known]  # type: ignore[arg-type]  # as written
        report[name] = by_kind(known, agreements)
        report[f"{name}, F1 of folds"] = [
            round(
                float(
                    np.mean([a.f1 for i, a in zip(known, agreements, strict=True) if i.name in f])
                ),
                4,
            )
            for f in folds
            if f & found.keys()
        ]
    return report


if __name__ == "__main__":
    main()
