"""The compiled area filter is the plain one, to the grey level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.wsi.area import axis_weights, filter_area
from slidetriage.wsi.resample import area_weights, resample

COUNTS = st.integers(1, 40)
STARTS = st.floats(0, 5)
SCALES = st.floats(0.3, 9)


@given(count=COUNTS, start=st.floats(-50, 50), scale=SCALES)
def test_weights_are_those_of_the_plain_filter(count: int, start: float, scale: float) -> None:
    axis = axis_weights(count, start, scale)
    first, last = axis.span
    dense = np.zeros((count, last - first))
    for output in range(count):
        for tap, weight in enumerate(axis.weights[output]):
            dense[output, axis.first[output] - first + tap] += weight
    plain = area_weights(count, start - first, scale, last - first).toarray()
    np.testing.assert_allclose(dense, plain, atol=2e-6)
    np.testing.assert_allclose(axis.starting_at(first).matrix(last - first).toarray(), dense)


@settings(deadline=None)  # the first example compiles
@given(rows=COUNTS, columns=COUNTS, top=STARTS, left=STARTS, down=SCALES, across=SCALES)
def test_it_is_the_plain_filter(
    rows: int, columns: int, top: float, left: float, down: float, across: float
) -> None:
    row_axis, column_axis = (
        axis_weights(rows, top + 1, down),
        axis_weights(columns, left + 1, across),
    )
    height, width = row_axis.span[1], column_axis.span[1]
    source = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    got = filter_area(source, row_axis, column_axis)
    want = resample(
        source,
        area_weights(rows, top + 1, down, height),
        area_weights(columns, left + 1, across, width),
    )
    assert np.abs(got - want).max() <= 0.501


def test_a_source_of_two_pixels_is_enough() -> None:
    source = np.array([[[10, 20, 30], [30, 40, 50]], [[50, 60, 70], [70, 80, 90]]], np.uint8)
    axis = axis_weights(1, 0.0, 2.0)
    assert filter_area(source, axis, axis).tolist() == [[[40, 50, 60]]]


def test_weights_beyond_the_source_are_refused() -> None:
    source = np.zeros((10, 10, 3), np.uint8)
    inside = axis_weights(4, 0.0, 2.0)
    with pytest.raises(ValueError, match="reach from 0 to 12"):
        filter_area(source, axis_weights(6, 0.0, 2.0), inside)
    with pytest.raises(ValueError, match="reach from -1"):
        filter_area(source, inside, axis_weights(4, -1.0, 2.0))


def test_a_constant_stays_what_it_is() -> None:
    source = np.full((60, 60, 3), 255, np.uint8)
    axis = axis_weights(25, 0.37, 2.3)
    assert (filter_area(source, axis, axis) == 255).all()
