"""What triage found on a slide, as values: scored tiles, regions, the result, or the failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from slidetriage.tiling import Tiles


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTiles:
    """Every tile planned on a slide with what the model made of it; NaN where it was not read."""

    tiles: Tiles
    probability: NDArray[np.float32]
    """N; of the positive class for each tile on its own, 0 to 1."""
    attention: NDArray[np.float32]
    """N; weight in the slide's score; sums to 1 over the tiles read."""
    coverage: NDArray[np.float32]
    """N; share of the tile's area that is tissue and was read, 0 to 1."""

    @property
    def read(self) -> NDArray[np.bool_]:
        """N; True where the tile's pixels were read and scored."""
        return ~np.isnan(self.probability)


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring tiles above the threshold, merged into one shape."""

    shape: Polygon | MultiPolygon
    """In level-0 px of the whole slide (bounds not subtracted)."""
    area_mm2: float
    mean_probability: float
    max_probability: float
    tile_count: int
