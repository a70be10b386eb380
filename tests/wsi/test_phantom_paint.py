import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import contains_xy, prepare
from shapely.geometry import MultiPolygon, Polygon, box

from slidetriage.wsi.phantom_nuclei import Nuclei, NucleusKind
from slidetriage.wsi.phantom_paint import render, render_pixels
from slidetriage.wsi.phantom_scene import PhantomSpec, plan_phantom

SCENE = plan_phantom(PhantomSpec(width_mm=1.5, height_mm=1.2, seed=5))
WHOLE = render_pixels(SCENE, (0, 0, 1500, 1200), 1.0)


@settings(max_examples=10, deadline=None)
@given(
    left=st.integers(0, 1400),
    top=st.integers(0, 1100),
    width=st.integers(1, 400),
    height=st.integers(1, 400),
)
def test_pixels_do_not_depend_on_the_cut(left: int, top: int, width: int, height: int) -> None:
    width, height = min(width, 1500 - left), min(height, 1200 - top)
    part = render_pixels(SCENE, (left, top, width, height), 1.0)
    assert np.array_equal(part, WHOLE[top : top + height, left : left + width])


def test_blocks_meet_without_a_seam() -> None:
    # A seam would show as a step between the rows on both sides of a block's border.
    steps = np.abs(np.diff(WHOLE.astype(int), axis=0)).mean((1, 2))
    at_border = steps[[255, 511, 767]]
    assert (at_border < 1.5 * np.median(steps[240:780])).all()


def test_coarse_pixels_are_means_of_fine_ones() -> None:
    coarse = render(SCENE, (300, 300, 400, 320), 4.0)
    fine = render_pixels(SCENE, (600, 600, 800, 640), 0.5)
    mean = fine.reshape(80, 8, 100, 8, 3).mean((1, 3))
    assert np.abs(coarse - mean).max() <= 1


def test_a_box_past_the_slide_is_glass() -> None:
    beyond = render(SCENE, (-500, -400, 300, 200), 1.0)
    assert beyond.shape == (200, 300, 3)
    assert (beyond == beyond[0, 0]).all()
    assert (beyond[0, 0] >= 240).all()


def test_glass_is_blank_and_tissue_is_not() -> None:
    tissue = _mask(SCENE.tissue.buffer(25))
    glass = ~tissue & ~_mask(SCENE.pen.buffer(10))
    assert glass.mean() > 0.2
    assert WHOLE[glass].min() >= 235
    inner = _mask(SCENE.tissue.buffer(-15)) & ~_mask(SCENE.pen.buffer(10))
    stained = WHOLE[..., 1] < 215
    assert stained[inner].mean() > 0.6


def test_pen_is_blue_ink_over_glass_and_tissue() -> None:
    inked = WHOLE[_mask(SCENE.pen.buffer(-8))].astype(int)
    assert (inked[:, 2] - inked[:, 0] > 40).mean() > 0.98


def test_the_blurred_patch_has_no_fine_detail() -> None:
    sharp = plan_phantom(PhantomSpec(width_mm=1.5, height_mm=1.2, seed=5, blur=False))
    in_focus = render_pixels(sharp, (0, 0, 1500, 1200), 1.0)
    inner = _mask(SCENE.blurred.buffer(-25))[:, 1:]
    detail = [np.abs(np.diff(i.astype(int), axis=1))[inner].mean() for i in (WHOLE, in_focus)]
    assert detail[0] < 0.5 * detail[1]
    outside = ~_mask(SCENE.blurred.buffer(40))
    assert np.array_equal(WHOLE[outside], in_focus[outside])


@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_every_tumour_nucleus_is_painted_where_the_truth_says(mpp: float) -> None:
    scene = SCENE
    mass = max(scene.tumour.geoms, key=lambda part: part.area)
    x, y = mass.centroid.x - 100, mass.centroid.y - 100
    left, top, size = round(x / mpp), round(y / mpp), round(200 / mpp)
    image = render_pixels(scene, (left, top, size, size), mpp).astype(float)
    nuclei = scene.nuclei.near(
        ((left + 40) * mpp, (left + size - 40) * mpp), ((top + 40) * mpp, (top + size - 40) * mpp)
    )
    nuclei = nuclei[nuclei.kind >= NucleusKind.TUMOUR]
    assert len(nuclei) > 50
    darker = [
        image[..., 0][within].mean() < image[..., 0][around].mean() - 15
        for within, around in _ellipses(nuclei, (left, top, size), mpp)
    ]
    assert np.mean(darker) > 0.97


def test_carcinoma_holds_more_haematoxylin_than_the_rest_at_low_power() -> None:
    scene = plan_phantom(PhantomSpec(width_mm=2.4, height_mm=2.0, seed=3, pen=False))
    image = render(scene, (0, 0, 2400, 2000), 8.0).astype(float)
    red = -np.log10((image[..., 0] + 1) / 256).reshape(10, 25, 12, 25).mean((1, 3))
    cells = [
        [box(c * 200, r * 200, c * 200 + 200, r * 200 + 200) for c in range(12)] for r in range(10)
    ]
    share = np.array(
        [[scene.tumour.intersection(cell).area / 4e4 for cell in row] for row in cells]
    )
    ill, well = red[share > 0.7], red[share < 0.05]
    assert len(ill) >= 8
    # The chance that a tumour tile is bluer than another: the area under the curve.
    assert (ill[:, None] > well[None, :]).mean() > 0.97


def _mask(shape: Polygon | MultiPolygon) -> NDArray[np.bool_]:
    prepare(shape)
    x, y = np.meshgrid(np.arange(1500) + 0.5, np.arange(1200) + 0.5)
    return np.asarray(contains_xy(shape, x, y), np.bool_)


def _ellipses(
    nuclei: Nuclei, where: tuple[int, int, int], mpp: float
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """For each nucleus the pixels well inside its ellipse, and those in a ring well outside."""
    left, top, size = where
    x, y = np.meshgrid((np.arange(size) + left + 0.5) * mpp, (np.arange(size) + top + 0.5) * mpp)
    found = []
    covered = np.zeros((size, size), np.bool_)
    radii = []
    for n in range(len(nuclei)):
        dx, dy = x - nuclei.centres_um[n, 0], y - nuclei.centres_um[n, 1]
        cos, sin = np.cos(nuclei.angle[n]), np.sin(nuclei.angle[n])
        longer, shorter = nuclei.semi_axes_um[n]
        radii.append(np.hypot((dx * cos + dy * sin) / longer, (dy * cos - dx * sin) / shorter))
        covered |= radii[-1] < 1.25
    for radius in radii:
        ring = (radius > 1.25) & (radius < 2.2) & ~covered
        found.append((radius < 0.8, ring))
    return [(within, ring) for within, ring in found if ring.sum() > 20]
