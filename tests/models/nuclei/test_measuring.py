"""Measurements against scikit-image's, one nucleus at a time, and against shapes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from skimage.color import hed_from_rgb
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops

from painted_nuclei import paint_window
from slidetriage.errors import ModelError
from slidetriage.models.nuclei import Instances, NucleusTable
from slidetriage.models.nuclei import measuring as names
from slidetriage.models.nuclei.measuring import (
    NEIGHBOUR_NAMES,
    OWN_NAMES,
    Window,
    centroids,
    measure_neighbours,
    measure_nuclei,
)
from slidetriage.models.nuclei.stain_vectors import StainVectors
from slidetriage.wsi import PhantomSpec, plan_phantom

HALF_UM = Window(0, 0, (1, 1), (0.5, 0.5))
PAINTED = paint_window(
    plan_phantom(PhantomSpec(width_mm=1.5, height_mm=1.2, seed=5)), (1000, 900, 400, 400), 0.5
)


def instances(labels: NDArray[np.int32]) -> Instances:
    return Instances(labels, np.ones(labels.max(initial=0), np.float32))


def measure(labels: NDArray[np.int32], window: Window = HALF_UM) -> NucleusTable:
    grey = np.full((*labels.shape, 3), 128, np.uint8)
    return measure_nuclei(grey, instances(labels), window)


def ellipse(a: float, b: float, size: int = 80, turn: float = 0.3) -> NDArray[np.int32]:
    y, x = np.indices((size, size)) - size / 2 + 0.3
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return ((u / a) ** 2 + (v / b) ** 2 < 1).astype(np.int32)


def squares(places: list[tuple[int, int]], size: tuple[int, int] = (400, 400)) -> NucleusTable:
    labels = np.zeros(size, np.int32)
    for number, (x, y) in enumerate(places, 1):
        labels[y : y + 9, x : x + 9] = number
    return measure(labels)


def test_shapes_agree_with_regionprops() -> None:
    table = measure_nuclei(PAINTED.pixels, instances(PAINTED.labels), HALF_UM)
    inner = [p for p in regionprops(PAINTED.labels) if p.area > 60]
    assert len(inner) > 100
    rows = np.array([p.label - 1 for p in inner])

    def column(name: str) -> NDArray[np.float32]:
        return table.measurements[name][rows]

    area = np.array([p.area for p in inner])
    assert column(names.AREA) * 4 == pytest.approx(area, rel=0.03)
    # regionprops takes pixels for points, which makes what is thin a little rounder.
    assert column(names.ECCENTRICITY) == pytest.approx([p.eccentricity for p in inner], abs=0.06)
    # It counts whole pixels at the hull, which makes what is small less solid.
    solidity = np.array([p.solidity for p in inner])
    assert np.corrcoef(column(names.SOLIDITY), solidity)[0, 1] > 0.6
    feret = np.array([p.feret_diameter_max for p in inner])
    assert column(names.MAX_DIAMETER) * 2 == pytest.approx(feret, abs=1.5)
    crofton = np.array([p.perimeter_crofton for p in inner])
    assert column(names.PERIMETER) * 2 == pytest.approx(crofton, rel=0.12)


def test_stains_agree_with_each_nucleus_by_itself() -> None:
    table = measure_nuclei(PAINTED.pixels, instances(PAINTED.labels), HALF_UM)
    unit = np.linalg.norm(np.linalg.inv(hed_from_rgb), axis=1)
    density = -np.log10(np.maximum(PAINTED.pixels, 1) / 255) @ hed_from_rgb * unit
    for row in range(0, len(table), 7):
        inside = density[PAINTED.labels == row + 1]
        found = [table.measurements[name][row] for name in OWN_NAMES[8:12]]
        dark, pink = inside[:, 0], inside[:, 1]
        assert found == pytest.approx([dark.mean(), dark.std(), pink.mean(), pink.std()], abs=1e-4)


def test_texture_is_that_of_a_co_occurrence_matrix() -> None:
    rng = np.random.default_rng(0)
    # Grey values whose haematoxylin lies in the middle of the steps of 1/8.
    tables = StainVectors().tables()
    dark = tables[0].sum(axis=0)
    levels = rng.integers(0, 7, (12, 15))
    grey = np.array([np.abs(dark - (level + 0.5) / 8).argmin() for level in range(7)], np.uint8)
    pixels = np.repeat(grey[levels][..., None], 3, axis=2)
    labels = np.ones(levels.shape, np.int32)
    found = measure_nuclei(pixels, instances(labels), HALF_UM).measurements
    matrix = graycomatrix(levels.astype(np.uint8), [1], [0, np.pi / 2], levels=16, symmetric=True)
    joint = matrix.sum(axis=3, keepdims=True).astype(float)
    shares = joint[joint > 0] / joint.sum()
    assert found[names.ENTROPY][0] == pytest.approx(-(shares * np.log2(shares)).sum(), rel=1e-5)
    contrast = graycoprops(joint, "contrast")[0, 0] / 64
    assert found[names.CONTRAST][0] == pytest.approx(contrast, rel=0.1)


@pytest.mark.parametrize("radius", [6.0, 10.0, 25.0])
def test_a_disc_is_measured_as_a_disc(radius: float) -> None:
    found = {k: float(v[0]) for k, v in measure(ellipse(radius, radius)).measurements.items()}
    assert found[names.AREA] == pytest.approx(np.pi * radius**2 / 4, rel=0.03)
    assert found[names.PERIMETER] == pytest.approx(np.pi * radius, rel=0.02)
    assert found[names.CIRCULARITY] > 0.97
    assert found[names.SOLIDITY] > 0.96
    assert found[names.ECCENTRICITY] < 0.25
    assert found[names.ELLIPSE_DEVIATION] < 0.03
    assert found[names.MIN_DIAMETER] == pytest.approx(radius, rel=0.06)
    assert found[names.MAX_DIAMETER] == pytest.approx(radius, rel=0.06)


def test_an_ellipse_keeps_its_axes_and_a_bitten_one_departs() -> None:
    whole, bitten = ellipse(24, 12), ellipse(24, 12)
    bitten[:40, 40:] = 0
    found = {k: float(v[0]) for k, v in measure(whole).measurements.items()}
    assert found[names.ECCENTRICITY] == pytest.approx(np.sqrt(0.75), abs=0.01)
    assert found[names.MAX_DIAMETER] == pytest.approx(24, rel=0.03)
    assert found[names.MIN_DIAMETER] == pytest.approx(12, rel=0.05)
    other = measure(bitten).measurements
    assert other[names.ELLIPSE_DEVIATION][0] > 5 * found[names.ELLIPSE_DEVIATION]
    assert other[names.SOLIDITY][0] < found[names.SOLIDITY] - 0.05


def test_micrometres_follow_the_size_of_a_pixel_along_each_axis() -> None:
    labels = ellipse(20, 20)
    round_one = measure(labels, Window(0, 0, (1, 1), (0.25, 0.25))).measurements
    stretched = measure(labels, Window(0, 0, (2, 1), (0.25, 0.25))).measurements
    assert stretched[names.AREA][0] == pytest.approx(2 * round_one[names.AREA][0])
    assert stretched[names.MAX_DIAMETER][0] == pytest.approx(20, rel=0.03)
    assert stretched[names.MIN_DIAMETER][0] == pytest.approx(10, rel=0.03)
    assert stretched[names.ECCENTRICITY][0] == pytest.approx(np.sqrt(0.75), abs=0.01)


def test_outlines_lie_in_level_0_pixels() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[5:9, 10:16] = 1
    table = measure(labels, Window(1000.5, 2000, (2, 3), (0.25, 0.25)))
    assert table.polygons()[0].bounds == (1020.5, 2015.0, 1032.5, 2027.0)
    assert centroids(table.points, table.offsets).tolist() == [[1026.5, 2021.0]]


def test_one_pixel_has_no_texture_but_all_else() -> None:
    labels = np.zeros((5, 5), np.int32)
    labels[2, 2] = 1
    found = {k: float(v[0]) for k, v in measure(labels).measurements.items()}
    unknown = {name for name, value in found.items() if np.isnan(value)}
    assert unknown == {names.CONTRAST, names.ENTROPY}
    assert found[names.AREA] == 0.125
    assert found[names.HAEMATOXYLIN_SD] == 0


def test_an_image_without_nuclei_gives_an_empty_table_with_all_columns() -> None:
    table = measure_neighbours(measure(np.zeros((8, 8), np.int32)), (0.5, 0.5))
    assert len(table) == 0
    assert tuple(table.measurements) == OWN_NAMES + NEIGHBOUR_NAMES


def test_neighbours_of_a_few_nuclei() -> None:
    places = [(10, 10), (30, 10), (10, 50), (200, 200)]
    found = measure_neighbours(squares(places), (0.5, 0.5)).measurements
    apart = np.sort(cdist(places, places) / 2, axis=1)
    assert found[names.NEAREST] == pytest.approx(apart[:, 1], rel=1e-6)
    assert found[names.NEAREST_3] == pytest.approx(apart[:, 1:4].mean(axis=1), rel=1e-6)
    per_mm2 = ((apart < 50).sum(axis=1) - 1) / (np.pi * 0.05**2)
    assert found[names.DENSITY] == pytest.approx(per_mm2, rel=1e-6)
    assert np.isnan(found[names.SIZE_SPREAD]).all()


def test_one_nucleus_has_no_neighbours() -> None:
    found = measure_neighbours(squares([(10, 10)]), (0.5, 0.5)).measurements
    assert np.isnan([found[name][0] for name in (names.NEAREST, names.NEAREST_3)]).all()
    assert found[names.DENSITY].tolist() == [0]


def test_equal_nuclei_have_no_spread_of_size() -> None:
    places = [(x, y) for x in range(0, 400, 40) for y in range(0, 400, 40)]
    found = measure_neighbours(squares(places), (0.5, 0.5)).measurements
    assert found[names.SIZE_SPREAD] == pytest.approx(0, abs=1e-6)


def test_given_stains_and_glass_are_used() -> None:
    rng = np.random.default_rng(1)
    vectors = StainVectors((0.64, 0.68, 0.36), (0.13, 0.83, 0.54), background=(243, 241, 243))
    labels = ellipse(10, 10, 24)
    amount = rng.uniform(0.2, 1.0, labels.shape)
    dark = np.array([0.64, 0.68, 0.36]) / np.linalg.norm([0.64, 0.68, 0.36])
    pixels = np.rint(vectors.background * 10 ** (-amount[..., None] * dark)).astype(np.uint8)
    found = measure_nuclei(pixels, instances(labels), HALF_UM, stains=vectors).measurements
    assert found[names.HAEMATOXYLIN][0] == pytest.approx(amount[labels > 0].mean(), abs=0.01)
    assert found[names.EOSIN][0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eosin": (0.65, 0.70, 0.29)}, "one plane"),
        ({"haematoxylin": (0.0, 0.0, 0.0)}, "not a colour"),
        ({"background": (0.0, 255.0, 255.0)}, "too dark"),
    ],
)
def test_impossible_stains_are_refused(given: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        StainVectors(**given)  # type: ignore[arg-type]  # each is a vector


def test_pixels_of_another_image_are_refused() -> None:
    with pytest.raises(ModelError, match="labels"):
        measure_nuclei(np.zeros((5, 5, 3), np.uint8), instances(ellipse(3, 3)), HALF_UM)


def test_black_and_white_pixels_are_measured() -> None:
    labels = ellipse(5, 5, 20)
    for value in (0, 255):
        pixels = np.full((*labels.shape, 3), value, np.uint8)
        found = measure_nuclei(pixels, instances(labels), HALF_UM).measurements
        assert all(np.isfinite(column).all() for column in found.values())
