"""What triage found on a slide, as values: scored tiles, regions, the result, or the failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from slidetriage.tiling import TileGrid, Tiles


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
    novelty: NDArray[np.float32] | None = None
    """N; distance from what the model learned from; None where the model has no reference."""

    @property
    def read(self) -> NDArray[np.bool_]:
        """N; True where the tile's pixels were read and scored."""
        return ~np.isnan(self.probability)

    @property
    def column_edges_px(self) -> NDArray[np.float64]:
        """One per column and one more: where the cells of the grid meet along x, in level-0 px.

        A cell is what a tile stands for in heatmap, regions and annotations: the stride-sized
        square in the middle of the tile, which is the tile itself where tiles do not overlap.
        The outermost cells reach to the edge of the slide's bounds and never past it, so the
        cells cover the bounds exactly once. Edges are multiples of 0.01 px, QuPath's own grid.
        """
        grid = self.tiles.grid
        first, last = grid.bounds.x, grid.bounds.x + grid.bounds.width
        return _edges(grid, grid.columns, grid.scale_x, first, last)

    @property
    def row_edges_px(self) -> NDArray[np.float64]:
        """The same along y."""
        grid = self.tiles.grid
        first, last = grid.bounds.y, grid.bounds.y + grid.bounds.height
        return _edges(grid, grid.rows, grid.scale_y, first, last)

    @property
    def cells_px(self) -> NDArray[np.float64]:
        """N x 4: left, top, right, bottom of each tile's cell in level-0 px."""
        x, y = self.column_edges_px, self.row_edges_px
        rows, columns = self.tiles.rows, self.tiles.columns
        return np.stack([x[columns], y[rows], x[columns + 1], y[rows + 1]], axis=1)

    def on_grid(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put one value per tile (N) on the grid: rows x columns, NaN where no tile was planned."""
        grid = self.tiles.grid
        raster = np.full((grid.rows, grid.columns), np.nan, np.float32)
        raster[self.tiles.rows, self.tiles.columns] = values
        return raster


def _edges(
    grid: TileGrid, count: int, scale: float, first: float, last: float
) -> NDArray[np.float64]:
    margin_px = (grid.tile_px - grid.stride_px) / 2
    edges = first + (margin_px + np.arange(count + 1) * grid.stride_px) * scale
    edges[0], edges[-1] = first, last
    rounded: NDArray[np.float64] = np.round(np.clip(edges, first, last), 2)
    return rounded


@dataclass(frozen=True, slots=True)
class Region:
    """Neighbouring tiles above the threshold, merged into one shape."""

    shape: Polygon | MultiPolygon
    """In level-0 px of the whole slide (bounds not subtracted)."""
    area_mm2: float
    mean_probability: float
    max_probability: float
    tile_count: int
