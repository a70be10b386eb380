"""The direct reader gives OpenSlide's pixels after an exact area filter, and typed errors."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from slidetriage.errors import PixelsUnreadable
from slidetriage.wsi import Box, Pixels, Slide, SlideReader, choosing, open_reader, open_slide
from slidetriage.wsi.levels import choose_level
from slidetriage.wsi.resample import area_weights, resample
from slidetriage.wsi.tiff_reader import TiffReader
from tiny_slides import gradient, patch_table, tile_offsets, write_tiff, zero_tiles

Find = Callable[[str], Path]

REAL = (
    "slides/CMU-1-Small-Region.svs",
    "slides/TCGA-CR-7395-01A-01-TS1.svs",
    "slides/idc_14082.tif",
    "slides/camelyon16_tumor_001_level5.tif",
    "slides/cptac_C3L-00601-26.tif",
)


def both_readers(path: Path) -> tuple[TiffReader, SlideReader]:
    """The direct reader and the plain one on the same slide, with the same levels trusted."""
    slide = open_slide(path, mpp=0.5)
    assert slide.reader == "tiff", slide.reader_reason
    plain = open_slide(path, mpp=0.5, plain=True)
    assert plain.levels == slide.levels
    return TiffReader(slide), open_reader(plain)


class WholeImage:
    """Reads a level by tifffile and the plain area filter, for levels that OpenSlide shifts.

    Where a level's size is no whole share of level 0's, OpenSlide reads a tenth of a pixel or two
    beside the place, because it takes whole level-0 px and divides them by its own downsample.
    """

    def __init__(self, slide: Slide, index: int) -> None:
        level = slide.levels[index]
        with tifffile.TiffFile(slide.path) as tiff:
            shape = (level.height_px, level.width_px, 3)
            self._image = next(page.asarray() for page in tiff.pages if page.shape == shape)
        self._down = level.downsample

    def read(self, box: Box, width_px: int, height_px: int) -> Pixels:
        height, width, _ = self._image.shape
        scale = box.width / width_px / self._down
        rows = area_weights(height_px, box.y / self._down, scale, height)
        columns = area_weights(width_px, box.x / self._down, scale, width)
        rgb = (resample(self._image, rows, columns) + 0.5).astype(np.uint8)
        return Pixels(rgb, np.ones((height_px, width_px), np.bool_))


def is_shifted(slide: Slide, index: int) -> bool:
    """Whether OpenSlide's downsample of a level is not the one by which it was made."""
    with openslide.OpenSlide(slide.path) as handle:
        return bool(handle.level_downsamples[index] != slide.levels[index].downsample)


@pytest.mark.parametrize("scale", [1.0, 1.9, 1.984, 2.0, 4.0, 7.7, 16.0])
@pytest.mark.parametrize("name", REAL)
def test_real_slides_as_openslide_reads_them(data: Find, name: str, scale: float) -> None:
    ours, plain = both_readers(data(name))
    slide, rng = ours.slide, np.random.default_rng(7)
    index = choose_level(slide.levels, scale, scale)
    reference = WholeImage(slide, index) if is_shifted(slide, index) else plain
    side = min(256, int(min(slide.width_px, slide.height_px) / scale))
    differences, shifts = [], []
    for _ in range(4):
        x = int(rng.integers(0, slide.width_px - side * scale + 1))
        y = int(rng.integers(0, slide.height_px - side * scale + 1))
        box = Box(x, y, side * scale, side * scale)
        got, want = ours.read(box, side, side), reference.read(box, side, side)
        differences.append(np.abs(got.rgb.astype(int) - want.rgb).mean())
        np.testing.assert_array_equal(got.valid, want.valid)
        if want.rgb.std() > 10:
            moved, _, _ = phase_cross_correlation(
                want.rgb.mean(-1), got.rgb.mean(-1), upsample_factor=20
            )
            shifts.append(np.abs(moved).max())
    assert np.mean(differences) <= 1.5
    assert not shifts or max(shifts) <= 0.1


@pytest.mark.parametrize("name", REAL)
def test_the_edge_is_background_and_not_valid(data: Find, name: str) -> None:
    ours, plain = both_readers(data(name))
    slide = ours.slide
    for x, y in ((-100.3, -50.7), (slide.width_px - 300.2, slide.height_px - 200.6)):
        box = Box(x, y, 512, 512)
        for side in (512, 256, 100):
            got, want = ours.read(box, side, side), plain.read(box, side, side)
            assert (got.valid != want.valid).mean() <= 0.001
            assert np.abs(got.rgb.astype(int) - want.rgb).mean() <= 1.0


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "deflate", "zstd", "packbits", None])
@pytest.mark.parametrize("predictor", [False, True])
def test_every_compression(tmp_path: Path, compression: str | None, predictor: bool) -> None:
    image = gradient(500, 700)
    if predictor and compression not in ("lzw", "deflate", "zstd"):
        return
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, image, tile=(128, 128), photometric="rgb", compression=compression,
        predictor=predictor, metadata=None,
    )  # fmt: skip
    ours, plain = both_readers(path)
    for scale in (1.0, 2.0, 3.3):
        box = Box(17, 23, 100 * scale, 80 * scale)
        got, want = ours.read(box, 100, 80), plain.read(box, 100, 80)
        assert np.abs(got.rgb.astype(int) - want.rgb).max() <= 1


def test_levels_of_means_are_used_and_others_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image = np.kron(rng.integers(60, 250, (256, 256, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    image = (image + rng.integers(-20, 6, image.shape)).clip(0, 255).astype(np.uint8)
    means = open_slide(write_tiff(tmp_path / "means.tif", image, levels=3))
    assert [level.averaged for level in means.levels] == [False, True, True]
    path = tmp_path / "left-out.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2, 4):
            tiff.write(
                image[::step, ::step], tile=(256, 256), photometric="rgb", metadata=None,
                subfiletype=int(step > 1), resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    left_out = open_slide(path)
    assert [level.averaged for level in left_out.levels] == [False, False, False]


def test_levels_far_apart_take_no_memory_to_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A level 64 times as coarse is compared on a patch, not on all its tile stands for."""
    image = np.random.default_rng(4).integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 64):
            side = 4096 // step
            means = image.reshape(side, step, side, step, 3).mean((1, 3)).astype(np.uint8)
            tiff.write(
                means, tile=(256, 256), photometric="rgb", metadata=None,
                subfiletype=int(step > 1), resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    asked: list[int] = []
    read_level = TiffReader.read_level

    def watched(reader: TiffReader, index: int, box: Box, width: int, height: int) -> Pixels:
        asked.append(max(width, height))
        return read_level(reader, index, box, width, height)

    monkeypatch.setattr(TiffReader, "read_level", watched)
    monkeypatch.setattr(choosing, "SOURCE_PX", 1024)
    assert open_slide(path).reader == "tiff"
    assert max(asked) == 1024


def ome_pyramid(path: Path, image: NDArray[np.uint8]) -> Path:
    """As Bio-Formats and QuPath write it: the smaller levels in sub-directories."""
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
        tiff.write(
            image, subifds=2, **options,
            metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )  # fmt: skip
        for step in (2, 4):
            height, width = (side // step * step for side in image.shape[:2])
            parts = image[:height, :width].reshape(height // step, step, width // step, step, 3)
            tiff.write(parts.mean((1, 3)).round().astype(np.uint8), subfiletype=1, **options)
    return path


def test_ome_tiff_pyramids_are_read_with_all_their_levels_and_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (800, 1000, 3), dtype=np.uint8)
    slide = open_slide(ome_pyramid(tmp_path / "a.ome.tif", image))
    assert (slide.reader, slide.mpp.x, slide.mpp.y) == ("tiff", 0.5, 0.5)
    assert [level.downsample for level in slide.levels] == [1, 2, 4]
    pixels = open_reader(slide).read(Box(0, 0, 800, 800), 200, 200)
    want = image[:800, :800].reshape(200, 4, 200, 4, 3).mean((1, 3))
    assert np.abs(pixels.rgb - want).max() <= 1


def test_what_cannot_be_read_exactly_goes_to_openslide(data: Find, tmp_path: Path) -> None:
    dicom = open_slide(data("slides/cmu1-dicom/level-0-frames-0-30.dcm"))
    assert (dicom.reader, dicom.reader_reason) == ("openslide", "dicom files are not read directly")
    alpha = open_slide(data("odd/rgba_geotiff.tiff"), mpp=0.5)
    assert alpha.reader == "openslide"
    assert "three interleaved" in alpha.reader_reason
    # The tag says YCbCr and the tile's own marker says RGB.
    path = tmp_path / "a.tif"
    image = gradient(256, 256)
    data_ = imagecodecs.jpeg8_encode(image, colorspace="RGB", outcolorspace="RGB")
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter([_with_adobe(data_, 0)]), shape=image.shape, dtype=np.uint8, tile=(256, 256),
            photometric="ycbcr", compression="jpeg", metadata=None,
        )  # fmt: skip
    slide = open_slide(path, mpp=0.5)
    assert (slide.reader, slide.reader_reason) == (
        "openslide",
        "its JPEG tiles contradict its tags about colours",
    )


def _with_adobe(data: bytes, transform: int) -> bytes:
    return (
        data[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) + data[2:]
    )


def test_it_pickles_as_its_slide(tmp_path: Path) -> None:
    ours, _ = both_readers(write_tiff(tmp_path / "a.tif", gradient(600, 600), compression="jpeg"))
    before = ours.read(Box(0, 0, 100, 100), 50, 50)
    again = pickle.loads(pickle.dumps(ours))
    assert len(pickle.dumps(ours)) < 2000, "neither offsets nor pixels travel"
    np.testing.assert_array_equal(again.read(Box(0, 0, 100, 100), 50, 50).rgb, before.rgb)


def test_threads_may_share_it(tmp_path: Path) -> None:
    """Also while it is closed under them, which an error in another thread does."""
    image = gradient(2000, 2000)
    ours, _ = both_readers(write_tiff(tmp_path / "a.tif", image, compression="jpeg"))
    boxes = [Box(x, y, 300, 300) for x in range(0, 1700, 170) for y in range(0, 1700, 170)]
    alone = [ours.read(box, 111, 111).rgb for box in boxes]

    def read(number: int) -> bool:
        if number % 7 == 0:
            ours.close()
        got = ours.read(boxes[number % len(boxes)], 111, 111).rgb
        return bool((got == alone[number % len(boxes)]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(400)))


def test_files_are_closed(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", gradient(600, 600), compression="jpeg")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        reader = TiffReader(open_slide(path))
        reader.read(Box(0, 0, 50, 50), 50, 50)
        reader.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def _break(path: Path, fault: str) -> None:
    """Damage the second tile."""
    offsets, counts, offset_table, count_table = tile_offsets(path)
    with path.open("r+b") as file:
        if fault == "noise":
            file.seek(offsets[1] + counts[1] // 2)
            file.write(np.random.default_rng(0).bytes(200))
        elif fault == "cut":
            file.seek(offsets[1] + counts[1] // 2)
            file.write(b"\0" * (counts[1] - counts[1] // 2))
    if fault == "zeros":
        zero_tiles(path, [1])
    elif fault == "offset past the end":
        patch_table(path, offset_table, 1, path.stat().st_size + 4096)
    elif fault == "two gigabytes":
        patch_table(path, count_table, 1, 2 << 30)
    elif fault == "half the bytes":
        patch_table(path, count_table, 1, counts[1] // 2)


@pytest.mark.parametrize(
    ("fault", "compression"),
    [
        ("zeros", "jpeg"),
        ("noise", "jpeg"),
        ("half the bytes", "jpeg"),
        ("offset past the end", "jpeg"),
        ("two gigabytes", "jpeg"),
        ("zeros", "lzw"),
        ("zeros", "deflate"),
        ("half the bytes", "deflate"),
        ("half the bytes", "zstd"),
        ("half the bytes", None),
        ("offset past the end", None),
    ],
)
def test_a_damaged_tile_is_an_error_and_its_neighbours_are_not(
    tmp_path: Path, fault: str, compression: str | None
) -> None:
    rng = np.random.default_rng(2)
    image = np.kron(rng.integers(0, 256, (64, 64, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    # Two levels, because OpenSlide hashes the smallest when it opens a file.
    whole = write_tiff(tmp_path / "whole.tif", image, compression=compression, levels=2)
    path = write_tiff(tmp_path / "bad.tif", image, compression=compression, levels=2)
    _break(path, fault)
    slide = open_slide(path)
    assert slide.reader == "tiff", slide.reader_reason
    reader, sound = TiffReader(slide), TiffReader(open_slide(whole))
    with pytest.raises(PixelsUnreadable, match=r"bad\.tif: level 0 .* level-0 pixel") as caught:
        reader.read(Box(300, 10, 100, 100), 100, 100)
    assert caught.value.code == "E_TILE_DECODE"
    for x in (0, 600, 800):
        box = Box(x, 10, 100, 100)
        np.testing.assert_array_equal(reader.read(box, 100, 100).rgb, sound.read(box, 100, 100).rgb)


def test_a_file_that_goes_away_is_an_error(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", gradient(600, 600), compression="jpeg")
    reader = TiffReader(open_slide(path))
    path.unlink()
    with pytest.raises(PixelsUnreadable, match=r"a\.tif: the file cannot be opened again"):
        reader.read(Box(0, 0, 50, 50), 50, 50)


def test_a_file_cut_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", gradient(600, 600), compression=None)
    reader = TiffReader(open_slide(path))
    reader.read(Box(0, 0, 50, 50), 50, 50)
    os.truncate(path, 2000)
    with pytest.raises(PixelsUnreadable, match="the file ended after"):
        reader.read(Box(500, 500, 50, 50), 50, 50)
