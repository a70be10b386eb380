"""The slide at low power, read so that one bad tile costs its own area and no more."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable
from slidetriage.wsi import Box, SlideReader

THUMBNAIL_MPP = 8.0
"""um/px at which tissue is looked for: a nucleus is one pixel, a fat cell is ten."""

LARGEST_PX = 1 << 22
"""Pixels of a thumbnail at most: a slide of more than 268 mm2 is looked at more coarsely, one of
600 mm2 at 12 um/px. Tissue is found at 16 um/px, so this costs nothing up to 1,000 mm2."""

READ_PX = 1 << 18
"""Pixels of a thumbnail read at once, for the level read has up to 16 times as many and more."""

SMALLEST_PART_PX = 32
"""Side of the smallest part given up on: 256 um at the usual scale."""

FAILURES_PER_SIDE = 128
"""Parts that fail until those given up on are twice as wide: after some 450 failures nothing is
left that could fail. OpenSlide opens a slide anew after each; 3,000 of them took minutes, and in
a hostile slide all the memory there was."""


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """The slide's bounds at low power."""

    rgb: NDArray[np.uint8]
    """rows x columns x 3."""
    valid: NDArray[np.bool_]
    """rows x columns; False where nothing was scanned or nothing could be read."""
    unreadable: NDArray[np.bool_]
    """rows x columns; True where the file could not be decoded."""
    mpp_x: float
    mpp_y: float
    """Micrometres per thumbnail pixel along each axis."""


def read_thumbnail(reader: SlideReader, mpp: float = THUMBNAIL_MPP) -> Thumbnail:
    """Read the slide's bounds at about `mpp` um/px (exactly so up to half a pixel in the whole).

    A slide coarser than `mpp` is read at its own scale, and a large one so that the thumbnail has
    no more than `LARGEST_PX`. Raises `PixelsUnreadable` where more than half of the slide cannot
    be decoded.
    """
    slide = reader.slide
    bounds = slide.bounds
    width_um, height_um = bounds.width * slide.mpp.x, bounds.height * slide.mpp.y
    mpp = max(mpp, sqrt(width_um * height_um / LARGEST_PX))
    columns = max(1, round(width_um / max(mpp, slide.mpp.x)))
    rows = max(1, round(height_um / max(mpp, slide.mpp.y)))
    thumbnail = Thumbnail(
        rgb=np.empty((rows, columns, 3), np.uint8),
        valid=np.zeros((rows, columns), np.bool_),
        unreadable=np.zeros((rows, columns), np.bool_),
        mpp_x=width_um / columns,
        mpp_y=height_um / rows,
    )
    error = _Filling(reader, thumbnail).fill(slice(0, rows), slice(0, columns))
    if error is not None and thumbnail.unreadable.mean() > 0.5:
        raise error
    return thumbnail


class _Filling:
    """Reads the parts of a thumbnail, one after the other."""

    def __init__(self, reader: SlideReader, thumbnail: Thumbnail) -> None:
        self._reader, self._thumbnail = reader, thumbnail
        self._failures = 0

    def fill(self, rows: slice, columns: slice) -> PixelsUnreadable | None:
        """Read one part, in halves where it is large or fails; returns the last error."""
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if tall * wide > READ_PX:
            return self._fill_halves(rows, columns)
        reader, thumbnail = self._reader, self._thumbnail
        bounds, (height, width) = reader.slide.bounds, thumbnail.valid.shape
        step_x, step_y = bounds.width / width, bounds.height / height
        box = Box(
            bounds.x + columns.start * step_x, bounds.y + rows.start * step_y, wide * step_x,
            tall * step_y,
        )  # fmt: skip
        smallest = SMALLEST_PART_PX << self._failures // FAILURES_PER_SIDE
        try:
            # Tissue is found as well on any level, and a coarse one is read ten times faster.
            pixels = reader.read(box, wide, tall, finer=1)
        except PixelsUnreadable as error:
            self._failures += 1
            if max(tall, wide) > smallest:
                return self._fill_halves(rows, columns)
            thumbnail.rgb[rows, columns] = reader.slide.background_rgb
            thumbnail.unreadable[rows, columns] = True
            return error
        thumbnail.rgb[rows, columns], thumbnail.valid[rows, columns] = pixels.rgb, pixels.valid
        return None

    def _fill_halves(self, rows: slice, columns: slice) -> PixelsUnreadable | None:
        if rows.stop - rows.start >= columns.stop - columns.start:
            middle = (rows.start + rows.stop) // 2
            halves = [(slice(rows.start, middle), columns), (slice(middle, rows.stop), columns)]
        else:
            middle = (columns.start + columns.stop) // 2
            halves = [(rows, slice(columns.start, middle)), (rows, slice(middle, columns.stop))]
        errors = [self.fill(*half) for half in halves]
        return errors[1] or errors[0]
