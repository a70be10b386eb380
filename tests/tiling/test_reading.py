"""Tiles in runs against tiles one by one, and what a damaged file costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slidetriage.errors import PixelsUnreadable
from slidetriage.tiling import (
    TileBatch,
    TileGrid,
    TissueMask,
    read_thumbnail,
    read_tiles,
    select_tiles,
)
from slidetriage.tiling import thumbnail as thumbnails
from slidetriage.wsi import Box, Pixels, SlideReader, open_reader, open_slide
from tiny_slides import gradient, write_tiff, zero_tiles


def whole_batch(reader: SlideReader, *, mpp: float, stride: int = 50) -> TileBatch:
    slide = reader.slide
    grid = TileGrid.over(slide, tile_px=50, stride_px=stride, mpp=mpp)
    width, height = round(slide.bounds.width / 10), round(slide.bounds.height / 10)
    scale = (slide.bounds.width * slide.mpp.x / width, slide.bounds.height * slide.mpp.y / height)
    tissue = TissueMask(np.ones((height, width), bool), *scale, "test")
    return TileBatch(slide, select_tiles(grid, tissue, min_tissue=0.01), 0)


@pytest.mark.parametrize("mpp", [0.5, 0.7, 2.0, 3.3])
@pytest.mark.parametrize("stride", [50, 30])
def test_runs_give_what_single_tiles_give(tmp_path: Path, mpp: float, stride: int) -> None:
    slide = open_slide(write_tiff(tmp_path / "a.tif", gradient(700, 900), levels=2))
    reader = open_reader(slide)
    batch = whole_batch(reader, mpp=mpp, stride=stride)
    got = read_tiles(reader, batch)
    assert got.readable.all()
    for image, (x, y, width, height) in zip(got.images, batch.tiles.boxes, strict=True):
        want = reader.read(Box(x, y, width, height), 50, 50)
        assert np.abs(image.astype(int) - want.rgb).max() <= 1


def test_tiles_over_the_edge_are_judged_by_their_part_inside(tmp_path: Path) -> None:
    reader = open_reader(open_slide(write_tiff(tmp_path / "a.tif", gradient(700, 900))))
    got = read_tiles(reader, whole_batch(reader, mpp=4.0))
    assert len(got.images) == 2 * 3
    # Not exactly 1: a pixel on the edge counts whole or not at all.
    assert got.valid == pytest.approx(np.ones(6), abs=0.1)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A JPEG pyramid whose level-0 tile at row 1, column 2 is zeroed."""
    path = write_tiff(tmp_path / "bad.tif", gradient(1024, 1024), compression="jpeg", levels=2)
    zero_tiles(path, [1 * 4 + 2])
    return path


def test_a_bad_tile_costs_the_tiles_that_touch_it_and_no_other(
    damaged: Path, tmp_path: Path
) -> None:
    reader = open_reader(open_slide(damaged))
    batch = whole_batch(reader, mpp=0.5)
    got = read_tiles(reader, batch)
    x, y = batch.tiles.boxes[:, 0], batch.tiles.boxes[:, 1]
    # One pixel further: the reader takes a rim for the filter.
    touches = (x + 51 > 512) & (x < 769) & (y + 51 > 256) & (y < 513)
    inside = (x + 50 > 512) & (x < 768) & (y + 50 > 256) & (y < 512)
    assert not got.readable[inside].any()
    assert got.readable[~touches].all()
    assert "bad.tif" in got.error
    intact = open_reader(
        open_slide(
            write_tiff(tmp_path / "ok.tif", gradient(1024, 1024), compression="jpeg", levels=2)
        )
    )
    want = read_tiles(intact, whole_batch(intact, mpp=0.5))
    np.testing.assert_array_equal(got.images[got.readable], want.images[got.readable])


def test_a_passing_fault_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openslide

    reader = open_reader(open_slide(write_tiff(tmp_path / "a.tif", gradient(700, 900))))
    batch = whole_batch(reader, mpp=2.0)
    want = read_tiles(reader, batch)
    real, calls = openslide.OpenSlide.read_region, []

    def flaky(self: object, *arguments: object) -> object:
        calls.append(arguments)
        if len(calls) in (1, 4):
            raise openslide.OpenSlideError("Input/output error")
        return real(self, *arguments)

    monkeypatch.setattr(openslide.OpenSlide, "read_region", flaky)
    got = read_tiles(reader, batch)
    assert got.readable.all()
    np.testing.assert_array_equal(got.images, want.images)


def test_a_bad_tile_costs_its_part_of_the_thumbnail(tmp_path: Path) -> None:
    """With one level only, the thumbnail touches every tile of the slide."""
    path = write_tiff(tmp_path / "one.tif", gradient(4096, 4096), compression="jpeg", mpp=0.5)
    zero_tiles(path, [7 * 16 + 5])
    thumbnail = read_thumbnail(open_reader(open_slide(path)))
    assert thumbnail.rgb.shape == (256, 256, 3)
    rows, columns = np.nonzero(thumbnail.unreadable)
    assert len(rows) > 0
    assert rows.min() <= 7 * 16 < rows.max()
    assert columns.min() <= 5 * 16 < columns.max()
    assert thumbnail.unreadable.mean() < 0.07
    assert not thumbnail.valid[thumbnail.unreadable].any()


class CountingReader:
    """A reader that counts reads that fail."""

    def __init__(self, reader: SlideReader) -> None:
        self._reader, self.slide, self.failures = reader, reader.slide, 0

    def read(self, *arguments: Any, **options: Any) -> Pixels:
        try:
            return self._reader.read(*arguments, **options)
        except PixelsUnreadable:
            self.failures += 1
            raise

    def close(self) -> None:
        self._reader.close()


def test_much_damage_is_given_up_on_in_larger_parts(tmp_path: Path) -> None:
    """Each read that fails can take a second; a little damage is still fenced in closely."""
    side = 2048
    path = write_tiff(tmp_path / "one.tif", gradient(side, side), compression="jpeg", mpp=8.0)
    per_row = side // 256
    zero_tiles(path, list(range(per_row * 3)))  # three rows of tiles of eight
    reader = CountingReader(open_reader(open_slide(path)))
    thumbnail = read_thumbnail(reader)
    assert thumbnail.rgb.shape == (side, side, 3)
    assert thumbnail.unreadable[: 3 * 256].all()
    assert thumbnail.unreadable.mean() <= 0.5, "and not twice as much as is damaged"
    assert 200 < reader.failures < 500
    zero_tiles(path, list(range(per_row * 7)))
    reader = CountingReader(open_reader(open_slide(path)))
    with pytest.raises(PixelsUnreadable):
        read_thumbnail(reader)
    assert reader.failures < 500


def test_the_thumbnail_shows_the_bounds_only(bounded_slide: Path) -> None:
    thumbnail = read_thumbnail(open_reader(open_slide(bounded_slide)), mpp=2.0)
    assert thumbnail.rgb.shape == (64, 128, 3)
    assert thumbnail.valid.all()
    assert (thumbnail.mpp_x, thumbnail.mpp_y) == (2.0, 2.0)


def test_a_coarse_slide_is_not_enlarged(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", gradient(64, 80), mpp=16.0)
    assert read_thumbnail(open_reader(open_slide(path))).rgb.shape == (64, 80, 3)


def test_a_thumbnail_does_not_grow_with_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = open_slide(write_tiff(tmp_path / "a.tif", gradient(1200, 2000), mpp=4.0))
    monkeypatch.setattr(thumbnails, "LARGEST_PX", 30_000)
    thumbnail = read_thumbnail(open_reader(slide), mpp=8.0)
    rows, columns = thumbnail.valid.shape
    assert 29_000 < rows * columns < 31_000
    assert thumbnail.mpp_x == pytest.approx(thumbnail.mpp_y, rel=0.01)
    assert thumbnail.mpp_x * columns == pytest.approx(2000 * 4)
    assert thumbnail.mpp_y * rows == pytest.approx(1200 * 4)


def test_a_thumbnail_read_in_parts_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_reader(open_slide(write_tiff(tmp_path / "a.tif", gradient(700, 900), mpp=2.0)))
    whole = read_thumbnail(reader)
    sizes = []
    real = type(reader).read

    def note(self: SlideReader, box: Box, width: int, height: int, *, finer: float) -> object:
        sizes.append(width * height)
        return real(self, box, width, height, finer=finer)

    monkeypatch.setattr(type(reader), "read", note)
    monkeypatch.setattr(thumbnails, "READ_PX", 5000)
    parts = read_thumbnail(reader)
    assert len(sizes) > 1
    assert max(sizes) <= 5000
    assert np.abs(parts.rgb.astype(int) - whole.rgb).max() <= 1
    assert parts.valid.all()
