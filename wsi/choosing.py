"""Decides, once for a slide, whether it is read directly or through OpenSlide, and says why.

The direct reader is taken only where it was seen to give OpenSlide's pixels on this very file: one
tile of each level, the one with the most detail, is read both ways and compared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import openslide
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable

from .levels import make_levels
from .slide import Box, Level, Slide
from .tiff_layout import TiffLevel, Unsuited
from .tiff_reader import TiffReader

VENDORS = ("aperio", "generic-tiff", "philips")
"""Formats of OpenSlide whose tiles lie side by side as the TIFF says; the others shift or overlap
them, or keep several scans in one file."""

LARGEST_DIFFERENCE = 1.0
"""Grey levels by which the readers may differ in the mean over a tile; JPEG gives 0, rounding in
JPEG 2000 less than 0.5."""

INTERPOLATED = 0.2
"""Share of a tile's contrast that is allowed on top where OpenSlide cannot be asked for whole
pixels of a level: a shift of a quarter of a pixel makes 0.1, a mistaken colour space 0.8."""

LEAST_CONTRAST = 4.0
"""Standard deviation in grey levels below which a tile tells nothing of how a level was made."""

MEAN_EXPLAINS = 0.75
"""A level is made of means where they differ from it by at most this share of what every n-th
pixel does. Real pyramids of means gave 0.15 to 0.55, whatever their JPEG quality; one of every
second pixel more than 2."""

PATCH_PX = 64
"""Side of the part of a level that is compared with the means of a finer one."""

SOURCE_PX = 4096
"""Longest side that is read of a finer level for that; bounds memory where levels are far apart."""

LEAST_PATCH_PX = 8
"""Side of a patch that is too small to tell anything."""

TILES_TRIED = 16
"""Tiles of a level tried, those with most bytes first, until one can be decoded."""


def choose_reader(
    slide: Slide, handle: openslide.OpenSlide, sizes: tuple[tuple[int, int], ...] = ()
) -> Slide:
    """The slide with `reader`, `reader_reason` and the levels known to be averages.

    Parameters
    ----------
    handle
        Open on the slide; it is not used again after an error.
    sizes
        Of all levels, where OpenSlide knows of fewer.
    """
    try:
        return _choose(slide, handle, sizes)
    except _LevelLost as lost:
        # OpenSlide cannot read it either: finer levels have all that it had.
        kept = tuple(level for n, level in enumerate(slide.levels) if n != lost.index)
        warning = f"level {lost.index} cannot be decoded; finer ones are read instead"
        less = replace(slide, levels=kept, warnings=(*slide.warnings, warning))
        with openslide.OpenSlide(slide.path) as fresh:
            found = choose_reader(less, fresh)
        return found if found.reader == "tiff" else replace(slide, reader_reason=lost.why)


class _LevelLost(Exception):
    """A level other than the finest cannot be decoded by any reader."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index, self.why = index, why


def _choose(slide: Slide, handle: openslide.OpenSlide, sizes: tuple[tuple[int, int], ...]) -> Slide:
    plain = slide
    if len(sizes) > len(slide.levels) and sizes[0] == (slide.width_px, slide.height_px):
        slide = replace(slide, levels=make_levels(sizes))
    try:
        reader = _direct_reader(slide)
        tiles = [_detailed_tile(reader, index) for index in range(len(slide.levels))]
        for index, tile in enumerate(tiles):
            if tile is not None and index < len(plain.levels):
                _compare(reader, handle, index, tile)
        trusted = [0]
        for index in sorted(range(1, len(tiles)), key=lambda i: slide.levels[i].downsample):
            tile = tiles[index]
            if tile is not None and _is_averaged(reader, index, trusted[-1], tile):
                trusted.append(index)
        levels = tuple(
            replace(level, averaged=index in trusted[1:])
            for index, level in enumerate(slide.levels)
        )
    except (Unsuited, PixelsUnreadable) as error:
        why = str(error) if isinstance(error, Unsuited) else _cause(error)
        lost = _lost_level(plain) if slide.vendor in VENDORS else None
        if lost is not None:
            raise _LevelLost(lost, why) from error
        return replace(plain, reader_reason=why)
    reader.close()
    return replace(
        slide, reader="tiff", levels=levels, reader_reason="tiled TIFF, same pixels as OpenSlide's"
    )


def _lost_level(slide: Slide) -> int | None:
    """The first level but the finest of whose middle OpenSlide makes nothing, if there is one.

    Only the middle is tried: a level that is damaged in part is still of use.
    """
    for index, level in enumerate(slide.levels[1:], start=1):
        with openslide.OpenSlide(slide.path) as handle:
            x, y = round(slide.width_px / 2), round(slide.height_px / 2)
            side = min(16, level.width_px, level.height_px)
            try:
                handle.read_region((x, y), index, (side, side))
            except openslide.OpenSlideError:
                return index
    return None


def _direct_reader(slide: Slide) -> TiffReader:
    if slide.vendor not in VENDORS:
        raise Unsuited(f"{slide.vendor} files are not read directly")
    reader = TiffReader(slide)
    if slide.vendor == "aperio" and any(level.sparse for level in reader.levels[1:]):
        raise Unsuited(
            "tiles of a coarse level are missing, which OpenSlide makes from a finer one"
        )
    return reader


def _detailed_tile(reader: TiffReader, index: int) -> tuple[int, int] | None:
    """Row and column of the whole tile that took most bytes, which has most detail.

    Damaged ones are passed over; they will be gaps, and must not change how the rest is read. None
    where the level has no tiles. Raises `Unsuited` where none of those tried can be decoded.
    """
    level = reader.levels[index]
    counts = level.byte_counts.reshape(level.rows, level.columns).copy()
    if level.height_px % level.tile_height_px and level.rows > 1:
        counts[-1] = 0
    if level.width_px % level.tile_width_px and level.columns > 1:
        counts[:, -1] = 0
    # More than its pixels is damage, not detail.
    counts[counts > level.tile_bytes] = 0
    most = np.argsort(counts, axis=None, kind="stable")[::-1][:TILES_TRIED]
    places = [(int(i) // level.columns, int(i) % level.columns) for i in most if counts.flat[i]]
    for place in places:
        try:
            _read(reader, index, _tile_px(level, place))
        except PixelsUnreadable as error:
            if _of_the_disk(error):
                raise
            continue
        return place
    if places:
        raise Unsuited(f"none of {len(places)} tiles of level {index} can be decoded")
    return None


def _compare(
    reader: TiffReader, handle: openslide.OpenSlide, index: int, place: tuple[int, int]
) -> None:
    """Raise `Unsuited` where a tile of this level is not what OpenSlide makes of it."""
    level = reader.levels[index]
    there, size = index, (level.width_px, level.height_px)
    if handle.level_dimensions[there] != size:  # a level that was lost is not among ours
        there = handle.level_dimensions.index(size)
    down = handle.level_downsamples[there]
    x, y, width, height = _tile_px(level, place)
    # OpenSlide interpolates where its own downsample makes no whole px of a whole level-0 px.
    x, y = (min(range(start, start + 17), key=lambda n: _off(n, down)) for start in (x, y))
    part = (x, y, max(1, width - 16), max(1, height - 16))
    location = (round(x * down), round(y * down))
    try:
        ours = _read(reader, index, part).astype(np.int16)
        theirs = np.asarray(handle.read_region(location, there, part[2:]))
    except (PixelsUnreadable, openslide.OpenSlideError):
        raise Unsuited(f"level {index} is read by only one of the readers") from None
    difference = np.abs(ours - theirs[..., :3])[theirs[..., 3] >= 250]
    allowed = LARGEST_DIFFERENCE
    if max(_off(x, down), _off(y, down)) > 0.01:
        allowed += INTERPOLATED * float(ours.std(axis=(0, 1)).mean())
    if difference.size and float(difference.mean()) > allowed:
        raise Unsuited(
            f"level {index} differs from OpenSlide's by {difference.mean():.1f} grey levels"
        )


def _off(px: int, down: float) -> float:
    """How far from whole the pixel is that OpenSlide reads for level pixel `px`."""
    return abs(round(px * down) / down - px)


def _is_averaged(reader: TiffReader, index: int, finer: int, place: tuple[int, int]) -> bool:
    """Whether means of the finer level explain the level better than leaving pixels out does."""
    levels = reader.slide.levels
    step = round(levels[index].downsample / levels[finer].downsample)
    x, y, width, height = _tile_px(reader.levels[index], place)
    side = min(width, height, PATCH_PX, SOURCE_PX // max(step, 1))
    if step < 2 or side < LEAST_PATCH_PX:
        return False
    part = (x + (width - side) // 2, y + (height - side) // 2, side, side)
    made = _read(reader, index, part).astype(np.float32)
    try:
        source = reader.read_level(finer, _box(levels[index], part), side * step, side * step).rgb
    except PixelsUnreadable as error:
        if _of_the_disk(error):
            raise
        return False
    mean = source.reshape(side, step, side, step, 3).mean((1, 3), dtype=np.float32)
    left_out = [source[at::step, at::step] for at in {0, (step - 1) // 2, step // 2}]
    contrast = float(mean.std(axis=(0, 1)).mean())
    by_leaving_out = min(float(np.abs(made - pixels).mean()) for pixels in left_out)
    by_mean = float(np.abs(made - mean).mean())
    return contrast >= LEAST_CONTRAST and by_mean <= MEAN_EXPLAINS * by_leaving_out


def _of_the_disk(error: PixelsUnreadable) -> bool:
    """Whether the system failed, which may pass, rather than that the data are damaged."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno is not None


def _cause(error: PixelsUnreadable) -> str:
    """Half a sentence: the layout's own, where it was not understood."""
    return str(error.__cause__ or error).rstrip(".")


def _tile_px(level: TiffLevel, place: tuple[int, int]) -> tuple[int, int, int, int]:
    """x, y, width and height of a tile within its level, the slide's edge cut off."""
    x, y = place[1] * level.tile_width_px, place[0] * level.tile_height_px
    width = min(level.tile_width_px, level.width_px - x)
    return x, y, width, min(level.tile_height_px, level.height_px - y)


def _box(level: Level, part: tuple[int, int, int, int]) -> Box:
    return Box(*(side * level.downsample for side in part))


def _read(reader: TiffReader, index: int, part: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    level = reader.slide.levels[index]
    return reader.read_level(index, _box(level, part), part[2], part[3]).rgb
