"""The training of the shipped detector: its parts, and the script from end to end."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nuclei.augment import change_optics, drop_red_cells, recolour, restain, warp
from nuclei.images import LabelledImage, deal_folds, find_pictures, split_images
from nuclei.learning import CropMaker, Material, Recipe, measure_loss, start_network

from slidetriage.models.nuclei.learned import load_detector
from slidetriage.models.nuclei.network import STRIDE, NucleusNetwork, prepare_images

SCRIPT = Path(__file__).parents[3] / "tools" / "train_nucleus_detector.py"


def tissue(seed: int, kind: str = "purple") -> LabelledImage:
    """Dark discs on a textured ground."""
    rng = np.random.default_rng(seed)
    ground = {"purple": (160, 130, 200), "white": (225, 220, 228), "pink": (215, 120, 180)}[kind]
    labels = np.zeros((96, 120), np.int32)
    y, x = np.mgrid[:96, :120]
    for n in range(6):
        cy, cx = rng.uniform(10, 86), rng.uniform(10, 110)
        labels[(np.hypot(y - cy, x - cx) < 8) & (labels == 0)] = n + 1
    colour = np.where(labels[..., None] > 0, (90, 60, 150), ground)
    noisy = colour + rng.normal(0, 9, (96, 120, 3)).cumsum(1) / 4
    return LabelledImage(f"{kind}{seed}", noisy.clip(0, 255).astype(np.uint8), labels, f"p{seed}")


def test_neighbours_in_one_picture_are_found() -> None:
    rng = np.random.default_rng(1)
    smooth = np.clip(128 + rng.normal(0, 6, (80, 150, 3)).cumsum(0).cumsum(1) / 8, 0, 255)
    whole = smooth.astype(np.uint8)
    other = rng.integers(0, 256, (40, 75, 3)).astype(np.uint8)
    images = {"c": whole[:40, :75], "a": whole[:40, 75:], "b": whole[40:, :75], "z": other}
    assert find_pictures(images) == {"c": "a", "a": "a", "b": "a", "z": "z"}


def test_no_picture_is_on_both_sides_and_the_rare_kind_is_not_held_out() -> None:
    images = [tissue(n, kind) for kind in ("purple", "white") for n in range(12)]
    images = [
        LabelledImage(i.name, i.image, i.labels, f"{i.name[:3]}{n // 2}")
        for n, i in enumerate(images)
    ]
    images.append(tissue(50, "pink"))
    split = split_images(images, seed=1)
    parts = (split.train, split.validation, split.held_out)
    assert sorted(name for part in parts for name in part) == sorted(i.name for i in images)
    pictures = [{i.picture for i in images if i.name in part} for part in parts]
    assert not pictures[0] & pictures[1]
    assert not (pictures[0] | pictures[1]) & pictures[2]
    assert len(split.held_out) >= 0.24 * 24
    assert "pink50" in split.validation
    assert split == split_images(images[::-1], seed=1)


def test_augmentation_keeps_nuclei_where_they_are_labelled() -> None:
    source = tissue(3)
    rng = np.random.default_rng(0)
    image, labels = warp(source.image, source.labels, 1.3, 128, rng)
    assert image.shape == (128, 128, 3)
    for altered in (
        image,
        restain(image, labels, None, rng),
        restain(image, labels, np.full_like(image, 220), rng),
        recolour(image, rng),
        change_optics(image, rng),
        drop_red_cells(image, labels, 16, rng),
    ):
        assert altered.dtype == np.uint8
        assert altered[labels > 0].mean() < altered[labels == 0].mean() - 10


def test_folds_hold_every_image_once_and_whole_pictures() -> None:
    images = [
        dataclasses.replace(tissue(n, kind), picture=f"{kind}-picture-{n // 3}")
        for kind in ("purple", "white", "pink")
        for n in range(9)
    ]
    folds = deal_folds(images, seed=4, count=3)
    assert sorted(name for fold in folds for name in fold) == sorted(i.name for i in images)
    assert {len(fold) for fold in folds} == {9}
    for fold in folds:
        pictures = {image.picture for image in images if image.name in fold}
        assert fold == {image.name for image in images if image.picture in pictures}
        assert len({name.rstrip("0123456789") for name in fold}) == 3, "every kind in every fold"
    assert folds == deal_folds(images, seed=4, count=3)
    assert folds != deal_folds(images, seed=5, count=3)


def test_crops_are_decided_by_the_seed() -> None:
    material = Material([tissue(n) for n in range(3)], [], [])
    recipe = Recipe(batch=3, crop_px=64)
    one, other = (CropMaker(material, recipe, 5).batch() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    images, targets, weight = one
    assert images.shape == (3, 64, 64, 3)
    assert targets.shape == (3, 2, 64, 64)
    assert ((targets[:, 1] > 0) <= (targets[:, 0] > 0)).all()
    assert weight.min() == 1


def test_loss_is_least_where_the_maps_are_right() -> None:
    targets = torch.zeros(1, 2, 16, 16)
    targets[:, 0, 4:12, 4:12], targets[:, 1, 4:12, 4:12] = 1, 0.4
    right = torch.logit(targets.clamp(1e-4, 1 - 1e-4))
    weight = torch.ones(1, 16, 16)
    best = measure_loss(right, targets, weight)
    assert best < 0.01
    assert measure_loss(right + 0.5, targets, weight) > best
    assert measure_loss(-right, targets, weight) > 1


def test_normalisation_is_unfolded_without_changing_the_network(
    data: Callable[[str], Path],
) -> None:
    path = data("weights/mobilenetv2_100_imagenet_fp16.safetensors")
    sample = torch.from_numpy(np.stack([tissue(n).image for n in range(2)]))[:, :, :112]
    network = start_network(path, sample, 0).eval()
    torch.manual_seed(0)
    plain = NucleusNetwork()
    from safetensors.torch import load_file

    plain.load_state_dict(plain.encoder_state(load_file(path)), strict=False)
    plain.eval()
    x = prepare_images(sample)
    with torch.no_grad():
        torch.testing.assert_close(
            network.compute_maps(x), plain.compute_maps(x), atol=1e-3, rtol=1e-3
        )
    assert network(sample).shape == (2, 2, 96, 112)
    assert network.stem_norm.running_var.std() > 0


def test_a_pixel_depends_on_its_surroundings_only() -> None:
    torch.manual_seed(0)
    network = NucleusNetwork().eval()
    images = torch.randint(0, 256, (1, 32 * STRIDE, 4 * STRIDE, 3), dtype=torch.uint8)
    other = images.clone()
    other[:, 20 * STRIDE :] = 0
    with torch.no_grad():
        one, changed = network(images), network(other)
    assert torch.equal(one[:, :, : 4 * STRIDE], changed[:, :, : 4 * STRIDE])
    assert not torch.equal(one[:, :, 20 * STRIDE :], changed[:, :, 20 * STRIDE :])


@pytest.mark.slow
def test_the_script_from_end_to_end(data: Callable[[str], Path], tmp_path: Path) -> None:
    out, metrics = tmp_path / "detector", tmp_path / "metrics.json"
    folder = data("nuclei").parent
    command = [sys.executable, str(SCRIPT), "--quick", "--data", str(folder)]
    subprocess.run([*command, "--out", str(out), "--metrics", str(metrics)], check=True)
    report = json.loads(metrics.read_text())
    assert set(report) == {"split", "validation", "held_out"}
    detector = load_detector(out)
    assert detector.card.training.held_out == tuple(report["split"]["held_out"])
    assert len(detector.card.metrics) == 4
