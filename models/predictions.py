"""Numbers in, numbers out: the bag of a slide and what a head thinks of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """A slide as multiple-instance learning sees it: one feature vector per tile."""

    features: NDArray[np.float32]
    """N x D, one row per tile that was read."""
    coordinates: NDArray[np.float32]
    """N x 2, tile centres x, y in micrometres."""

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, slots=True, eq=False)
class BagPrediction:
    """What the head says of one bag."""

    probability: float
    """Of the positive class, for the slide, 0 to 1, calibrated where the bundle says how."""
    uncalibrated: float
    """The head's own probability."""
    attention: NDArray[np.float32]
    """N; how much each tile weighed in the slide's probability; sums to 1."""
    tile_scores: NDArray[np.float32]
    """N; probability of the positive class for each tile on its own, 0 to 1."""
    tile_novelty: NDArray[np.float32] | None = None
    """N; how far each tile lies from those the model learned from, about 1 for one of them; None
    where the bundle has no reference."""
    novelty: float | None = None
    """Of the slide: the card's quantile of its tiles'."""
