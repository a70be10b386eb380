"""Outlines of labels: like scikit-image's contours, always valid, at the pixels' own area."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from scipy.ndimage import label as find_parts
from skimage.measure import find_contours

from slidetriage.errors import ModelError
from slidetriage.models.nuclei.outlines import (
    TOLERANCE_PX,
    Outlines,
    simplify_outlines,
    trace_outlines,
)

Labels = NDArray[np.int32]


@st.composite
def label_images(draw: st.DrawFn) -> Labels:
    """Noise with few values, so that parts touch in every way; numbered without gaps."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))
    raw = draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 3)))
    names = np.unique(raw[raw > 0])
    return np.searchsorted(names, raw).astype(np.int32) * (raw > 0) + (raw > 0).astype(np.int32)


def fill(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without holes; where parts are joined by sides, their background is by corners too."""
    return np.asarray(binary_fill_holes(mask, np.ones((3, 3))))


def largest_part(mask: NDArray[np.bool_]) -> float:
    """Pixels of the largest 4-connected part, its holes filled."""
    parts, count = find_parts(mask)
    return max(float(fill(parts == part).sum()) for part in range(1, count + 1))


def reference(mask: NDArray[np.bool_]) -> shapely.Polygon:
    """The plain way: the largest of scikit-image's contours of one mask."""
    padded = np.pad(mask, 1).astype(float)
    rings = find_contours(padded, 0.5, fully_connected="low")
    polygons = [shapely.Polygon(ring[:, ::-1] - 0.5) for ring in rings]
    return max(polygons, key=lambda polygon: polygon.area)


@given(label_images())
@settings(deadline=None)
def test_traced_outlines_are_those_of_scikit_image(labels: Labels) -> None:
    outlines = trace_outlines(labels)
    assert len(outlines) == labels.max(initial=0)
    for number, polygon in enumerate(outlines.polygons(), 1):
        assert polygon.area == largest_part(labels == number) - 0.5
        expected = reference(labels == number)
        assert expected.area == polygon.area
        # Two parts may be equally large; then another one may have been taken.
        if find_parts(labels == number)[1] == 1:
            assert polygon.symmetric_difference(expected).area < 1e-9


@given(label_images(), st.sampled_from([0.0, TOLERANCE_PX, 0.7, 3.0]))
@settings(deadline=None)
def test_outlines_are_valid_and_turn_clockwise(labels: Labels, tolerance: float) -> None:
    for outlines in (trace_outlines(labels), simplify_outlines(trace_outlines(labels), tolerance)):
        polygons = outlines.polygons()
        assert shapely.is_valid(polygons).all()
        assert (shapely.area(polygons) > 0).all()
        # A ring that is clockwise where y points down is counter-clockwise where it points up.
        assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
        assert (np.diff(outlines.offsets) >= 3).all()
        ends = outlines.points[outlines.offsets[1:] - 1]
        assert (outlines.points[outlines.offsets[:-1]] != ends).any(axis=1).all()


@given(label_images())
@settings(max_examples=50, deadline=None)
def test_touching_outlines_overlap_by_no_more_than_the_tolerance(labels: Labels) -> None:
    one_part = labels.copy()
    for number in range(1, labels.max(initial=0) + 1):
        _, count = find_parts(labels == number)
        if count > 1 or fill(labels == number).sum() > (labels == number).sum():
            one_part[labels == number] = 0
    kept = np.unique(one_part[one_part > 0])
    renumbered = (np.searchsorted(kept, one_part) + 1).astype(np.int32) * (one_part > 0)
    traced = trace_outlines(renumbered)
    simple = simplify_outlines(traced).polygons()
    polygons = traced.polygons()
    for i in range(len(polygons)):
        assert shapely.hausdorff_distance(simple[i], polygons[i]) <= TOLERANCE_PX + 1e-9
        for k in range(i):
            assert shapely.intersection(polygons[i], polygons[k]).area == 0
            sliver = shapely.intersection(simple[i], simple[k]).area
            assert sliver <= 2 * TOLERANCE_PX * polygons[i].length


def test_one_pixel_is_a_rhombus_around_its_middle() -> None:
    labels = np.zeros((5, 5), np.int32)
    labels[2, 3] = 1
    polygon = simplify_outlines(trace_outlines(labels)).polygons()[0]
    assert polygon.area == 0.5
    assert polygon.centroid.coords[0] == (3.5, 2.5)


def test_of_several_parts_the_largest_is_outlined_without_its_holes() -> None:
    labels = np.zeros((12, 20), np.int32)
    labels[0, 0] = 1
    labels[2:9, 2:9] = 1
    labels[4:7, 4:7] = 2
    labels[10, 10:19] = 1
    first, second = trace_outlines(labels).polygons()
    assert (first.area, second.area) == (48.5, 8.5)
    assert not first.interiors


def test_pixels_that_touch_by_a_corner_are_apart() -> None:
    labels = np.array([[1, 0], [0, 1]], np.int32)
    assert trace_outlines(labels).polygons()[0].area == 0.5


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=20, deadline=None)
def test_an_outline_moves_with_its_nucleus(dx: int, dy: int) -> None:
    rng = np.random.default_rng(3)
    blob = (rng.random((12, 12)) < 0.7).astype(np.int32)
    labels = np.zeros((60, 60), np.int32)
    labels[dy : dy + 12, dx : dx + 12] = blob
    moved, home = simplify_outlines(trace_outlines(labels)), simplify_outlines(trace_outlines(blob))
    assert np.array_equal(moved.points, home.points + np.array([dx, dy]))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 4)])
def test_an_image_without_nuclei_has_no_outlines(shape: tuple[int, int]) -> None:
    outlines = simplify_outlines(trace_outlines(np.zeros(shape, np.int32)))
    assert len(outlines) == 0
    assert outlines.points.shape == (0, 2)
    assert outlines.offsets.tolist() == [0]
    assert len(outlines.polygons()) == 0


def test_a_gap_in_the_numbers_is_refused() -> None:
    with pytest.raises(ModelError, match="none is 2"):
        trace_outlines(np.array([[1, 0, 3]], np.int32))


def test_views_and_read_only_images_are_taken() -> None:
    labels = np.zeros((10, 10), np.int32)
    labels[2:5, 3:9] = 1
    view = labels[::2, ::-1]
    view.flags.writeable = False
    assert np.array_equal(trace_outlines(view).points, trace_outlines(view.copy()).points)


def test_a_lobe_on_a_thread_is_not_lost() -> None:
    labels = np.zeros((30, 60), np.int32)
    labels[5:25, 2:20] = 1
    labels[14, 20:40] = 1
    labels[8:22, 40:55] = 1
    traced = trace_outlines(labels)
    simple = simplify_outlines(traced, 1.0)
    assert simple.polygons()[0].bounds == pytest.approx(traced.polygons()[0].bounds, abs=1)
    assert isinstance(simple, Outlines)
