"""Learning the two maps from augmented crops of labelled images and painted phantoms."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from breast_idc.tile_stage import unfold_normalisation
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from slidetriage.models.nuclei.network import NucleusNetwork, prepare_images

from .augment import change_optics, drop_red_cells, recolour, restain, warp
from .images import LabelledImage
from .targets import relative_depth, touching

_logger = logging.getLogger(__name__)

Crop = tuple[NDArray[np.uint8], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the network is trained."""

    steps: int = 1800
    batch: int = 8
    crop_px: int = 192
    encoder_rate: float = 6e-4
    decoder_rate: float = 2.5e-3
    weight_decay: float = 0.02
    averaging: float = 0.995
    phantom_share: float = 0.28
    restain_share: float = 0.5
    behind_share: float = 0.65
    """Of restained crops, how many get phantom tissue behind."""
    scale: tuple[float, float] = (0.4, 1.7)
    diameter_px: tuple[float, float] = (9.0, 75.0)
    """Median nuclei of a crop stay within this whatever its scale."""
    pink_weight: float = 4.0
    """How much oftener an image of the rare pink kind is drawn."""
    touching_weight: float = 2.0
    """How much more a pixel counts where two nuclei touch."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What is learned from."""

    images: Sequence[LabelledImage]
    phantoms: Sequence[Crop]
    empty: Sequence[NDArray[np.uint8]]
    """Phantom tissue without nuclei, to lie behind real ones."""


class CropMaker:
    """Draws augmented crops with their targets."""

    def __init__(self, material: Material, recipe: Recipe, seed: int) -> None:
        self._material, self._recipe = material, recipe
        self._rng = np.random.default_rng(seed)
        images = material.images
        # Pictures are as likely as the root of how many images there are of them, or all that the
        # network saw would be from the largest ones.
        counts = {i.picture: sum(o.picture == i.picture for o in images) for i in images}
        weights = np.array(
            [
                (recipe.pink_weight if i.kind == "pink" else 1.0) / math.sqrt(counts[i.picture])
                for i in images
            ]
        )
        self._shares = weights / weights.sum()
        self._diameters = [image.diameter_px for image in images]

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """N x H x W x 3 uint8, N x 2 x H x W targets, N x H x W weights."""
        drawn = [self._draw() for _ in range(self._recipe.batch)]
        images = torch.from_numpy(np.stack([image for image, _ in drawn]))
        depth = np.stack([relative_depth(labels) for _, labels in drawn])
        inside = np.stack([labels > 0 for _, labels in drawn]).astype(np.float32)
        weight = np.stack([touching(labels) for _, labels in drawn]).astype(np.float32)
        weight = 1 + np.float32(self._recipe.touching_weight) * weight
        targets = np.stack([inside, depth], 1)
        return images, torch.from_numpy(targets), torch.from_numpy(weight)

    def _draw(self) -> Crop:
        rng, recipe, material = self._rng, self._recipe, self._material
        if material.phantoms and rng.random() < recipe.phantom_share:
            image, labels = material.phantoms[rng.integers(len(material.phantoms))]
            scale = float(np.exp(rng.uniform(math.log(0.7), math.log(1.4))))
            image, labels = warp(image, labels, scale, recipe.crop_px, rng)
            if rng.random() < 0.8:
                image = recolour(image, rng)
            return change_optics(image, rng), labels
        number = int(rng.choice(len(self._shares), p=self._shares))
        source, diameter = material.images[number], self._diameters[number]
        low = max(recipe.scale[0], recipe.diameter_px[0] / diameter)
        high = min(recipe.scale[1], recipe.diameter_px[1] / diameter)
        scale = float(np.exp(rng.uniform(math.log(low), math.log(max(high, low)))))
        image, labels = warp(source.image, source.labels, scale, recipe.crop_px, rng)
        share = recipe.restain_share * (0.4 if source.kind == "pink" else 1.0)
        if rng.random() < share:
            behind = None
            if material.empty and rng.random() < recipe.behind_share:
                back = material.empty[rng.integers(len(material.empty))]
                behind, _ = warp(back, np.zeros(back.shape[:2], np.int32), 1, recipe.crop_px, rng)
            image = restain(image, labels, behind, rng)
            if rng.random() < 0.3:
                image = drop_red_cells(image, labels, diameter * scale, rng)
        elif rng.random() < 0.8:
            image = recolour(image, rng)
        return change_optics(image, rng), labels


def start_network(pretrained: Path | None, sample: Tensor, seed: int) -> NucleusNetwork:
    """A network whose encoder has ImageNet weights, its normalisation measured on `sample`."""
    torch.manual_seed(seed)
    network = NucleusNetwork()
    if pretrained is not None:
        state = network.encoder_state(load_file(pretrained))
        missing, unknown = network.load_state_dict(state, strict=False)
        assert not unknown
        assert all(name.startswith(("joins.", "last.", "maps.")) for name in missing)
    encoder = _Encoder(network)
    unfold_normalisation(encoder, prepare_images(sample))  # type: ignore[arg-type]  # any module
    return network


class _Encoder(nn.Module):
    """The part with folded normalisation."""

    def __init__(self, network: NucleusNetwork) -> None:
        super().__init__()
        self.stem, self.norm, self.blocks = network.stem, network.stem_norm, network.blocks

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        result: Tensor = self.blocks(x)
        return result


def train(
    material: Material, recipe: Recipe, start: Path | NucleusNetwork | None, *, seed: int
) -> NucleusNetwork:
    """Train and return the running average of the weights, in eval mode.

    `start` is a file of the encoder's weights, or a trained network to go on with.
    """
    maker = CropMaker(material, recipe, seed)
    if isinstance(start, NucleusNetwork):
        network = copy.deepcopy(start).requires_grad_(True)
    else:
        network = start_network(start, maker.batch()[0], seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    average = copy.deepcopy(network).eval().requires_grad_(False)
    encoder = [*network.stem.parameters(), *network.stem_norm.parameters()]
    encoder += list(network.blocks.parameters())
    known = {id(p) for p in encoder}
    decoder = [p for p in network.parameters() if id(p) not in known]
    groups = [
        {"params": encoder, "lr": recipe.encoder_rate},
        {"params": decoder, "lr": recipe.decoder_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: _rate(s, recipe.steps))
    losses: list[float] = []
    began = time.monotonic()
    network.train()
    for step in range(recipe.steps):
        images, targets, weight = maker.batch()
        x = prepare_images(images).contiguous(memory_format=torch.channels_last)
        loss = measure_loss(network.compute_maps(x), targets, weight)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        _average(average, network, min(recipe.averaging, (step + 1) / (step + 10)))
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            spent = time.monotonic() - began
            _logger.info(
                "step %d of %d, %.0f s: loss %.4f",
                *(step + 1, recipe.steps, spent, float(np.mean(losses[-20:]))),
            )
    return average


def measure_loss(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of both maps and, for the first, the overlap that Dice's coefficient lacks."""
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # What a perfect answer would still cost, because depths lie between 0 and 1.
    depth = targets[:, 1].clamp(1e-4, 1 - 1e-4)
    floor = -(depth * depth.log() + (1 - depth) * (1 - depth).log())
    inside, found = targets[:, 0], logits[:, 0].sigmoid()
    both = (inside * found).sum((1, 2))
    dice = 1 - (2 * both + 50) / (inside.sum((1, 2)) + found.sum((1, 2)) + 50)
    first = (entropy[:, 0] * weight).mean()
    second = ((entropy[:, 1] - floor) * weight).mean()
    return first + 2 * second + 0.5 * dice.mean()


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)
