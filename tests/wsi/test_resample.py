"""The area filter against integration by brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slidetriage.wsi.resample import area_weights, flatten_alpha, resample

FINE = 400


def integrate(row: np.ndarray, start: float, width: float) -> float:
    """Mean of a piecewise constant row over [start, start + width], sampled finely."""
    at = start + (np.arange(FINE) + 0.5) * width / FINE
    index = np.floor(at).astype(int)
    inside = (index >= 0) & (index < len(row))
    return float(np.where(inside, row[np.clip(index, 0, len(row) - 1)], 0.0).mean())


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(-3, 10),
    scale=st.floats(1, 9),
    count=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_each_output_pixel_is_the_mean_of_what_it_covers(
    start: float, scale: float, count: int, seed: int
) -> None:
    row = np.random.default_rng(seed).uniform(0, 255, 40)
    got = area_weights(count, start, scale, len(row)) @ row
    want = [integrate(row, start + i * scale, scale) for i in range(count)]
    np.testing.assert_allclose(got, want, atol=255 * 2 / FINE)


@settings(max_examples=40, deadline=None)
@given(start=st.floats(0, 5), scale=st.floats(0.05, 20), count=st.integers(1, 20))
def test_weights_sum_to_one_inside_the_image(start: float, scale: float, count: int) -> None:
    length = int(start + scale * count) + 3
    sums = area_weights(count, start + 1, scale, length).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_enlarging_is_linear_interpolation() -> None:
    ramp = np.arange(10, dtype=float)
    got = area_weights(8, 3.0, 0.5, 10) @ ramp
    np.testing.assert_allclose(got, np.interp(3 + (np.arange(8) + 0.5) / 2 - 0.5, range(10), ramp))


def test_windows_may_overlap() -> None:
    got = area_weights(3, 0.0, 2.0, 8, window=4.0).toarray()
    want = np.zeros((3, 8))
    for i in range(3):
        want[i, 2 * i : 2 * i + 4] = 0.25
    np.testing.assert_allclose(got, want)


def test_images_are_filtered_along_both_axes() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)
    got = resample(image, area_weights(3, 0, 4, 12), area_weights(4, 0, 5, 20))
    want = image.reshape(3, 4, 4, 5, 3).mean((1, 3))
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_transparent_pixels_take_the_background_and_are_not_valid() -> None:
    rgba = np.zeros((1, 3, 4), np.float32)
    rgba[0, 0] = 100, 50, 20, 255
    rgba[0, 1] = 25, 12.5, 5, 63.75  # a quarter of it is scanned
    rgb, valid = flatten_alpha(rgba, (240, 240, 240))
    assert rgb[0].tolist() == [[100, 50, 20], [205, 193, 185], [240, 240, 240]]
    assert valid[0].tolist() == [True, False, False]
