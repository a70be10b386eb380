"""The default tissue masker on painted slides of known truth and on real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage as ndi

from slidetriage.errors import UsageError
from slidetriage.tiling import find_tissue

Rgb = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Data = Callable[[str], Path]

PINK = (205, 130, 175)
PALE = (232, 218, 228)
DAB = (140, 95, 60)
GLASS = (243, 241, 236)
NOT_A_SLIDE = "thumbnail_template-HE2.jpg"  # the site's "404 File not found" page


def dice(found: Bools, truth: Bools) -> float:
    return float(2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()))


def paint(
    tissue: tuple[int, int, int],
    *,
    mpp: float = 8.0,
    width_um: float = 4800.0,
    vacuoles: bool = True,
) -> tuple[Rgb, Bools]:
    """A disk of 1.4 mm radius on tinted glass that darkens by a fifth from left to right."""
    size = round(width_um / mpp)
    y, x = (np.mgrid[:size, :size] + 0.5) * mpp
    disk = np.hypot(x - 2400, y - 2400) < 1400
    image = np.where(disk[..., None], tissue, GLASS).astype(float)
    rng = np.random.default_rng(7)
    for cx, cy, r in zip(*rng.uniform(1500, 3300, (2, 40)), rng.uniform(20, 90, 40), strict=True):
        if vacuoles and np.hypot(cx - 2400, cy - 2400) + r < 1300:
            image[np.hypot(x - cx, y - cy) < r] = GLASS
    grain = np.random.default_rng(8).normal(0, 0.02, (150, 150))
    stain = ndi.zoom(grain, size / 150, order=1, mode="nearest", grid_mode=True)
    image *= np.exp(np.where(disk, stain, 0))[..., None]
    image *= (1 - 0.2 * x / width_um)[..., None]
    image += rng.normal(0, 1.0, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), disk


def everywhere(rgb: Rgb) -> Bools:
    return np.ones(rgb.shape[:2], np.bool_)


@pytest.mark.parametrize("tissue", [PINK, PALE, DAB, (150, 160, 195), (70, 150, 140)])
def test_finds_a_stained_disk_with_its_vacuoles_under_uneven_light(
    tissue: tuple[int, int, int],
) -> None:
    rgb, disk = paint(tissue)
    found = find_tissue(rgb, everywhere(rgb), (8, 8))
    assert dice(found.mask, disk) >= 0.97
    assert (found.mpp_x, found.mpp_y, found.method) == (8, 8, "slidetriage")


@pytest.mark.parametrize(
    "ink",
    [(20, 20, 25), (40, 60, 190), (25, 60, 120), (30, 150, 80), (20, 110, 60), (215, 30, 50)],
    ids=["black", "blue", "dark blue", "green", "dark green", "red"],
)
def test_pen_is_not_tissue(ink: tuple[int, int, int]) -> None:
    rgb, disk = paint(PINK)
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    pen.line([(20, 60), (560, 40)], fill=ink, width=30)
    pen.arc([5, 5, 594, 594], 60, 200, fill=ink, width=24)
    rgb = np.asarray(picture)
    found = find_tissue(rgb, everywhere(rgb), (8, 8)).mask
    assert dice(found, disk) >= 0.97


def test_cross_border_edges_dust_and_shadow_are_not_tissue() -> None:
    rgb, disk = paint(PINK)
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    pen.rectangle([40, 20, 60, 110], fill=(27, 16, 23))
    pen.rectangle([5, 55, 95, 75], fill=(27, 16, 23))
    pen.line([(0, 565), (599, 560)], fill=(90, 90, 92), width=3)
    pen.line([(0, 572), (599, 567)], fill=(215, 214, 216), width=6)
    for x, y in np.random.default_rng(3).integers(0, 110, (60, 2)):
        pen.ellipse([480 + x, y, 482 + x, y + 2], fill=(120, 115, 110))
    rgb = np.array(picture)
    shadow = np.hypot(*(np.mgrid[:600, :600] - np.array([520, 90])[:, None, None])) < 70
    rgb[shadow] = (rgb[shadow] * 0.8).astype(np.uint8)
    rgb[:, 590:] = 0
    found = find_tissue(rgb, everywhere(rgb), (8, 8)).mask
    assert dice(found, disk) >= 0.97
    assert not found[:, 590:].any()


@pytest.mark.parametrize("filler", [(255, 255, 255), (0, 0, 0), (240, 240, 240)])
def test_filler_of_the_scanner_is_not_tissue_and_not_glass(filler: tuple[int, int, int]) -> None:
    rgb, disk = paint(PINK)
    rgb[:200] = filler
    rgb[:, 420:] = filler
    disk[:200] = False
    disk[:, 420:] = False
    found = find_tissue(rgb, everywhere(rgb), (8, 8)).mask
    assert not found[:200].any()
    assert not found[:, 420:].any()
    assert dice(found, disk) >= 0.97


def test_saturated_glass_is_glass_and_not_filler() -> None:
    rgb, disk = paint(PINK)
    y, x = np.mgrid[:600, :600]
    hole = np.hypot(x - 300, y - 300) < 12
    rgb[~disk | hole] = 255
    found = find_tissue(rgb, everywhere(rgb), (8, 8)).mask
    assert found[hole].all()
    assert dice(found, disk) >= 0.97


def test_what_is_not_valid_is_not_tissue() -> None:
    rgb, disk = paint(PINK)
    valid = everywhere(rgb)
    valid[:, :300] = False
    found = find_tissue(rgb, valid, (8, 8)).mask
    assert not found[~valid].any()
    assert dice(found, disk & valid) >= 0.97
    assert not find_tissue(rgb, ~everywhere(rgb), (8, 8)).mask.any()


def test_large_holes_stay_open_and_debris_is_dropped() -> None:
    rgb, disk = paint(PINK, vacuoles=False)
    y, x = np.mgrid[:600, :600]
    lumen = np.hypot(x - 300, y - 300) < 90  # 1.6 mm2
    crumb = np.hypot(x - 560, y - 40) < 5
    rgb[lumen] = rgb[5, 5]
    rgb[crumb] = PINK
    found = find_tissue(rgb, everywhere(rgb), (8, 8)).mask
    assert dice(found, disk & ~lumen) >= 0.97
    assert not found[crumb].any()


@pytest.mark.parametrize("mpp", [4.0, 8.0, 10.7, 16.0])
def test_area_does_not_depend_on_the_scale_of_the_thumbnail(mpp: float) -> None:
    rgb, disk = paint(PINK, mpp=mpp)
    found = find_tissue(rgb, everywhere(rgb), (mpp, mpp))
    assert found.area_mm2 == pytest.approx(np.pi * 1.4**2, rel=0.04)
    assert dice(found.mask, disk) >= 0.97


def test_each_axis_has_its_own_scale() -> None:
    rgb, disk = paint(PINK, mpp=4.0)
    rgb, disk = np.ascontiguousarray(rgb[:, ::3]), disk[:, ::3]
    found = find_tissue(rgb, everywhere(rgb), (12, 4))
    assert dice(found.mask, disk) >= 0.97


@pytest.mark.parametrize("grey", [255, 254, 240, 128, 0])
def test_an_image_of_one_grey_holds_no_tissue(grey: int) -> None:
    rgb = np.full((200, 300, 3), grey, np.uint8)
    assert not find_tissue(rgb, everywhere(rgb), (8, 8)).mask.any()


def test_nothing_but_tissue_is_all_tissue() -> None:
    rgb, disk = paint(PINK, vacuoles=False)
    inside = np.ascontiguousarray(rgb[200:400, 200:400])
    assert disk[200:400, 200:400].all()
    assert find_tissue(inside, everywhere(inside), (8, 8)).mask.mean() >= 0.99


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (16, 16)])
@pytest.mark.parametrize("mpp", [0.5, 8.0, 350.0])
def test_tiny_images_are_answered(shape: tuple[int, int], mpp: float) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert find_tissue(rgb, everywhere(rgb), (mpp, mpp)).mask.shape == shape


def test_same_image_same_mask() -> None:
    rgb, _ = paint(PALE)
    first, second = (find_tissue(rgb, everywhere(rgb), (8, 8)).mask for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("rgb", "valid", "mpp", "word"),
    [
        (np.zeros((4, 4, 3), np.float32), np.ones((4, 4), bool), (8, 8), "float32"),
        (np.zeros((4, 4, 4), np.uint8), np.ones((4, 4), bool), (8, 8), r"\(4, 4, 4\)"),
        (np.zeros((4, 4), np.uint8), np.ones((4, 4), bool), (8, 8), r"\(4, 4\)"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 5), bool), (8, 8), r"\(4, 5\)"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8), (8, 8), "uint8"),
        (np.zeros((0, 4, 3), np.uint8), np.ones((0, 4), bool), (8, 8), "empty"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool), (8, 0), "scale"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool), (float("nan"), 8), "scale"),
    ],
)
def test_what_is_not_a_thumbnail_is_refused(
    rgb: Rgb, valid: Bools, mpp: tuple[float, float], word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        find_tissue(rgb, valid, mpp)


@pytest.mark.parametrize("mpp", [4.0, 8.37])
def test_agrees_with_the_tiles_a_pathologist_labelled(data: Data, mpp: float) -> None:
    picture = Image.fromarray(tifffile.imread(data("slides/idc_14082.tif"), level=0))
    labels = Image.open(data("slides/idc_14082_labels.png"))
    size = (round(picture.width * 4 / mpp), round(picture.height * 4 / mpp))
    rgb = np.asarray(picture.resize(size, Image.Resampling.BOX))
    truth = np.asarray(labels.resize(size, Image.Resampling.NEAREST)) > 0
    scale = (picture.width * 4 / size[0], picture.height * 4 / size[1])
    assert dice(find_tissue(rgb, everywhere(rgb), scale).mask, truth) >= 0.985


def test_keeps_every_lesion_of_a_lymph_node_and_drops_its_glass(data: Data) -> None:
    rgb = tifffile.imread(data("slides/camelyon16_tumor_001_level5.tif"))
    rgb = np.asarray(Image.fromarray(rgb).reduce(2))  # 15.6 um/px, to be quick
    outlines = json.loads(data("slides/camelyon16_tumor_001.json").read_text())
    found = find_tissue(rgb, everywhere(rgb), (15.6, 15.6)).mask
    lesions = Image.new("1", (rgb.shape[1], rgb.shape[0]))
    for outline in outlines["positive"]:
        ImageDraw.Draw(lesions).polygon([(x / 64, y / 64) for x, y in outline["vertices"]], fill=1)
    lesion = np.array(lesions)
    assert lesion.sum() > 1000
    assert np.count_nonzero(found & lesion) / np.count_nonzero(lesion) >= 0.99
    crosses = found[165:310, 165:320], found[160:300, 1280:1430]
    assert not any(cross.any() for cross in crosses)
    assert found[:750].mean() < 0.02  # label edge, coverslip edge, bubble of medium
    assert found[2700:].mean() < 0.01  # dry glass
    assert 0.25 < found.mean() < 0.40


@pytest.mark.parametrize(
    "part", [slice(0, None, 7), pytest.param(slice(0, None), marks=pytest.mark.slow)]
)
def test_every_overview_has_tissue_and_glass(data: Data, part: slice) -> None:
    paths = sorted(data("overviews").glob("*.jpg"))[part]
    assert len(paths) >= 10
    for path in paths:
        rgb = np.asarray(Image.open(path).convert("RGB"))
        share = find_tissue(rgb, everywhere(rgb), (16, 16)).mask.mean()
        if path.name == NOT_A_SLIDE:
            assert share < 0.01
        else:
            assert 0.04 < share < 0.75, path.name
