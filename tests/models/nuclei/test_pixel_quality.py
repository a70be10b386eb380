"""Blocks out of focus and stains that are not H&E, on real tissue and on painted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi
from skimage import data as samples

from slidetriage.models.nuclei import Window, quality_kernel
from slidetriage.models.nuclei.pixel_quality import (
    LEAST_STAINED,
    PixelBlocks,
    StainShares,
    inspect_pixels,
)
from slidetriage.wsi import Box, PhantomSpec, open_reader, open_slide, plan_phantom
from slidetriage.wsi.phantom_paint import render_pixels

Find = Callable[[str], Path]
Pixels = NDArray[np.uint8]

OTHER_STAINS = {
    "brain-mucormycosis-GMS",
    "metaplasia-trypsin",
    "nasopharynx-nonkeratinizing-scc-panCK",
}
"""Overviews that are not H&E, but for those that hold too little strong stain at this scale (CISH,
CD20), cytology, and a PAS that looks like H&E."""


def inspect(pixels: Pixels, *, mpp: float = 0.5) -> PixelBlocks:
    """The whole image, whose pixels are level-0 px."""
    height, width = pixels.shape[:2]
    window = Window(0, 0, (1.0, 1.0), (mpp, mpp))
    return inspect_pixels(np.ascontiguousarray(pixels), window, (0, 0, width, height))


def weaken(pixels: Pixels, factor: float) -> Pixels:
    """The same tissue with `factor` times the optical density."""
    return np.asarray(np.rint(255 * (pixels / 255) ** factor), np.uint8)


@pytest.fixture(scope="module")
def tissue(data: Find) -> Pixels:
    """A square of CMU-1-Small-Region, 0.8 mm along each side."""
    with_tissue = open_reader(open_slide(data("slides/CMU-1-Small-Region.svs")))
    return with_tissue.read(Box(300, 900, 1600, 1600), 1600, 1600).rgb


@pytest.mark.parametrize(
    ("size", "blocks"), [((97, 130), (2, 3)), ((9, 9), (1, 1)), ((3, 40), (1, 4))]
)
def test_sums_are_those_of_plain_filters(size: tuple[int, int], blocks: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    pixels = rng.integers(1, 256, (*size, 3), dtype=np.uint8)
    steps = quality_kernel.STEPS_PER_OD
    density = np.rint(-np.log10(np.maximum(np.arange(256), 1) / 255) * steps).astype(np.int64)
    limit = round(0.3 * steps)
    found = np.empty((*blocks, 8), np.int64)
    quality_kernel.sum_blocks(pixels, density, (limit, steps // 2, steps), found)
    grey = density[(pixels @ np.array([77, 150, 29]) + 128) >> 8].astype(np.float64)
    means = {side: ndi.uniform_filter(grey, side, mode="nearest") for side in (3, 5, 9)}
    stained = means[9] > limit
    details = (grey - means[3], means[3] - means[5], means[5] - means[9])
    scaled = zip(quality_kernel.SCALES, details, strict=True)
    maps = np.stack([stained, *(stained * (scale * detail) ** 2 for scale, detail in scaled)])
    which = np.indices(size) * np.reshape(blocks, (2, 1, 1)) // np.reshape(size, (2, 1, 1))
    for row, column in np.ndindex(*blocks):
        here = (which[0] == row) & (which[1] == column)
        np.testing.assert_allclose(found[row, column, :4], maps[:, here].sum(1), rtol=1e-9)
    red, green, blue = density[pixels[::2]].transpose(2, 0, 1)
    strong = (red + green + blue > steps // 2) & (np.maximum(np.maximum(red, green), blue) <= steps)
    # Every second pixel counts from the left of its block, which may be an odd one.
    assert 0.3 < found[..., quality_kernel.STRONG].sum() / strong.sum() < 0.7


def test_real_tissue_is_in_focus_until_it_is_blurred(tissue: Pixels) -> None:
    shares = {
        blur: inspect(cv2.GaussianBlur(tissue, (0, 0), blur) if blur else tissue).out_of_focus_share
        for blur in (0, 0.5, 1.0, 1.5, 2.0, 3.0)
    }
    assert shares[0] == shares[0.5] == shares[1.0] == 0
    assert 0 < shares[1.5] < 0.4
    assert shares[2.0] > 0.95
    assert shares[3.0] == 1


@pytest.mark.parametrize("factor", [0.4, 0.7, 1.5])
def test_how_strong_the_stain_is_does_not_matter(tissue: Pixels, factor: float) -> None:
    blurred = cv2.GaussianBlur(tissue, (0, 0), 2.0)
    assert inspect(weaken(tissue, factor)).out_of_focus_share == 0
    assert inspect(weaken(blurred, factor)).out_of_focus_share > 0.95


def test_noise_and_jpeg_do_not_make_it_sharp(tissue: Pixels) -> None:
    rng = np.random.default_rng(1)
    noisy = cv2.GaussianBlur(tissue, (0, 0), 2.0) + rng.normal(0, 3, tissue.shape)
    _, packed = cv2.imencode(".jpg", noisy.clip(0, 255), [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert inspect(cv2.imdecode(packed, cv2.IMREAD_COLOR)).out_of_focus_share > 0.95


def test_a_painted_patch_out_of_focus_is_found_where_it_is() -> None:
    scene = plan_phantom(PhantomSpec(3.0, 2.4, 0.5, seed=3))
    patch = scene.truth.blurred
    low, high = np.array(patch.bounds, int).reshape(2, 2)
    low, high = np.maximum(low - 400, 0), np.minimum(high + 400, scene.spec.size_px)
    blocks = inspect(render_pixels(scene, (*low.tolist(), *(high - low).tolist()), 0.5))
    centres = shapely.points(blocks.centres + low)
    inside = shapely.contains(patch.buffer(-60), centres)
    outside = ~shapely.contains(patch.buffer(60), centres)
    outside &= ~shapely.contains(scene.truth.pen.buffer(200), centres)
    assert inside.sum() > 20
    assert outside.sum() > 100
    assert blocks.choose(inside).out_of_focus_share > 0.95
    assert blocks.choose(outside).out_of_focus_share < 0.005


def test_finer_pixels_are_judged_alike() -> None:
    scene = plan_phantom(PhantomSpec(1.0, 0.8, 0.25, seed=2, blur=False, pen=False))
    fine = render_pixels(scene, (0, 0, *scene.spec.size_px), 0.25)
    blocks, blurred = inspect(fine, mpp=0.25), inspect(cv2.GaussianBlur(fine, (0, 0), 4), mpp=0.25)
    assert blocks.out_of_focus_share < 0.005
    assert blurred.out_of_focus_share > 0.95
    assert blocks.centres.max() > 0.8 * 4000
    halved = inspect(cv2.resize(fine, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(blocks.centres, 2 * halved.centres)
    assert blocks.tissue_um2.sum() == pytest.approx(halved.tissue_um2.sum(), rel=1e-3)


def test_glass_and_flat_tissue_are_not_out_of_focus() -> None:
    glass = np.full((300, 300, 3), 240, np.uint8)
    assert inspect(glass).out_of_focus_share is None
    assert inspect(glass).stain.fits_he is None
    flat = np.full((300, 300, 3), (225, 150, 180), np.uint8)
    assert inspect(flat).out_of_focus_share is None


def test_only_the_core_is_judged_and_blocks_lie_in_level_0(tissue: Pixels) -> None:
    window = Window(1000.0, 2000.0, (2.0, 2.0), (0.25, 0.25))
    core = (1000.0 + 2 * 96, 2000.0 + 2 * 96, 1000.0 + 2 * 672, 2000.0 + 2 * 672)
    image = tissue[400:1168, 400:1168]
    blocks = inspect_pixels(image, window, core)
    alone = inspect(image[96:672, 96:672])
    assert 20 < len(blocks) <= 36
    np.testing.assert_allclose(blocks.centres, 2 * (alone.centres + 96) + (1000, 2000))
    assert blocks.tissue_um2.sum() <= (576 * 0.5) ** 2
    np.testing.assert_array_equal(blocks.stains, alone.stains)


def test_overviews_of_other_stains_are_told_and_no_he_is(data: Find) -> None:
    photographs = sorted(data("overviews").glob("*.jpg"))
    assert len(photographs) > 60
    told = {
        path.stem.removeprefix("thumbnail_")
        for path in photographs
        if inspect(np.asarray(Image.open(path).convert("RGB"))).stain.fits_he is False
    }
    assert told == OTHER_STAINS


def test_real_immunohistochemistry_is_told(tissue: Pixels) -> None:
    stain = inspect(samples.immunohistochemistry()).stain
    assert stain.is_brown
    assert stain.fits_he is False
    assert inspect(tissue).stain.fits_he is True


def test_no_picture_of_nuclei_is_taken_for_another_stain(data: Find) -> None:
    paths = [path for path in data("nuclei").glob("*.png") if "_labels" not in path.name]
    for path in paths:
        one = np.asarray(Image.open(path).convert("RGB"))
        many = inspect(np.tile(one, (2, 2, 1)))
        assert many.stain.fits_he is not False, path.name


@pytest.mark.parametrize(
    ("stain", "fits"),
    [
        (StainShares(LEAST_STAINED - 1, 0.9, 0.0, 0.0), None),
        (StainShares(LEAST_STAINED, 0.9, 0.0, 0.0), False),
        (StainShares(LEAST_STAINED, 0.04, 0.0, 0.0), True),
        (StainShares(LEAST_STAINED, 0.3, 0.2, 0.0), True),  # pigment or blood, with eosin
        (StainShares(LEAST_STAINED, 0.0, 0.01, 0.6), False),
        (StainShares(LEAST_STAINED, 0.0, 0.05, 0.6), True),
    ],
)
def test_stains_are_judged_by_their_shares(stain: StainShares, fits: bool | None) -> None:
    assert stain.fits_he is fits


def test_blocks_are_joined_and_chosen(tissue: Pixels) -> None:
    blocks = inspect(tissue)
    joined = PixelBlocks.join([PixelBlocks.none(), blocks, blocks])
    assert len(joined) == 2 * len(blocks)
    assert joined.stain.pixels == 2 * blocks.stain.pixels
    assert joined.stain.brown == blocks.stain.brown
    half = joined.choose(np.arange(len(joined)) < len(blocks))
    np.testing.assert_array_equal(half.centres, blocks.centres)
    assert PixelBlocks.join([]).out_of_focus_share is None
