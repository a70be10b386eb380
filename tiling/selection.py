"""Which tiles of the grid to read: those with enough tissue, in an order that keeps neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from slidetriage.wsi import Slide, area_weights

from .tiles import TileBatch, TileGrid, Tiles, TissueMask

BLOCK = 8
"""Side in tiles of the square blocks that tiles are ordered by, so that a batch is compact."""


def tissue_fraction(grid: TileGrid, tissue: TissueMask) -> NDArray[np.float32]:
    """Share of each tile's area that is tissue, exactly: grid rows x columns, 0 to 1."""
    height, width = tissue.mask.shape
    tile_um, stride_um = grid.tile_px * grid.mpp, grid.stride_px * grid.mpp
    tall, wide = tile_um / tissue.mpp_y, tile_um / tissue.mpp_x
    rows = area_weights(grid.rows, 0.0, stride_um / tissue.mpp_y, height, window=tall)
    columns = area_weights(grid.columns, 0.0, stride_um / tissue.mpp_x, width, window=wide)
    tall_mask = rows @ tissue.mask.astype(np.float32)
    fraction: NDArray[np.float32] = (columns @ tall_mask.T).T
    return np.clip(fraction, 0, 1)


def select_tiles(grid: TileGrid, tissue: TissueMask, *, min_tissue: float) -> Tiles:
    """The tiles at least `min_tissue` of whose area is tissue, by blocks of neighbours."""
    fraction = tissue_fraction(grid, tissue)
    rows, columns = np.nonzero(fraction >= max(min_tissue, 1e-6))
    order = np.lexsort((columns, rows, columns // BLOCK, rows // BLOCK))
    rows, columns = rows[order], columns[order]
    return Tiles(grid, rows.astype(np.int32), columns.astype(np.int32), fraction[rows, columns])


def split_batches(slide: Slide, tiles: Tiles, size: int) -> Iterator[TileBatch]:
    """The tiles in batches of at most `size`, in order."""
    for start in range(0, len(tiles), size):
        yield TileBatch(slide, tiles[start : start + size], start)
