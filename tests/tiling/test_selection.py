"""Tiles are chosen by their exact share of tissue, and each once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.tiling import (
    TileGrid,
    TissueMask,
    select_tiles,
    tissue_fraction,
)
from slidetriage.wsi import Box


def fine_fraction(mask: np.ndarray, grid: TileGrid, tissue: TissueMask) -> np.ndarray:
    """Share of tissue by sampling each tile at 40 x 40 points."""
    side = grid.tile_px * grid.mpp
    at = (np.arange(40) + 0.5) / 40 * side
    want = np.zeros((grid.rows, grid.columns))
    for row in range(grid.rows):
        for column in range(grid.columns):
            y = ((row * grid.stride_px * grid.mpp + at) / tissue.mpp_y).astype(int)
            x = ((column * grid.stride_px * grid.mpp + at) / tissue.mpp_x).astype(int)
            inside = (y[:, None] < mask.shape[0]) & (x[None] < mask.shape[1])
            values = mask[np.clip(y, 0, mask.shape[0] - 1)][:, np.clip(x, 0, mask.shape[1] - 1)]
            want[row, column] = (values & inside).mean()
    return want


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 99),
    mpp=st.sampled_from([0.5, 0.499, 4.0]),
    stride=st.sampled_from([25, 50]),
)
def test_the_share_of_tissue_is_exact(seed: int, mpp: float, stride: int) -> None:
    mask = np.kron(np.random.default_rng(seed).random((9, 11)) > 0.5, np.ones((7, 7))) > 0
    height, width = mask.shape
    mask_mpp = 8.3
    bounds = Box(0, 0, width * mask_mpp / mpp, height * mask_mpp / mpp)
    grid = TileGrid(bounds, mpp, mpp, tile_px=50, stride_px=stride, mpp=4.0)
    tissue = TissueMask(mask, mask_mpp, mask_mpp, "test")
    got = tissue_fraction(grid, tissue)
    assert got == pytest.approx(fine_fraction(mask, grid, tissue), abs=0.03)


def test_selection_keeps_each_tile_once_and_neighbours_together() -> None:
    grid = TileGrid(Box(0, 0, 2000, 1500), 4.0, 4.0, tile_px=50, stride_px=50, mpp=4.0)
    tissue = TissueMask(np.ones((750, 1000), bool), 8.0, 8.0, "test")
    tiles = select_tiles(grid, tissue, min_tissue=0.5)
    places = set(zip(tiles.rows.tolist(), tiles.columns.tolist(), strict=True))
    assert len(places) == len(tiles) == grid.rows * grid.columns == 30 * 40
    first = tiles[:64]
    assert first.rows.max() < 8
    assert first.columns.max() < 8


def test_a_tile_needs_the_share_asked_for() -> None:
    grid = TileGrid(Box(0, 0, 100, 50), 4.0, 4.0, tile_px=50, stride_px=50, mpp=4.0)
    mask = np.zeros((25, 50), bool)
    mask[:, :5] = True  # a fifth of the first tile
    tissue = TissueMask(mask, 8.0, 8.0, "test")
    assert len(select_tiles(grid, tissue, min_tissue=0.19)) == 1
    assert len(select_tiles(grid, tissue, min_tissue=0.21)) == 0
    assert len(select_tiles(grid, tissue, min_tissue=0.0)) == 1, "no tissue at all is never read"
