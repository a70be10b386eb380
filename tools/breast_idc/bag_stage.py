"""Stage two: train gated attention on frozen features of bags made of one patient's real tiles."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from breast_idc.tiles import LabelledTiles
from slidetriage.models import SlideHead

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BagRecipe:
    """Everything that decides how bags are made and how the head trains on them."""

    hidden: int = 64
    attention: int = 64
    smallest: int = 16
    largest: int = 384
    """Tiles per bag are drawn log-uniformly between the two."""
    smallest_share: float = 0.02
    largest_share: float = 0.8
    """Share of IDC tiles in a positive bag, log-uniform between the two; at least one tile."""
    feature_noise: float = 0.05
    """Relative noise on features, so that a tile drawn twice is not the same twice."""
    steps: int = 600
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 1e-2
    views: int = 1
    """Augmented copies of each training tile, beside the plain one."""


@dataclass(frozen=True, slots=True, eq=False)
class TileFeatures:
    """Frozen features of labelled tiles, one or more views of each."""

    features: NDArray[np.float32]
    """N x views x D; view 0 is the plain tile."""
    labels: NDArray[np.float64]
    patients: NDArray[np.int64]

    @classmethod
    def of(cls, tiles: LabelledTiles, views: list[NDArray[np.float32]]) -> TileFeatures:
        """Join the views of the tiles."""
        return cls(np.stack(views, 1), tiles.labels, tiles.patients)


class BagMaker:
    """Draws bags: IDC tiles among the non-IDC tiles of one patient, or the latter alone."""

    def __init__(self, tiles: TileFeatures, recipe: BagRecipe) -> None:
        self._tiles, self._recipe = tiles, recipe
        ids = np.unique(tiles.patients)
        rows = {
            (patient, label): np.flatnonzero((tiles.patients == patient) & (tiles.labels == label))
            for patient in ids
            for label in (0, 1)
        }
        self._rows = rows
        self.negatives = [p for p in ids if len(rows[p, 0]) >= 5]
        self.positives = [p for p in self.negatives if len(rows[p, 1]) >= 3]

    def draw(
        self, patient: int, positive: bool, size: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], int]:
        """Draw one bag, size x D, and the number of its IDC tiles; IDC tiles come first."""
        recipe, count = self._recipe, 0
        if positive:
            low, high = math.log(recipe.smallest_share), math.log(recipe.largest_share)
            count = max(1, round(size * math.exp(rng.uniform(low, high))))
        tumour = rng.choice(self._rows[patient, 1], count) if count else np.empty(0, np.int64)
        chosen = np.concatenate([tumour, rng.choice(self._rows[patient, 0], size - count)])
        views = rng.integers(0, self._tiles.features.shape[1], size)
        features = self._tiles.features[chosen, views]
        noise = rng.standard_normal(features.shape, np.float32)
        return features * (1 + recipe.feature_noise * noise), count

    def draw_size(self, rng: np.random.Generator) -> int:
        """Draw a bag's number of tiles, log-uniformly."""
        low, high = math.log(self._recipe.smallest), math.log(self._recipe.largest)
        return round(math.exp(rng.uniform(low, high)))


def train_head(head: SlideHead, tiles: TileFeatures, recipe: BagRecipe, *, seed: int) -> None:
    """Train the slide part of `head` in place; its tile classifier is left as it is."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    maker = BagMaker(tiles, recipe)
    parameters = list(head.head.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    losses: list[float] = []
    for step in range(1, recipe.steps + 1):
        features, mask, labels = _batch(maker, recipe, rng)
        logits = head(features, mask).slide_logit[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0:
            _logger.info("bag step %d: loss %.4f", step, np.mean(losses[-100:]))


def _batch(
    maker: BagMaker, recipe: BagRecipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Half positive, half negative bags of one size or smaller, padded."""
    largest = maker.draw_size(rng)
    sizes = np.maximum(recipe.smallest, (largest * rng.uniform(0.5, 1, recipe.batch)).astype(int))
    bags = []
    for index, size in enumerate(sizes):
        positive = index % 2 == 0
        patients = maker.positives if positive else maker.negatives
        patient = int(patients[rng.integers(len(patients))])
        bags.append(maker.draw(patient, positive, int(size), rng)[0])
    features = torch.zeros(len(bags), int(sizes.max()), bags[0].shape[1])
    mask = torch.zeros(features.shape[:2], dtype=torch.bool)
    for index, bag in enumerate(bags):
        features[index, : len(bag)] = torch.from_numpy(bag)
        mask[index, : len(bag)] = True
    labels = (torch.arange(len(bags)) % 2 == 0).float()
    return features, mask, labels


@dataclass(frozen=True, slots=True, eq=False)
class ScoredBags:
    """What a head said of bags that were drawn to measure it."""

    logits: NDArray[np.float64]
    labels: NDArray[np.bool_]
    patients: NDArray[np.int64]
    sizes: NDArray[np.int64]
    counts: NDArray[np.int64]
    """IDC tiles in each bag."""


@torch.inference_mode()
def score_bags(
    head: SlideHead, tiles: TileFeatures, recipe: BagRecipe, *, per_patient: int, seed: int
) -> ScoredBags:
    """Draw bags of every patient that can give them, `per_patient` of each kind, and score them."""
    rng = np.random.default_rng(seed)
    maker = BagMaker(tiles, recipe)
    found = []
    for positive, patients in ((True, maker.positives), (False, maker.negatives)):
        for patient in np.repeat(patients, per_patient):
            size = maker.draw_size(rng)
            bag, count = maker.draw(int(patient), positive, size, rng)
            features = torch.from_numpy(bag)[None]
            output = head(features, torch.ones(1, size, dtype=torch.bool))
            found.append((float(output.slide_logit), positive, patient, size, count))
    logits, labels, patients_, sizes, counts = map(np.asarray, zip(*found, strict=True))
    return ScoredBags(logits.astype(float), labels.astype(bool), patients_, sizes, counts)
