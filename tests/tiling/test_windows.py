"""Windows cover chosen areas, their cores cover the slide once, whatever is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.errors import UsageError
from slidetriage.tiling import TileGrid, core_edges, grow_area, select_windows, window_grid
from slidetriage.wsi import Box, Slide, open_slide


@pytest.fixture(scope="session")
def slide(phantom: Path) -> Slide:
    return open_slide(phantom)


GRIDS = st.builds(
    TileGrid,
    st.builds(
        Box,
        st.floats(0, 500),
        st.floats(0, 500),
        st.floats(20, 3000),
        st.floats(20, 3000),
    ),
    mpp_x=st.floats(0.2, 0.6),
    mpp_y=st.floats(0.2, 0.6),
    tile_px=st.integers(64, 300),
    stride_px=st.integers(20, 64),
    mpp=st.just(0.5),
)


@given(grid=GRIDS)
@settings(deadline=None)
def test_cores_cover_the_bounds_once_and_lie_in_their_windows(grid: TileGrid) -> None:
    x, y = core_edges(grid)
    bounds = grid.bounds
    assert (len(x), len(y)) == (grid.columns + 1, grid.rows + 1)
    assert (x[0], x[-1]) == (bounds.x, bounds.x + bounds.width)
    assert (y[0], y[-1]) == (bounds.y, bounds.y + bounds.height)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    last = grid.box(grid.rows - 1, grid.columns - 1)
    assert last.x <= x[-2] + 1e-6
    assert last.x + last.width >= x[-1] - 1e-3
    assert last.y + last.height >= y[-1] - 1e-3


@given(
    grid=GRIDS,
    corner=st.tuples(st.floats(-200, 3000), st.floats(-200, 3000)),
    size=st.tuples(st.floats(1, 900), st.floats(1, 900)),
)
@settings(deadline=None)
def test_the_windows_are_those_whose_core_has_a_part_of_the_area(
    grid: TileGrid, corner: tuple[float, float], size: tuple[float, float]
) -> None:
    area = shapely.box(*corner, corner[0] + size[0], corner[1] + size[1])
    found = select_windows(grid, area)
    x, y = core_edges(grid)
    expected = {}
    for row in range(grid.rows):
        for column in range(grid.columns):
            core = shapely.box(x[column], y[row], x[column + 1], y[row + 1])
            share = core.intersection(area).area / max(core.area, 1e-9)
            if share > 0:
                expected[row, column] = share
    places = list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
    assert len(set(places)) == len(places)
    assert set(places) == set(expected)
    np.testing.assert_allclose(found.tissue, [expected[at] for at in places], atol=1e-5)


def test_areas_apart_share_no_windows_and_holes_are_not_read(slide: Slide) -> None:
    grid = window_grid(slide, window_px=96, margin_px=16, mpp=slide.mpp.x)
    assert grid.stride_px == 64
    ring = shapely.Point(700, 600).buffer(500) - shapely.Point(700, 600).buffer(350)
    far = shapely.box(1300, 1000, 1400, 1100)
    both = select_windows(grid, shapely.union(ring, far))
    apart = [select_windows(grid, area) for area in (ring, far)]
    cells = [set(zip(t.rows.tolist(), t.columns.tolist(), strict=True)) for t in (both, *apart)]
    assert cells[0] == cells[1] | cells[2]
    x, y = core_edges(grid)
    middle = (int(np.searchsorted(y, 600) - 1), int(np.searchsorted(x, 700) - 1))
    assert middle not in cells[0]


def test_no_area_has_no_windows(slide: Slide) -> None:
    grid = window_grid(slide, window_px=96, margin_px=16, mpp=2.0)
    assert len(select_windows(grid, shapely.Polygon())) == 0
    assert len(select_windows(grid, shapely.box(-90, -90, -10, -10))) == 0


def test_a_margin_is_in_micrometres_and_ends_at_the_slides_edge(slide: Slide) -> None:
    square = shapely.box(100, 100, 200, 200)
    grown = grow_area(square, slide, 40.0)
    assert grown.bounds == pytest.approx((80, 80, 220, 220))  # 40 um are 20 px of 2 um
    corner = grow_area(shapely.box(0, 0, 50, 50), slide, 40.0)
    assert corner.bounds == pytest.approx((0, 0, 70, 70))
    assert grow_area(square, slide, 0.0).equals(square)


def test_a_margin_that_leaves_no_core_is_refused(slide: Slide) -> None:
    with pytest.raises(UsageError, match="more than 128 px"):
        window_grid(slide, window_px=128, margin_px=64, mpp=0.5)
