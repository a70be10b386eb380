"""Regions are exact unions of cells, checked against a flood fill in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from slidetriage.errors import UsageError
from slidetriage.workflows.regions import find_regions
from slidetriage.workflows.results import ScoredTiles

Make = Callable[..., ScoredTiles]


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Components of neighbours that share an edge."""
    left = {(int(r), int(c)) for r, c in zip(*np.nonzero(mask), strict=True)}
    components = []
    while left:
        component, frontier = set(), {min(left)}
        while frontier:
            component |= frontier
            left -= frontier
            near = {
                (r + i, c + j) for r, c in frontier for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))
            }
            frontier = near & left
        components.append(component)
    return components


@settings(max_examples=150, deadline=None)
@given(
    mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)),
    mpp=st.tuples(st.sampled_from([0.2527, 0.5, 4.0]), st.sampled_from([0.25, 0.2431])),
    stride_px=st.sampled_from([50, 30]),
    overhang=st.sampled_from([0, 0.6]),
    origin=st.sampled_from([(0, 0), (1031, 77)]),
)
def test_every_region_is_one_component_of_cells(scored, mask, mpp, stride_px, overhang, origin):
    probability = np.where(mask, 0.75, 0.25)
    tiles: ScoredTiles = scored(
        probability, mpp=mpp, stride_px=stride_px, overhang=overhang, origin=origin
    )
    regions = find_regions(tiles, 0.5)
    x, y = tiles.column_edges_px, tiles.row_edges_px
    areas = np.diff(y)[:, None] * np.diff(x)
    centres = shapely.points(*np.meshgrid((x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2))
    components = flood(mask)
    assert len(regions) == len(components)
    found = {}
    for region in regions:
        assert region.shape.geom_type == "Polygon"
        assert region.shape.is_valid
        within = shapely.contains(region.shape, centres)
        cells = frozenset((int(r), int(c)) for r, c in zip(*np.nonzero(within), strict=True))
        found[cells] = region
        assert region.tile_count == len(cells)
        # Every centre inside and not a hair more or less area: the shape is those cells.
        assert region.shape.area == pytest.approx(areas[within].sum(), rel=1e-12)
        assert region.area_mm2 == pytest.approx(areas[within].sum() * mpp[0] * mpp[1] / 1e6)
        xy = shapely.get_coordinates(region.shape)
        assert set(xy[:, 0]) <= set(x)
        assert set(xy[:, 1]) <= set(y)
    assert set(found) == {frozenset(component) for component in components}


def test_edges_are_on_the_hundredth_and_end_with_the_slide(scored: Make):
    tiles = scored(np.full((3, 4), 0.9), mpp=(0.2527, 0.2431), overhang=0.37, origin=(100, 200))
    bounds = tiles.tiles.grid.bounds
    for edges, start, extent in (
        (tiles.column_edges_px, bounds.x, bounds.width),
        (tiles.row_edges_px, bounds.y, bounds.height),
    ):
        assert edges[0] == start
        assert edges[-1] == round(start + extent, 2)
        assert (edges == np.round(edges, 2)).all()
    (region,) = find_regions(tiles, 0.5)
    box = tuple(
        np.round([bounds.x, bounds.y, bounds.x + bounds.width, bounds.y + bounds.height], 2)
    )
    assert region.shape.bounds == pytest.approx(box, abs=0)
    assert len(region.shape.exterior.coords) == 5  # no vertex in the middle of an edge


def test_overlapping_tiles_stand_for_the_middle_of_themselves(scored: Make):
    probability = np.zeros((5, 5))
    probability[2, 2] = 1
    tiles = scored(probability, mpp=(1, 1), tile_px=50, stride_px=20)
    (region,) = find_regions(tiles, 0.5)
    # The tile is 40..90 along both axes; its cell is the 20 px in the middle.
    assert region.shape.bounds == (55, 55, 75, 75)
    assert tiles.cells_px[12].tolist() == [55, 55, 75, 75]


def test_stride_equal_to_tile_makes_the_cell_the_tile(scored: Make):
    tiles = scored(np.full((3, 4), 0.9), mpp=(0.25, 0.5), origin=(10, 20))
    boxes = tiles.tiles.boxes
    boxes[:, 2:] += boxes[:, :2]
    assert (tiles.cells_px == boxes).all()


def test_a_slide_smaller_than_a_tile_keeps_its_only_region(scored: Make):
    tiles = scored(np.array([[0.9]]), tile_px=50, stride_px=20, mpp=(1, 1), overhang=2)
    (region,) = find_regions(tiles, 0.5)
    assert region.shape.bounds == (0, 0, 10, 10)


def test_holes_and_corners(scored: Make):
    above = np.array(
        [
            [1, 1, 1, 1, 0],
            [1, 0, 1, 0, 1],
            [1, 1, 0, 1, 0],
            [1, 1, 1, 1, 0],
        ]
    )
    tiles = scored(above * 0.8 + 0.1, mpp=(1, 1), tile_px=10, stride_px=10)
    large, small = find_regions(tiles, 0.5)
    assert large.tile_count == above.sum() - 1
    assert large.shape.area == 100 * (above.sum() - 1)
    assert not large.shape.contains(shapely.Point(15, 15))
    assert small.shape.bounds == (40, 10, 50, 20)  # touches at a corner only


def test_an_unread_tile_leaves_a_hole(scored: Make):
    lost = np.zeros((3, 3), bool)
    lost[1, 1] = True
    (region,) = find_regions(scored(np.full((3, 3), 0.9), unread=lost), 0.0)
    assert len(region.shape.interiors) == 1
    assert region.tile_count == 8


def test_order_is_by_probability_then_area_then_reading_order(scored: Make):
    probability = np.full((3, 9), 0.1)
    probability[0, 0] = 0.7
    probability[0, 3:5] = 0.7
    probability[0, 7] = 0.95
    probability[2, 0] = 0.7
    regions = find_regions(scored(probability), 0.5)
    assert [r.max_probability for r in regions] == pytest.approx([0.95, 0.7, 0.7, 0.7])
    assert [r.tile_count for r in regions] == [1, 2, 1, 1]
    assert regions[2].shape.bounds[1] < regions[3].shape.bounds[1]


def test_mean_and_maximum_are_of_the_region_alone(scored: Make):
    (region,) = find_regions(scored(np.array([[0.6, 0.9, 0.2]])), 0.5)
    assert region.mean_probability == pytest.approx(0.75)
    assert region.max_probability == pytest.approx(0.9)


def test_a_probability_equal_to_the_threshold_is_in(scored: Make):
    assert len(find_regions(scored(np.array([[0.7]])), 0.7)) == 1


def test_no_tissue_gives_no_region(scored: Make):
    assert find_regions(scored(np.full((4, 4), np.nan)), 0.5) == ()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(scored: Make, threshold: float):
    with pytest.raises(UsageError, match="0 to 1"):
        find_regions(scored(np.array([[0.7]])), threshold)
