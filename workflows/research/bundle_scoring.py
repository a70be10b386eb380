"""Slides of a study as a bundle sees them, and what it takes for familiar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models import Bag, Bundle
from slidetriage.models.evaluation import fit_novelty
from slidetriage.models.trust import NoveltyReference, slide_distance

from .bundle_training import TrainedFold
from .predictions import Names, Numbers

TILES_PER_SLIDE = 100
"""Tiles of a training slide at most that the novelty reference is fitted to."""

TILES = 20_000
"""Of all training slides together, about."""

QUANTILE = 0.5
"""Of the distances of a slide's tiles, which is the slide's."""

LARGEST_DRIFT = 1e-3
"""Most by which a score may differ from what the training said of the same slide."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredSlides:
    """S slides that the weights were not fitted to, in the order of the training's outcome."""

    slide: Names
    patient: Names
    positive: NDArray[np.bool_]
    score: Numbers
    """The head's own probability, not calibrated."""
    tile_scores: tuple[NDArray[np.float32], ...]
    """Of each slide."""
    tile_distances: tuple[NDArray[np.float32], ...] | None
    """Of each slide; None without a reference."""

    def __len__(self) -> int:
        return len(self.slide)

    @property
    def tiles(self) -> NDArray[np.int64]:
        """S."""
        return np.array([len(scores) for scores in self.tile_scores], np.int64)

    @property
    def distances(self) -> Numbers | None:
        """S; None without a reference."""
        if self.tile_distances is None:
            return None
        found = [slide_distance(d, quantile=QUANTILE) for d in self.tile_distances]
        return np.round(found, 4)  # as a bundle gives them

    def count_patients(self, among: NDArray[np.bool_] | None = None) -> int:
        """How many patients the slides, or some of them, are of."""
        return len(np.unique(self.patient if among is None else self.patient[among]))


def fit_reference(fold: TrainedFold) -> NoveltyReference:
    """The reference of the training slides' tiles; raises `UsageError` where they are too few."""
    units, source = fold.training.split.train, fold.study.open()
    most = min(TILES_PER_SLIDE, -(-TILES // len(units)))
    drawn = []
    for unit in units.tolist():
        features = source.load(fold.study.cohort.slides[unit]).features
        rng = np.random.default_rng((fold.training.seed, unit))
        rows = rng.choice(len(features), min(most, len(features)), replace=False)
        drawn.append(features[np.sort(rows)])
    return fit_novelty(np.concatenate(drawn), seed=fold.training.seed)


def score_slides(
    bundle: Bundle, fold: TrainedFold, units: NDArray[np.int64], expected: Numbers
) -> ScoredSlides:
    """Score slides by a bundle that is not calibrated yet.

    Raises
    ------
    UsageError
        A score is not what the training said (`expected`, one per slide): its features or weights
        are others by now (E_FEATURES).
    """
    cohort, source = fold.study.cohort, fold.study.open()
    scores, tiles, distances = [], [], []
    for unit, before in zip(units.tolist(), expected.tolist(), strict=True):
        features = source.load(cohort.slides[unit]).features
        found = bundle.predict(Bag(features, np.zeros((len(features), 2), np.float32)))
        if abs(found.uncalibrated - before) > LARGEST_DRIFT:
            raise UsageError(
                f"Slide {cohort.slides[unit]} is scored {found.uncalibrated:.4f}, and was "
                f"{before:.4f} when {fold.name} was trained: its features or the weights have "
                "changed since.",
                mend="Bring back what was changed, or train again into another folder.",
                code="E_FEATURES",
            )
        scores.append(found.uncalibrated)
        tiles.append(found.tile_scores)
        if (apart := bundle.distances(features)) is not None:
            distances.append(apart)
    return ScoredSlides(
        slide=np.array([cohort.slides[unit] for unit in units]),
        patient=np.array([cohort.patients[unit] for unit in units]),
        positive=fold.is_positive(units),
        score=np.array(scores, np.float64),
        tile_scores=tuple(tiles),
        tile_distances=None if bundle.novelty is None else tuple(distances),
    )
