"""Scored tiles made up on the spot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from slidetriage.tiling import TileGrid, Tiles
from slidetriage.workflows.results import ScoredTiles
from slidetriage.wsi import Box


def score_tiles(
    probability: np.ndarray,
    *,
    origin: tuple[float, float] = (0, 0),
    mpp: tuple[float, float] = (0.5, 0.5),
    tile_px: int = 50,
    stride_px: int = 50,
    model_mpp: float = 1.0,
    overhang: float = 0,
    unread: np.ndarray | None = None,
    novelty: bool = False,
) -> ScoredTiles:
    """Tiles on a grid as large as `probability`; NaN is no tissue, `unread` a tissue tile lost.

    The slide ends `overhang` strides before the last tiles do.
    """
    rows, columns = probability.shape
    step = np.array([stride_px, stride_px]) * model_mpp / mpp
    tile = np.array([tile_px, tile_px]) * model_mpp / mpp
    width, height = tile + step * (columns - 1 - overhang, rows - 1 - overhang)
    bounds = Box(*origin, float(width), float(height))
    grid = TileGrid(bounds, *mpp, tile_px=tile_px, stride_px=stride_px, mpp=model_mpp)
    assert (grid.rows, grid.columns) == (rows, columns)
    lost = np.zeros((rows, columns), bool) if unread is None else unread
    row, column = np.nonzero(~np.isnan(probability) | lost)
    values = np.where(lost, np.nan, probability)[row, column].astype(np.float32)
    read = ~np.isnan(values)
    tissue = np.linspace(0.3, 1, len(row), dtype=np.float32)
    attention = np.where(read, values + 0.01, np.nan).astype(np.float32)
    return ScoredTiles(
        Tiles(grid, row.astype(np.int32), column.astype(np.int32), tissue),
        values,
        attention / np.float32(max(np.nansum(attention), 1e-6)),
        np.where(read, tissue, np.nan).astype(np.float32),
        np.where(read, 1 + values, np.nan).astype(np.float32) if novelty else None,
    )


@pytest.fixture(scope="session")
def scored() -> Callable[..., ScoredTiles]:
    """Make scored tiles from a grid of probabilities."""
    return score_tiles
