"""Train the nucleus detector nuclei-he from labelled images and painted phantoms.

    python tools/train_nucleus_detector.py --data ../shared/data --out models/detectors/nuclei-he \
        --metrics metrics.json

First learns from the training images alone; how maps become nuclei is then chosen on the
validation images; then it goes on learning from both, at last with more weight on where nuclei
touch. After each later stage the weights are the mean of those before and after it, which keeps
what the first learned of tissue unlike the images (Wortsman et al., CVPR 2022). The held-out
images, drawn by seed before all that, are looked at last, by the detector as it was saved. The
same seed and number of threads give the same weights on the same machine.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import platform
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from nuclei.describing import Making, compose_card, describe_split, list_figures
from nuclei.figures import Finder, by_kind, compare_all, mean_figures, pooled_f1
from nuclei.images import ImageSplit, LabelledImage, load_images, split_images
from nuclei.learning import Material, Recipe, train
from nuclei.phantoms import FIRST_SEED, cut_crops
from threadpoolctl import threadpool_limits

from slidetriage.models.nuclei.classical import ClassicalDetector
from slidetriage.models.nuclei.decoding import Decoding
from slidetriage.models.nuclei.detector_card import DetectionFigure, DetectorCard, save_detector
from slidetriage.models.nuclei.learned import LearnedDetector, load_detector
from slidetriage.models.nuclei.network import NucleusNetwork
from slidetriage.models.nuclei.rescaling import detect_at_any_scale

SPLIT_SEED = 6
PHANTOMS = range(FIRST_SEED, FIRST_SEED + 12)
TEST_PHANTOMS = range(FIRST_SEED)

Figures = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """Train, choose, train on, save, load what was saved, and measure that."""
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    images = load_images(arguments.data / "nuclei")
    split = split_images(images, seed=SPLIT_SEED)
    making, network, decoding, chosen = learn(arguments, images, split)
    card = compose_card(split, making, (96, 64, 32), decoding)
    save_detector(arguments.out, card, network.state_dict())
    held = [image for image in images if image.name in split.held_out]
    found = evaluate(load_detector(arguments.out), held, quick=arguments.quick)
    pictures = {i.picture: [o.name for o in images if o.picture == i.picture] for i in images}
    where = describe_split(split, pictures)
    metrics = [
        *list_figures(found["default"], where),
        DetectionFigure(
            "F1 at IoU 0.5, phantoms", found["phantoms"]["all"]["f1"], "phantoms of seeds 0 to 4"
        ),
    ]
    save_detector(
        arguments.out, dataclasses.replace(card, metrics=tuple(metrics)), network.state_dict()
    )
    report = {"split": dataclasses.asdict(split), "validation": chosen, "held_out": found}
    arguments.metrics.parent.mkdir(parents=True, exist_ok=True)
    arguments.metrics.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with nuclei/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the detector")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs=3, default=(700, 800, 900))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps: tries the code")
    return parser.parse_args()


def learn(
    arguments: argparse.Namespace, images: list[LabelledImage], split: ImageSplit
) -> tuple[Making, NucleusNetwork, Decoding, dict[str, object]]:
    """The three trainings, and the choice after the first."""
    first, second, third = (2, 2, 2) if arguments.quick else arguments.steps
    recipe = Recipe(steps=first)
    if arguments.quick:
        recipe = dataclasses.replace(recipe, crop_px=64, batch=2)
    last = dataclasses.replace(
        recipe, steps=third, touching_weight=6.0, encoder_rate=4e-4, decoder_rate=1.6e-3
    )
    seeds, per_seed = (PHANTOMS[:1], 2) if arguments.quick else (PHANTOMS, 15)
    # Many small products: threads would cost more than they save.
    with threadpool_limits(1):
        crops, empty = cut_crops(seeds, per_seed=per_seed, size_px=384)
    groups = {
        p: [i for i in images if i.name in getattr(split, p)] for p in ("train", "validation")
    }
    pretrained = arguments.data / "weights" / "mobilenetv2_100_imagenet_fp16.safetensors"
    material = Material(groups["train"], crops, empty)
    network = train(material, recipe, pretrained, seed=arguments.seed)
    making = Making(
        seed=arguments.seed,
        split_seed=SPLIT_SEED,
        steps=(first, second, third),
        recipe=recipe,
        machine=f"CPU ({platform.machine()}), {arguments.threads} threads, "
        f"torch {torch.__version__}",
    )
    decoding, chosen = choose_decoding(network, groups["validation"], split, making)
    material = Material([*groups["train"], *groups["validation"]], crops, empty)
    for number, stage in enumerate((dataclasses.replace(recipe, steps=second), last), 1):
        learned = train(material, stage, network, seed=arguments.seed + number)
        network = mean_weights(network, learned)
    return making, network, decoding, chosen


@torch.no_grad()
def mean_weights(before: NucleusNetwork, after: NucleusNetwork) -> NucleusNetwork:
    """A network half way between two."""
    middle = copy.deepcopy(after)
    old = before.state_dict()
    for name, value in middle.state_dict().items():
        if value.is_floating_point():
            value.copy_(old[name].lerp(value, 0.5))
    return middle


def choose_decoding(
    network: NucleusNetwork, images: list[LabelledImage], split: ImageSplit, making: Making
) -> tuple[Decoding, dict[str, object]]:
    """The thresholds with the best mean panoptic quality on the validation images."""
    detector = wrap(network, compose_card(split, making, (96, 64, 32), Decoding()))
    maps = [detector.compute_maps(image.image) for image in images]
    tried = {}
    for inside, certainty, dip in product((95, 105, 120), (150, 164, 172, 180), (50, 64, 78)):
        decoding = Decoding(inside=inside, certainty=certainty, dip=dip)
        lookup = {
            id(image.image): decoding.decode(*m) for image, m in zip(images, maps, strict=True)
        }
        found = compare_all(lambda image, known=lookup: known[id(image)], images)
        tried[decoding] = mean_figures(found), by_kind(images, found)
    best = max(tried, key=lambda key: tried[key][0]["pq"])
    logging.info("%s: %s", best, json.dumps(tried[best][1]))
    chosen: dict[str, object] = {**dataclasses.asdict(best), "figures": tried[best][1]}
    return best, chosen


def evaluate(detector: LearnedDetector, held: list[LabelledImage], *, quick: bool) -> Figures:
    """Default, default at unknown scale, and classical on held-out images; phantoms."""
    usual = detector.card.usual_diameter_px
    classical = ClassicalDetector()
    finders: dict[str, Finder] = {
        "default": lambda image: detector.detect(image[None])[0],
        "default, two looks": lambda image: detect_at_any_scale(
            detector, image, usual_diameter_px=usual
        ),
        "classical": lambda image: classical.detect(image[None])[0],
    }
    found: Figures = {
        name: by_kind(held, compare_all(find, held)) for name, find in finders.items()
    }
    for name in ("phantoms", "phantoms, classical"):
        find = finders["default" if name == "phantoms" else "classical"]
        found[name] = measure_phantoms(find, 1 if quick else 6)
    return found


def measure_phantoms(find: Finder, per_seed: int) -> dict[str, dict[str, float]]:
    """Figures on painted slides that nothing was learned from."""
    with threadpool_limits(1):
        crops, _ = cut_crops(TEST_PHANTOMS, per_seed=per_seed, size_px=512)
    images = [
        LabelledImage(f"{n}", image, labels.astype(np.int32), "")
        for n, (image, labels) in enumerate(crops)
    ]
    found = compare_all(find, images)
    return {"all": mean_figures(found), "pooled": {"f1": pooled_f1(found)}}


def wrap(network: NucleusNetwork, card: DetectorCard) -> LearnedDetector:
    """A detector of a network that was not saved."""
    return LearnedDetector(card, network, identity="unsaved", device="cpu")


if __name__ == "__main__":
    main()
