import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from shapely import contains_xy, distance, points
from shapely.geometry import Point, Polygon

from slidetriage.errors import UsageError
from slidetriage.wsi.phantom_fields import Field, FieldGrid, measure_depth, periodic_noise
from slidetriage.wsi.phantom_nuclei import STAMP_RADIUS_PX, NucleusKind
from slidetriage.wsi.phantom_scene import PhantomScene, PhantomSpec, plan_phantom


@pytest.fixture(scope="module")
def scene() -> PhantomScene:
    return plan_phantom(PhantomSpec(width_mm=2.4, height_mm=2.0, seed=3))


def test_the_same_spec_gives_the_same_scene(scene: PhantomScene) -> None:
    again = plan_phantom(scene.spec)
    assert again.tumour == scene.tumour
    assert np.array_equal(again.fields, scene.fields)
    assert np.array_equal(again.nuclei.centres_um, scene.nuclei.centres_um)
    assert np.array_equal(again.stamps, scene.stamps)


@pytest.mark.parametrize("threads", [1, 2])
def test_depth_is_exact_whatever_computes_it(threads: int) -> None:
    mask = np.zeros((126, 147), np.uint8)
    cv2.ellipse(mask, (70, 60), (55, 40), 20, 0, 360, (1,), -1)
    exact = np.asarray(distance_transform_edt(mask), np.float32)
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        kept = []
        for size in np.random.default_rng(2).integers(1, 40_000, 30):
            kept.append(np.empty(size, np.uint8))  # moves what is asked for next
            assert np.array_equal(measure_depth(mask), exact)
    finally:
        cv2.setNumThreads(before)
    wide = np.pad(mask, ((0, 0), (700, 700)))
    assert np.array_equal(measure_depth(wide)[:, 700:-700], exact)
    for shape in ((5, 4), (5, 2000)):
        assert (measure_depth(np.ones(shape, np.uint8)) == 1e6).all(), "nowhere to measure to"


def test_another_seed_gives_another_scene(scene: PhantomScene) -> None:
    other = plan_phantom(PhantomSpec(width_mm=2.4, height_mm=2.0, seed=4))
    assert other.tissue.symmetric_difference(scene.tissue).area > 0.02 * scene.tissue.area


def test_truth_is_in_level_0_px_and_lies_on_the_slide(scene: PhantomScene) -> None:
    truth = scene.truth
    width, height = scene.spec.size_px
    assert (width, height) == (4800, 4000)
    assert truth.tumour.area == pytest.approx(scene.tumour.area / scene.spec.mpp**2)
    assert truth.tissue.covers(truth.tumour)
    assert 0.1 < truth.tumour.area / truth.tissue.area < 0.4
    for shape in (truth.tissue, truth.pen, truth.blurred):
        left, top, right, bottom = shape.bounds
        assert left >= 0 and top >= 0 and right <= width and bottom <= height  # noqa: PT018 - one box
        assert shape.is_valid


def test_pen_crosses_glass_and_tissue(scene: PhantomScene) -> None:
    over_tissue = scene.pen.intersection(scene.tissue).area / scene.pen.area
    assert 0.1 < over_tissue < 0.9


def test_what_is_switched_off_is_absent_and_leaves_the_rest_alone(scene: PhantomScene) -> None:
    bare = plan_phantom(
        PhantomSpec(2.4, 2.0, seed=3, tumour=False, pen=False, blur=False, glands=False)
    )
    assert bare.tumour.is_empty
    assert bare.pen.is_empty
    assert bare.blurred.is_empty
    assert bare.glands == ()
    assert bare.tissue == scene.tissue
    kinds = set(np.unique(bare.nuclei.kind))
    assert kinds == {NucleusKind.STROMA, NucleusKind.LYMPHOCYTE}


def test_nuclei_lie_where_their_kind_belongs(scene: PhantomScene) -> None:
    nuclei = scene.nuclei
    x, y = nuclei.centres_um.T
    assert contains_xy(scene.tissue, x, y).all()
    in_tumour = contains_xy(scene.tumour, x, y)
    of_tumour = nuclei.kind >= NucleusKind.TUMOUR
    assert of_tumour.sum() > 500
    assert in_tumour[of_tumour].all()
    assert not in_tumour[nuclei.kind == NucleusKind.GLAND].any()


def test_abnormal_nuclei_are_enlarged_and_dark(scene: PhantomScene) -> None:
    nuclei = scene.nuclei
    width_um = 2 * np.sqrt(nuclei.semi_axes_um.prod(1))
    abnormal, gland = (nuclei.kind == kind for kind in (NucleusKind.ABNORMAL, NucleusKind.GLAND))
    assert 9 < np.median(width_um[abnormal]) < 16
    assert 6 < np.median(width_um[gland]) < 8
    assert np.median(nuclei.shade[abnormal]) > np.median(nuclei.shade[gland])
    assert (nuclei.semi_axes_um[:, 0] >= nuclei.semi_axes_um[:, 1]).all()


def test_nuclei_are_found_by_place(scene: PhantomScene) -> None:
    x, y = scene.nuclei.centres_um.T
    inside = (x >= 900) & (x <= 1300) & (y >= 700) & (y <= 1000)
    found = scene.nuclei.near((900, 1300), (700, 1000))
    assert len(found) == inside.sum() > 50
    assert np.array_equal(found.centres_um, scene.nuclei.centres_um[inside])


def test_drawn_outline_keeps_to_its_ellipse(scene: PhantomScene) -> None:
    middle = (scene.stamps.shape[2] - 1) / 2
    y, x = np.indices(scene.stamps.shape[2:4]) - middle
    radius = np.hypot(x, y) / STAMP_RADIUS_PX
    for kind in NucleusKind:
        limit = 0.20 if kind is NucleusKind.ABNORMAL else 0.08
        for cover in scene.stamps[kind, ..., 0]:
            # A texel of margin for the edge, which is drawn soft.
            assert (cover[radius < 1 - limit - 0.06] > 0.5).all()
            assert (cover[radius > 1 + limit + 0.06] < 0.5).all()
            assert cover.sum() == pytest.approx(np.pi * STAMP_RADIUS_PX**2, rel=0.02)


def test_signed_distance_agrees_with_geometry() -> None:
    grid = FieldGrid.over(900, 700)
    shape = Polygon([(100, 80), (800, 150), (620, 640), (400, 330), (150, 600)])
    x, y = np.meshgrid(grid.x_um, grid.y_um)
    at = points(x, y)
    expected = distance(shape.exterior, at) * np.where(contains_xy(shape, x, y), 1, -1)
    error = np.abs(grid.signed_distance(shape) - expected)
    assert error[np.abs(expected) < 24].max() < 0.5
    assert error.max() < 8


def test_no_shape_is_far_from_everywhere() -> None:
    assert FieldGrid.over(900, 700).signed_distance(Polygon()).max() < -500


def test_spline_and_samples_reproduce_a_plane() -> None:
    grid = FieldGrid.over(500, 400)
    x, y = np.meshgrid(grid.x_um, grid.y_um)
    plane = np.asarray(2 * x - 3 * y + 5, np.float32)
    at_x = np.asarray(np.linspace(0, 500, 37), np.float32)
    at_y = np.asarray(np.linspace(0, 400, 23), np.float32)
    expected = 2 * at_x[None, :] - 3 * at_y[:, None] + 5
    assert np.allclose(grid.on_pixels(plane[None], at_x, at_y)[0], expected, atol=0.02)
    places = np.stack(np.meshgrid(at_x, at_y), -1)
    assert np.allclose(grid.at(plane, places.reshape(-1, 2)), expected.ravel(), atol=0.02)
    # OpenCV rounds places to a thirty-second of a node: a quarter of a micrometre.
    assert np.allclose(grid.around(plane, places[..., 0], places[..., 1]), expected, atol=1.3)


def test_noise_is_normalised_and_as_smooth_as_asked() -> None:
    noise = periodic_noise(np.random.default_rng(0), (256, 256), (6.0, 2.0))
    assert abs(noise.mean()) < 1e-5
    assert noise.std() == pytest.approx(1, abs=1e-5)
    # Smoothing by a Gaussian of sd s gives a correlation of exp(-d^2 / 4 s^2) at distance d.
    for axis, sigma in ((0, 6.0), (1, 2.0)):
        correlation = (noise * np.roll(noise, 3, axis)).mean()
        assert correlation == pytest.approx(np.exp(-(3**2) / (4 * sigma**2)), abs=0.06)


def test_tables_repeat_without_a_seam(scene: PhantomScene) -> None:
    table = scene.textures.fat
    period_x, period_y = (table.values.shape[axis] * texel for axis, texel in ((1, 1.5), (0, 1.5)))
    at = np.random.default_rng(1).uniform(100, 900, (200, 2)).astype(np.float32)
    here = table.look_up_points(at)
    there = table.look_up_points(at + np.array([2 * period_x, -3 * period_y]))
    assert np.allclose(here, there, atol=0.2)


def test_fat_table_points_at_its_cells(scene: PhantomScene) -> None:
    at = np.random.default_rng(2).uniform(0, 1500, (300, 2))
    cell = scene.textures.fat.look_up_points(at)
    deep = cell[:, 0] > 5
    centre = scene.textures.fat.look_up_points((at + cell[:, 1:3])[deep])
    assert np.abs(centre[:, 1:3]).max() < 2
    assert np.allclose(centre[:, 3], cell[deep, 3], atol=1e-3)


def test_nests_stay_within_the_tumour(scene: PhantomScene) -> None:
    nest, tumour = scene.fields[Field.NEST], scene.fields[Field.TUMOUR]
    x, y = np.meshgrid(scene.grid.x_um, scene.grid.y_um)
    assert tumour[nest > 0].min() > -40
    share = (nest > 0).sum() / (tumour > 0).sum()
    assert 0.3 < share < 0.8
    centre = Point(*scene.tumour.geoms[0].centroid.coords[0])
    assert tumour[np.hypot(x - centre.x, y - centre.y) < 20].min() > 0


@pytest.mark.parametrize(
    ("width_mm", "height_mm", "mpp"), [(0.1, 5, 0.5), (6, 99, 0.5), (6, 5, 0.0), (6, 5, 8.0)]
)
def test_impossible_specs_are_refused(width_mm: float, height_mm: float, mpp: float) -> None:
    with pytest.raises(UsageError, match="cannot be made"):
        PhantomSpec(width_mm, height_mm, mpp)
