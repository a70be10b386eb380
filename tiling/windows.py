"""Windows for looking closely: overlapping tiles over chosen areas of a slide, and their cores.

What is found in a window belongs to it where it lies in the window's core, the stride-sized square
in its middle. Cores cover the slide once, so nothing is found twice and nothing is missed, and
the lattice does not depend on the areas: the same place is always seen in the same window.
"""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from slidetriage.errors import UsageError
from slidetriage.wsi import Slide

from .selection import BLOCK
from .tiles import TileGrid, Tiles

ARC_SEGMENTS = 8
"""Straight pieces per quarter circle of a margin; it is 0.5 % short of round at most."""


def window_grid(slide: Slide, *, window_px: int, margin_px: int, mpp: float) -> TileGrid:
    """The lattice of windows of `window_px` at `mpp` whose cores are `margin_px` from their edge.

    Raises `UsageError` where no core is left.
    """
    core_px = window_px - 2 * margin_px
    if core_px < 1:
        raise UsageError(
            f"Windows of {window_px} px leave nothing within a margin of {margin_px} px.",
            mend=f"Choose windows of more than {2 * margin_px} px.",
        )
    return TileGrid.over(slide, tile_px=window_px, stride_px=core_px, mpp=mpp)


def core_edges(grid: TileGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where cores meet along x and along y in level-0 px; one more than columns and rows.

    The outermost cores reach to the edge of the slide's bounds, since no other window sees it.
    """
    bounds = grid.bounds
    x = _edges(bounds.x, bounds.width, grid, (grid.columns, grid.scale_x))
    y = _edges(bounds.y, bounds.height, grid, (grid.rows, grid.scale_y))
    return x, y


def _edges(
    first: float, extent: float, grid: TileGrid, along: tuple[int, float]
) -> NDArray[np.float64]:
    count, scale = along
    margin_px = (grid.tile_px - grid.stride_px) / 2
    edges = first + (margin_px + np.arange(count + 1) * grid.stride_px) * scale
    edges[0], edges[-1] = first, first + extent
    return np.clip(edges, first, first + extent)


def grow_area(area: BaseGeometry, slide: Slide, margin_um: float) -> BaseGeometry:
    """An area in level-0 px with a margin in micrometres around it, within the slide's bounds."""
    to_um = (slide.mpp.x, slide.mpp.y)
    in_um = shapely.transform(area, lambda xy: xy * to_um)
    grown = shapely.buffer(in_um, margin_um, quad_segs=ARC_SEGMENTS) if margin_um else in_um
    back = shapely.transform(grown, lambda xy: xy / to_um)
    bounds = slide.bounds
    edge = shapely.box(bounds.x, bounds.y, bounds.x + bounds.width, bounds.y + bounds.height)
    return shapely.intersection(back, edge)


def select_windows(grid: TileGrid, area: BaseGeometry) -> Tiles:
    """The windows whose core has a part of `area` (level-0 px), by blocks of neighbours.

    `Tiles.tissue` is the share of the core that lies in the area.
    """
    rows, columns = _candidates(grid, area)
    x, y = core_edges(grid)
    cores = shapely.box(x[columns], y[rows], x[columns + 1], y[rows + 1])
    shapely.prepare(area)
    touched = shapely.intersects(area, cores)
    rows, columns, cores = rows[touched], columns[touched], cores[touched]
    inside = shapely.contains_properly(area, cores)
    share = np.ones(len(cores), np.float64)
    cut = shapely.intersection(area, cores[~inside])
    share[~inside] = shapely.area(cut) / np.maximum(shapely.area(cores[~inside]), 1e-9)
    some = share > 0  # not those that only touch
    rows, columns, share = rows[some], columns[some], share[some]
    order = np.lexsort((columns, rows, columns // BLOCK, rows // BLOCK))
    return Tiles(
        grid,
        rows[order].astype(np.int32),
        columns[order].astype(np.int32),
        share[order].astype(np.float32),
    )


def _candidates(grid: TileGrid, area: BaseGeometry) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of all cores in the boxes around the area's parts, each once."""
    x, y = core_edges(grid)
    found = []
    for left, top, right, bottom in shapely.bounds(shapely.get_parts(area)):
        first_column, last_column = _span(x, left, right)
        first_row, last_row = _span(y, top, bottom)
        rows, columns = np.mgrid[first_row:last_row, first_column:last_column]
        found.append(rows.ravel() * grid.columns + columns.ravel())
    index = np.unique(np.concatenate(found)) if found else np.empty(0, np.intp)
    return index // grid.columns, index % grid.columns


def _span(edges: NDArray[np.float64], low: float, high: float) -> tuple[int, int]:
    """First core, and one past the last, with a part between `low` and `high`."""
    last = len(edges) - 1
    first = int(np.clip(np.searchsorted(edges, low, "right") - 1, 0, last))
    return first, int(np.clip(np.searchsorted(edges, high, "left"), first, last))
