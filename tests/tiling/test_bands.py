"""Work in bands against the same work on the whole image."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from slidetriage.tiling import bands, find_tissue
from slidetriage.tiling.regions import fill_holes, grow

Bools = NDArray[np.bool_]


def blobs(shape: tuple[int, int], seed: int, share: float = 0.3) -> Bools:
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.asarray(noise > np.quantile(noise, 1 - share))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 9), st.integers(1, 400))
def test_bands_cover_every_row_once(height: int, width: int, halo: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "BAND_PX", size)
        cut = list(bands.cut_bands((height, width, 3), halo=halo))
    rows = np.arange(height)
    np.testing.assert_array_equal(np.concatenate([rows[band.rows] for band in cut]), rows)
    for band in cut:
        np.testing.assert_array_equal(rows[band.wide][band.core], rows[band.rows])
        assert band.wide.start == max(0, band.rows.start - halo)
        assert band.wide.stop == min(height, band.rows.stop + halo)
        assert len(rows[band.rows]) == 1 or len(rows[band.rows]) * width <= size


@pytest.mark.parametrize("method", [Image.Resampling.BOX, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("size", [(31, 17), (97, 17), (31, 60), (120, 140), (97, 60), (1, 1)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_resizing_gives_what_pillow_gives(
    monkeypatch: pytest.MonkeyPatch,
    method: Image.Resampling,
    size: tuple[int, int],
    channels: tuple[int, ...],
) -> None:
    monkeypatch.setattr(bands, "BAND_PX", 500)
    image = np.random.default_rng(0).integers(0, 256, (60, 97, *channels), np.uint8)
    want = np.asarray(Image.fromarray(image).resize(size, method))
    np.testing.assert_array_equal(bands.resize(image, *size, method), want)


def test_labels_are_counted_and_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BAND_PX", 100)
    labels = np.random.default_rng(1).integers(0, 6, (40, 30), np.int32)
    where = blobs((40, 30), 2)
    np.testing.assert_array_equal(
        bands.count_labels(labels, 7), np.bincount(labels.ravel(), minlength=8)
    )
    np.testing.assert_array_equal(
        bands.count_labels(labels, 5, where), np.bincount(labels[where], minlength=6)
    )
    keep = np.array([False, True, False, True, True, False])
    np.testing.assert_array_equal(bands.choose_labels(labels, keep), keep[labels])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(0, 120),
    st.tuples(st.floats(3, 40), st.floats(3, 40)),
    st.integers(0, 2**32 - 1),
)
def test_growing_is_a_distance(
    shape: tuple[int, int], radius: float, um: tuple[float, float], seed: int
) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.02
    before = mask.copy()
    grown = grow(mask, radius, um)
    np.testing.assert_array_equal(mask, before)
    y, x = np.indices(shape)
    rows, columns = np.nonzero(mask)
    far = np.full(shape, np.inf)
    for row, column in zip(rows, columns, strict=True):
        far = np.minimum(far, np.hypot((y - row) * um[1], (x - column) * um[0]))
    np.testing.assert_array_equal(grown, far <= radius)


def test_holes_that_cross_bands_are_filled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, seen = blobs((90, 80), 4, share=0.7), ~blobs((90, 80), 5, share=0.2)
    whole = fill_holes(mask & seen, seen, 0.01, (16, 16), rim_mm2=0.004)
    monkeypatch.setattr(bands, "BAND_PX", 200)
    np.testing.assert_array_equal(
        fill_holes(mask & seen, seen, 0.01, (16, 16), rim_mm2=0.004), whole
    )
    assert whole.sum() > (mask & seen).sum()


def section() -> NDArray[np.uint8]:
    """Tissue with a hole, on glass that changes its tint, under pen, beside filler."""
    y, x = np.mgrid[:400, :300]
    tissue = (np.hypot(x - 150, y - 190) < 110) & (np.hypot(x - 170, y - 150) > 18)
    rgb = np.where(tissue[..., None], (205, 130, 175), (243, 241, 236)).astype(float)
    rgb *= 1 - 0.1 * y[..., None] / 400 * np.array([1, 0.97, 0.95])
    rgb += np.random.default_rng(0).normal(0, 2, rgb.shape)
    rgb[20:300, 15:24] = (30, 60, 120)
    rgb[340:, 200:] = 255
    return np.clip(rgb, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 4000, 1 << 30])
def test_tissue_does_not_depend_on_the_bands(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rgb = section()
    valid = np.ones(rgb.shape[:2], bool)
    valid[:30, 100:] = False
    want = find_tissue(rgb, valid, (8, 8)).mask
    monkeypatch.setattr(bands, "BAND_PX", size)
    np.testing.assert_array_equal(find_tissue(rgb, valid, (8, 8)).mask, want)
    assert 0.2 < want.mean() < 0.4


def test_memory_is_a_few_bytes_a_pixel(peak_bytes: Callable[[Callable[[], object]], int]) -> None:
    rgb = np.tile(section(), (4, 4, 1))  # 1.9 Mpx at 16 um/px, so that nothing is made smaller
    valid = np.ones(rgb.shape[:2], bool)
    assert peak_bytes(lambda: find_tissue(rgb, valid, (16, 16))) < 30 * valid.size


@pytest.fixture
def peak_bytes() -> Callable[[Callable[[], object]], int]:
    """Most memory that a call holds at a time, as far as Python and NumPy hold it."""

    def measure(call: Callable[[], object]) -> int:
        call()
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
