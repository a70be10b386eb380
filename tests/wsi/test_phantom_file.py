import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from slidetriage.errors import OutputError
from slidetriage.wsi import Box, PhantomTruth
from slidetriage.wsi.phantom import paint_phantom
from slidetriage.wsi.phantom_paint import render_pixels
from slidetriage.wsi.phantom_reader import PhantomReader
from slidetriage.wsi.phantom_scene import PhantomSpec, plan_phantom

SPEC = PhantomSpec(width_mm=1.5, height_mm=1.2, seed=5)
PLAN = plan_phantom(SPEC)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PhantomTruth]:
    path = tmp_path_factory.mktemp("phantom") / "phantom.tif"
    return path, paint_phantom(path, SPEC)


@pytest.fixture(scope="module")
def reader() -> PhantomReader:
    return PhantomReader(SPEC)


def test_openslide_opens_all_levels_at_the_right_scale(painted: tuple[Path, PhantomTruth]) -> None:
    with openslide.OpenSlide(painted[0]) as slide:
        assert slide.level_dimensions == ((3000, 2400), (750, 600))
        assert slide.level_downsamples == (1.0, 4.0)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
        assert slide.properties["openslide.vendor"] == "generic-tiff"


def test_file_holds_what_the_painter_paints(painted: tuple[Path, PhantomTruth]) -> None:
    with openslide.OpenSlide(painted[0]) as slide:
        read = np.asarray(slide.read_region((1100, 1000), 0, (700, 600)))[..., :3].astype(int)
        whole = np.asarray(slide.read_region((0, 0), 0, (3000, 2400)))[..., :3].astype(float)
        small = np.asarray(slide.read_region((0, 0), 1, (750, 600)))[..., :3].astype(float)
    expected = render_pixels(PLAN, (1100, 1000, 700, 600), 0.5).astype(int)
    assert np.abs(read - expected).mean() < 4
    assert np.abs((read - expected).mean((0, 1))).max() < 1.5
    mean = whole.reshape(600, 4, 750, 4, 3).mean((1, 3))
    assert np.abs(small - mean).mean() < 4


def test_truth_is_that_of_the_plan(painted: tuple[Path, PhantomTruth]) -> None:
    plan = PLAN.truth
    assert painted[1].tumour == plan.tumour
    assert painted[1].pen == plan.pen
    assert np.array_equal(painted[1].nuclei.centres_um, plan.nuclei.centres_um)


def test_painting_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    spec = PhantomSpec(width_mm=0.61, height_mm=0.53, seed=2)
    paint_phantom(tmp_path / "a.tif", spec)
    paint_phantom(tmp_path / "b.tif", spec)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_sizes_that_fill_no_tile_are_padded(tmp_path: Path) -> None:
    spec = PhantomSpec(width_mm=0.61, height_mm=0.53, seed=2)
    paint_phantom(tmp_path / "a.tif", spec)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.dimensions == spec.size_px == (1220, 1060)
        corner = np.asarray(slide.read_region((1200, 1040), 0, (20, 20)))
    assert (corner >= 230).all()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        paint_phantom(tmp_path / "absent" / "a.tif", SPEC)


def test_reader_serves_the_painters_pixels(reader: PhantomReader) -> None:
    pixels = reader.read(Box(1000, 900, 300, 200), 300, 200)
    assert np.array_equal(pixels.rgb, render_pixels(PLAN, (1000, 900, 300, 200), 0.5))
    assert pixels.valid.all()


def test_reader_gives_the_mean_of_the_area_covered(reader: PhantomReader) -> None:
    fine = reader.read(Box(1000, 900, 320, 240), 320, 240).rgb.astype(float)
    coarse = reader.read(Box(1000, 900, 320, 240), 40, 30).rgb
    assert np.abs(coarse - fine.reshape(30, 8, 40, 8, 3).mean((1, 3))).max() <= 0.51


def test_reader_bands_meet_without_a_seam(
    reader: PhantomReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reader.read(Box(900.5, 800.25, 800, 600), 100, 75)
    monkeypatch.setattr("slidetriage.wsi.phantom_reader._SOURCE_PX", 1 << 17)
    banded = reader.read(Box(900.5, 800.25, 800, 600), 100, 75)
    assert np.abs(whole.rgb.astype(int) - banded.rgb).max() <= 1
    assert np.array_equal(whole.valid, banded.valid)


def test_outside_the_slide_is_not_valid(reader: PhantomReader) -> None:
    pixels = reader.read(Box(-100, 2300, 200, 200), 100, 100)
    expected = np.zeros((100, 100), np.bool_)
    expected[:50, 50:] = True
    assert np.array_equal(pixels.valid, expected)
    assert (pixels.rgb[~expected] == 255).all()


def test_reader_pickles_as_its_spec(reader: PhantomReader) -> None:
    before = reader.read(Box(1400, 1100, 64, 64), 64, 64)
    again = pickle.loads(pickle.dumps(reader))
    assert len(pickle.dumps(reader)) < 1000
    assert again.slide == reader.slide
    assert np.array_equal(again.read(Box(1400, 1100, 64, 64), 64, 64).rgb, before.rgb)
    reader.close()
    assert np.array_equal(reader.read(Box(1400, 1100, 64, 64), 64, 64).rgb, before.rgb)


def test_every_level_is_the_mean_of_the_one_above(tmp_path: Path) -> None:
    """Wide enough for three levels; a level that was never filled would be black."""
    path = tmp_path / "three.tif"
    paint_phantom(path, PhantomSpec(width_mm=17, height_mm=1.0, mpp=4.0, glands=False))
    with tifffile.TiffFile(path) as tif:
        levels = [page.asarray().astype(float) for page in tif.pages]
    assert len(levels) == 3
    for above, level in pairwise(levels):
        height, width = level.shape[:2]
        cut = above[: 4 * height, : 4 * width].reshape(height, 4, width, 4, 3)
        # JPEG changes each level a little.
        assert np.abs(cut.mean((1, 3)) - level).mean() < 6
