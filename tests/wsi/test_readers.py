"""Every reader keeps the promises of `SlideReader`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slidetriage.wsi
from slidetriage.errors import PixelsUnreadable
from slidetriage.wsi import Box, SlideReader, open_reader, open_slide
from tiny_slides import gradient, write_tiff, zero_tiles

Find = Callable[[str], Path]
IMAGE = gradient(700, 900)


@pytest.fixture(params=["tiff", "openslide", "image"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> SlideReader:
    if request.param != "image":
        path = write_tiff(tmp_path / "a.tif", IMAGE)
        slide = open_slide(path, plain=request.param == "openslide")
    else:
        Image.fromarray(IMAGE).save(tmp_path / "a.png")
        slide = open_slide(tmp_path / "a.png", mpp=0.5)
    assert slide.reader == request.param
    return open_reader(slide)


def test_reading_at_its_own_scale_changes_no_pixel(reader: SlideReader) -> None:
    pixels = reader.read(Box(100, 50, 300, 200), 300, 200)
    np.testing.assert_array_equal(pixels.rgb, IMAGE[50:250, 100:400])
    assert pixels.valid.all()


@pytest.mark.parametrize("scale", [2, 4, 10])
def test_whole_scales_are_the_mean_of_their_pixels(reader: SlideReader, scale: int) -> None:
    side = 20 * scale
    pixels = reader.read(Box(40, 60, side, side), 20, 20)
    part = IMAGE[60 : 60 + side, 40 : 40 + side].astype(float)
    want = part.reshape(20, scale, 20, scale, 3).mean((1, 3))
    assert np.abs(pixels.rgb - want).max() <= 0.51


def test_fractions_of_a_pixel_are_not_lost(reader: SlideReader) -> None:
    """A box that starts half a pixel further is the mean of neighbouring pixels."""
    pixels = reader.read(Box(100.5, 50, 100, 100), 100, 100)
    want = (IMAGE[50:150, 100:200].astype(float) + IMAGE[50:150, 101:201]) / 2
    assert np.abs(pixels.rgb - want).max() <= 0.51


def test_a_run_cut_apart_is_the_same_as_reading_each(reader: SlideReader) -> None:
    scale = 0.7 / 0.5
    run = reader.read(Box(10, 20, 150 * scale, 50 * scale), 150, 50)
    for step in range(3):
        one = reader.read(Box(10 + 50 * step * scale, 20, 50 * scale, 50 * scale), 50, 50)
        part = run.rgb[:, 50 * step : 50 * step + 50]
        assert np.abs(part.astype(int) - one.rgb).max() <= 1


def test_outside_is_background_and_not_valid(reader: SlideReader) -> None:
    pixels = reader.read(Box(850, 650, 100, 100), 100, 100)
    assert pixels.valid[:50, :50].all()
    assert not pixels.valid[50:].any()
    assert not pixels.valid[:, 50:].any()
    assert (pixels.rgb[50:] == 255).all(), "what was not scanned must not look like black tissue"


def test_axes_are_scaled_apart(reader: SlideReader) -> None:
    pixels = reader.read(Box(0, 0, 400, 200), 100, 100)
    want = IMAGE[:200, :400].astype(float).reshape(100, 2, 100, 4, 3).mean((1, 3))
    assert np.abs(pixels.rgb - want).max() <= 0.51


def test_a_closed_reader_opens_again(reader: SlideReader) -> None:
    before = reader.read(Box(0, 0, 50, 50), 50, 50)
    reader.close()
    np.testing.assert_array_equal(reader.read(Box(0, 0, 50, 50), 50, 50).rgb, before.rgb)


def test_the_finest_level_that_is_needed_is_used(tmp_path: Path) -> None:
    """Levels of the pyramid hold other colours here, so the result tells which one was read."""
    import tifffile

    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, colour in enumerate((10, 20, 30)):
            plane = np.full((1024 >> level, 1024 >> level, 3), colour, np.uint8)
            tiff.write(
                plane,
                tile=(128, 128),
                photometric="rgb",
                subfiletype=1 if level else 0,
                metadata=None,
                resolution=(20000, 20000),
                resolutionunit="CENTIMETER",
            )
    # Levels that are no means of each other are read where they are four times too fine.
    slide = open_slide(path)
    assert [level.averaged for level in slide.levels] == [False, False, False]
    reader = open_reader(slide)
    box = Box(0, 0, 512, 512)
    sides = (1024, 512, 300, 256, 200, 128, 64, 32, 16)
    just = [int(reader.read(box, side, side, finer=1).rgb[8, 8, 0]) for side in sides]
    assert just == [10, 10, 10, 20, 20, 30, 30, 30, 30]
    four_times = [int(reader.read(box, side, side).rgb[8, 8, 0]) for side in sides]
    assert four_times == [10, 10, 10, 10, 10, 10, 20, 30, 30]


@pytest.mark.parametrize("plain", [False, True])
def test_large_requests_are_read_in_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain: bool
) -> None:
    from slidetriage.wsi import openslide_reader, tiff_reader

    reader = open_reader(open_slide(write_tiff(tmp_path / "a.tif", IMAGE), plain=plain))
    whole = reader.read(Box(0, 0, 900, 700), 90, 70)
    monkeypatch.setattr(openslide_reader, "LARGEST_READ_PX", 5000)
    monkeypatch.setattr(tiff_reader, "LARGEST_CANVAS_PX", 5000)
    parts = reader.read(Box(0, 0, 900, 700), 90, 70)
    assert np.abs(whole.rgb.astype(int) - parts.rgb).max() <= 1
    np.testing.assert_array_equal(whole.valid, parts.valid)


@pytest.mark.parametrize("plain", [False, True])
def test_a_bad_tile_costs_itself_and_not_the_handle(tmp_path: Path, plain: bool) -> None:
    path = write_tiff(tmp_path / "bad.tif", gradient(1024, 1024), compression="jpeg")
    zero_tiles(path, [5])
    reader = open_reader(open_slide(path, plain=plain))
    good = reader.read(Box(600, 600, 100, 100), 100, 100)
    with pytest.raises(PixelsUnreadable, match=r"bad\.tif"):
        reader.read(Box(300, 300, 100, 100), 100, 100)
    again = reader.read(Box(600, 600, 100, 100), 100, 100)
    np.testing.assert_array_equal(good.rgb, again.rgb)


@pytest.mark.parametrize("plain", [False, True])
def test_a_missing_tile_is_not_black(bounded_slide: Path, plain: bool) -> None:
    pixels = open_reader(open_slide(bounded_slide, plain=plain)).read(Box(0, 0, 1024, 1024), 64, 64)
    assert pixels.valid.mean() == pytest.approx(512 * 256 / 1024**2)
    assert (pixels.rgb[~pixels.valid] == 255).all()


def test_an_unreadable_slide_says_so(data: Find) -> None:
    reader = open_reader(open_slide(data("odd/unreadable.svs")))
    with pytest.raises(PixelsUnreadable) as caught:
        reader.read(reader.slide.whole, 16, 16)
    assert caught.value.code == "E_TILE_DECODE"


def test_the_same_region_has_the_same_colours_as_svs_and_as_dicom(data: Find) -> None:
    """The DICOM file says RGB and holds YCbCr; without care tissue comes out turquoise."""
    svs = open_slide(data("slides/CMU-1-Small-Region.svs"))
    dicom = open_slide(data("slides/cmu1-dicom/level-0-frames-0-30.dcm"))
    assert dicom.warnings == (
        "the file says RGB but its JPEG frames are YCbCr; colours were converted",
    )
    one = open_reader(svs).read(svs.whole, 555, 741).rgb.astype(float)
    other = open_reader(dicom).read(svs.whole, 555, 741).rgb.astype(float)
    assert np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() < 1.5
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97


def test_jpeg_2000_and_raw_dicom_agree(data: Find) -> None:
    raw = open_slide(data("slides/dicom-variants/raw.dicom"))
    whole = raw.whole
    want = open_reader(raw).read(whole, 957, 715).rgb.astype(int)
    for name in ("jpeg2000", "jpeg"):
        slide = open_slide(data(f"slides/dicom-variants/{name}.dicom"))
        got = open_reader(slide).read(whole, 957, 715).rgb
        assert np.abs(got - want).mean() < 4, name


def test_label_and_macro_images_are_never_touched() -> None:
    folder = Path(slidetriage.wsi.__file__).resolve().parent
    names = {
        node.attr
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert "read_region" in names, "the check looks at the right files"
    assert not names & {"associated_images", "get_thumbnail"}
