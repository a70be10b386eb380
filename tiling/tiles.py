"""Where to look: the tissue, the grid of tiles over it, and the tiles chosen, as values.

A tile is `tile_px` x `tile_px` pixels at the model's mpp. Its box in level-0 px is exact, so it
has fractions whenever the slide's mpp does not divide the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from slidetriage.wsi import Box, Slide


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Tissue over the slide's bounds, at thumbnail scale."""

    mask: NDArray[np.bool_]
    """rows x columns; True is tissue."""
    mpp_x: float
    mpp_y: float
    """Micrometres per mask pixel along each axis."""
    method: str
    """Name of the masker that made it."""

    @property
    def area_mm2(self) -> float:
        """Tissue area in square millimetres."""
        return float(self.mask.sum()) * self.mpp_x * self.mpp_y / 1e6


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A regular grid of tiles over the slide's bounds, edge tiles included.

    >>> grid = TileGrid(Box(0, 0, 1000, 800), mpp_x=0.5, mpp_y=0.5, tile_px=50, stride_px=50, mpp=4)
    >>> grid.columns, grid.rows, grid.box(0, 1)
    (3, 2, Box(x=400.0, y=0.0, width=400.0, height=400.0))
    """

    bounds: Box
    """What the grid covers, in level-0 px; its top left corner is the first tile's."""
    mpp_x: float
    mpp_y: float
    """Micrometres per level-0 px of the slide."""
    tile_px: int
    stride_px: int
    """Distance of neighbouring tiles; less than `tile_px` makes them overlap."""
    mpp: float
    """The model's micrometres per tile pixel."""

    @classmethod
    def over(cls, slide: Slide, *, tile_px: int, stride_px: int, mpp: float) -> TileGrid:
        """The grid for a model's tiles over everything that was scanned of `slide`."""
        return cls(slide.bounds, slide.mpp.x, slide.mpp.y, tile_px, stride_px, mpp)

    @property
    def scale_x(self) -> float:
        """Level-0 px per tile pixel along x."""
        return self.mpp / self.mpp_x

    @property
    def scale_y(self) -> float:
        """Level-0 px per tile pixel along y."""
        return self.mpp / self.mpp_y

    @property
    def columns(self) -> int:
        """Tiles along x; every scanned pixel lies in at least one."""
        return _count(self.bounds.width / self.scale_x, self.tile_px, self.stride_px)

    @property
    def rows(self) -> int:
        """Tiles along y."""
        return _count(self.bounds.height / self.scale_y, self.tile_px, self.stride_px)

    def box(self, row: int, column: int, *, columns: int = 1) -> Box:
        """Level-0 box of the tile at `row`, `column`, or of a run of `columns` tiles from there."""
        return Box(
            self.bounds.x + column * self.stride_px * self.scale_x,
            self.bounds.y + row * self.stride_px * self.scale_y,
            self.run_px(columns) * self.scale_x,
            self.tile_px * self.scale_y,
        )

    def run_px(self, columns: int) -> int:
        """Width in tile pixels of `columns` neighbouring tiles."""
        return self.tile_px + (columns - 1) * self.stride_px


def _count(extent_px: float, tile_px: int, stride_px: int) -> int:
    # A millionth of a pixel past the last tile is rounding of the mpp, not tissue.
    return 1 + max(0, ceil((extent_px - tile_px) / stride_px - 1e-6))


@dataclass(frozen=True, slots=True, eq=False)
class Tiles:
    """The tiles chosen on one slide, in reading order."""

    grid: TileGrid
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    tissue: NDArray[np.float32]
    """Share of each tile's area that is tissue, 0 to 1."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Tiles:
        return Tiles(self.grid, self.rows[part], self.columns[part], self.tissue[part])

    @property
    def boxes(self) -> NDArray[np.float64]:
        """N x 4: x, y, width, height in level-0 px."""
        grid = self.grid
        boxes = np.empty((len(self), 4), np.float64)
        boxes[:, 0] = grid.bounds.x + self.columns * (grid.stride_px * grid.scale_x)
        boxes[:, 1] = grid.bounds.y + self.rows * (grid.stride_px * grid.scale_y)
        boxes[:, 2] = grid.tile_px * grid.scale_x
        boxes[:, 3] = grid.tile_px * grid.scale_y
        return boxes

    @property
    def centres_um(self) -> NDArray[np.float32]:
        """N x 2: tile centres x, y in micrometres from the slide's top left corner."""
        boxes = self.boxes
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        return (centres * (self.grid.mpp_x, self.grid.mpp_y)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TileBatch:
    """The unit of work: some tiles of one slide, small enough to read and encode at once."""

    slide: Slide
    tiles: Tiles
    start: int
    """Index of the first tile among the slide's tiles."""
