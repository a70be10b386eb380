"""One batch of windows: nuclei are found, outlined, measured, and kept where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.models.nuclei import NucleusDetector, NucleusTable, join_tables
from slidetriage.models.nuclei.measuring import Window, centroids, measure_nuclei
from slidetriage.models.nuclei.pixel_quality import PixelBlocks, inspect_pixels
from slidetriage.tiling import TileBatch, TileGrid, TilePixels, core_edges

from .parts import ACROSS, BEYOND, WITHIN, Part, write_part

LEAST_VALID = 0.02
"""Share of a window that must have been scanned: less is glass that nobody looked at."""

SEAM_UM = 0.5
"""Nuclei whose centre lies so far outside a core are kept at first: two windows may see the same
nucleus a little differently, each with its centre in the other's core. Further out are those of
which the other window is not sure: 2 um made 1 % more nuclei."""


def look_through(
    batch: TileBatch, pixels: TilePixels, detector: NucleusDetector, staging: Path
) -> int:
    """Find the nuclei of a batch and store them; the number of windows that could not be read."""
    grid = batch.tiles.grid
    usable = pixels.readable & (pixels.valid >= LEAST_VALID)
    x, y = core_edges(grid)
    tables, places, blocks = [], [], []
    for index in np.flatnonzero(usable).tolist():
        row, column = int(batch.tiles.rows[index]), int(batch.tiles.columns[index])
        image = pixels.images[index]
        (instances,) = detector.detect(image[None])
        box = grid.box(row, column)
        window = Window(box.x, box.y, (grid.scale_x, grid.scale_y), (grid.mpp_x, grid.mpp_y))
        table = measure_nuclei(image, instances, window)
        core = (x[column], y[row], x[column + 1], y[row + 1])
        blocks.append(inspect_pixels(image, window, core))
        kept, place = _belonging(table, core, grid)
        tables.append(table.choose(kept))
        places.append(place[kept])
    missing = np.flatnonzero(~pixels.readable).astype(np.int32) + batch.start
    place = np.concatenate([*places, np.empty(0, np.uint8)])
    part = Part(join_tables(tables), place, missing.astype(np.int32), PixelBlocks.join(blocks))
    write_part(staging, batch.start, part)
    return len(missing)


def _belonging(
    table: NucleusTable, core: tuple[float, float, float, float], grid: TileGrid
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Which nuclei are the window's own, or nearly, and of all where they lie (see `parts`)."""
    if not len(table):
        return np.empty(0, np.bool_), np.empty(0, np.uint8)
    reach = np.array([SEAM_UM / grid.mpp_x, SEAM_UM / grid.mpp_y])
    centre = centroids(table.points, table.offsets)
    low, high = np.array(core[:2]), np.array(core[2:])
    kept = ((centre >= low - reach) & (centre < high + reach)).all(1)
    own = ((centre >= low) & (centre < high)).all(1)
    first = np.minimum.reduceat(table.points, table.offsets[:-1])
    last = np.maximum.reduceat(table.points, table.offsets[:-1])
    within = ((first >= low) & (last <= high)).all(1)
    return kept, np.where(within, WITHIN, np.where(own, ACROSS, BEYOND)).astype(np.uint8)
