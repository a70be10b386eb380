"""The tile grid against plain arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slidetriage.tiling import TileGrid, Tiles
from slidetriage.wsi import Box

grids = st.builds(
    TileGrid,
    st.builds(
        Box,
        st.integers(0, 5000),
        st.integers(0, 5000),
        st.integers(1, 50_000),
        st.integers(1, 50_000),
    ),
    mpp_x=st.sampled_from([0.25, 0.2526, 0.499, 1.0, 4.0]),
    mpp_y=st.sampled_from([0.25, 0.2526, 0.499, 1.0, 4.0]),
    tile_px=st.sampled_from([50, 224, 256]),
    stride_px=st.sampled_from([25, 50, 200]),
    mpp=st.sampled_from([0.5, 1.0, 4.0]),
)


@given(grids)
def test_every_scanned_pixel_lies_in_the_grid_and_no_tile_is_needless(grid: TileGrid) -> None:
    last = grid.box(grid.rows - 1, grid.columns - 1)
    tolerance = 1e-5 * max(grid.scale_x, grid.scale_y)
    assert last.x + last.width >= grid.bounds.x + grid.bounds.width - tolerance
    assert last.y + last.height >= grid.bounds.y + grid.bounds.height - tolerance
    if grid.columns > 1:
        before = grid.box(0, grid.columns - 2)
        assert before.x + before.width < grid.bounds.x + grid.bounds.width


@given(grids, st.data())
def test_boxes_are_exact_to_a_millionth_of_a_pixel(grid: TileGrid, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, grid.rows - 1))
    column = data.draw(st.integers(0, grid.columns - 1))
    box = grid.box(row, column)
    scale = Fraction(grid.mpp) / Fraction(grid.mpp_x)
    assert box.x == pytest.approx(float(int(grid.bounds.x) + column * grid.stride_px * scale))
    assert box.width * grid.mpp_x == pytest.approx(grid.tile_px * grid.mpp)
    assert box.height * grid.mpp_y == pytest.approx(grid.tile_px * grid.mpp)


@given(grids)
def test_boxes_of_tiles_are_those_of_the_grid(grid: TileGrid) -> None:
    rows = np.array([0, grid.rows - 1], np.int32)
    columns = np.array([grid.columns - 1, 0], np.int32)
    tiles = Tiles(grid, rows, columns, np.ones(2, np.float32))
    for got, row, column in zip(tiles.boxes, rows, columns, strict=True):
        box = grid.box(int(row), int(column))
        assert got == pytest.approx([box.x, box.y, box.width, box.height])


def test_a_run_spans_its_tiles() -> None:
    grid = TileGrid(Box(0, 0, 9000, 900), 0.5, 0.5, tile_px=50, stride_px=30, mpp=4.0)
    run = grid.box(0, 2, columns=3)
    assert run.x == grid.box(0, 2).x
    assert run.x + run.width == grid.box(0, 4).x + grid.box(0, 4).width
    assert grid.run_px(3) == 110


def test_centres_are_in_micrometres() -> None:
    grid = TileGrid(Box(100, 200, 4000, 4000), 0.5, 0.25, tile_px=50, stride_px=50, mpp=4.0)
    tiles = Tiles(grid, np.array([1], np.int32), np.array([2], np.int32), np.ones(1, np.float32))
    assert tiles.centres_um.tolist() == [[50 + 400 + 100, 50 + 200 + 100]]
