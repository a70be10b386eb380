"""Reads any slide through OpenSlide: the plain reader every other one is checked against."""

from __future__ import annotations

import threading
from functools import cache
from math import ceil, floor

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from slidetriage.errors import PixelsUnreadable

from .levels import choose_level
from .messages import without_folder
from .resample import area_weights, flatten_alpha, resample
from .slide import FINER, Box, Pixels, Slide, SlideReader

LARGEST_READ_PX = 1 << 24
"""Source pixels decoded at once, 64 MiB of RGBA; larger requests are read in parts."""

CACHE_BYTES = 64 << 20
"""One decoded-tile cache for all handles of a process: OpenSlide's own default is one per handle,
which adds up to a gigabyte over 40 open slides."""


class OpenSlideReader:
    """A `SlideReader` over OpenSlide 4; threads may share one, and take turns.

    The level is chosen by `choose_level`; the area filter does the rest, so the result has exactly
    the mpp asked for.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._handle: openslide.OpenSlide | None = None
        self._using = threading.Lock()

    def __reduce__(self) -> tuple[type[OpenSlideReader], tuple[Slide]]:
        return OpenSlideReader, (self._slide,)

    @property
    def slide(self) -> Slide:
        """The slide that is read."""
        return self._slide

    def read(
        self,
        box: Box,
        width_px: int,
        height_px: int,
        *,
        finer: float = FINER,
        out: NDArray[np.uint8] | None = None,
    ) -> Pixels:
        """Resample `box` to exactly `width_px` x `height_px` pixels (see `SlideReader`)."""
        rgb = np.empty((height_px, width_px, 3), np.uint8) if out is None else out
        valid = np.empty((height_px, width_px), np.bool_)
        scale_x, scale_y = box.width / width_px, box.height / height_px
        index = choose_level(self._slide.levels, scale_x, scale_y, finer=finer)
        self._fill(index, box, rgb, valid)
        return Pixels(rgb, valid)

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        with self._using:
            self._close()

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _fill(self, index: int, box: Box, rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
        """Read `box` into the arrays, in halves while it is too large to decode at once."""
        height, width = valid.shape
        down = self._slide.levels[index].downsample
        if box.width * box.height / down**2 <= LARGEST_READ_PX or max(width, height) == 1:
            rgb[:], valid[:] = self._read_at(index, box, width, height)
        elif width >= height:
            half, step = width // 2, box.width / width
            left = Box(box.x, box.y, half * step, box.height)
            right = Box(box.x + half * step, box.y, (width - half) * step, box.height)
            self._fill(index, left, rgb[:, :half], valid[:, :half])
            self._fill(index, right, rgb[:, half:], valid[:, half:])
        else:
            half, step = height // 2, box.height / height
            top = Box(box.x, box.y, box.width, half * step)
            bottom = Box(box.x, box.y + half * step, box.width, (height - half) * step)
            self._fill(index, top, rgb[:half], valid[:half])
            self._fill(index, bottom, rgb[half:], valid[half:])

    def _read_at(
        self, index: int, box: Box, width_px: int, height_px: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read from one level and apply the area filter."""
        # One pixel more on each side: enlarging interpolates past the box.
        down = self._slide.levels[index].downsample
        left, top = box.x / down, box.y / down
        scale_x, scale_y = box.width / down / width_px, box.height / down / height_px
        # Never before 0: OpenSlide rounds negative places towards it, which is a shift.
        x, y = max(0, floor(left) - 1), max(0, floor(top) - 1)
        wide = max(3, ceil(left + scale_x * width_px) + 2 - x)
        tall = max(3, ceil(top + scale_y * height_px) + 2 - y)
        rgba, x0, y0 = self._read_rgba(index, x, y, (wide, tall))
        if left >= 0 and top >= 0 and _is_whole(scale_x, scale_y, left - x0, top - y0):
            crop = rgba[round(top - y0) :, round(left - x0) :][:height_px, :width_px]
            if (crop[..., 3] == 255).all():
                return crop[..., :3], np.ones((height_px, width_px), np.bool_)
        rows = area_weights(height_px, top - y0, scale_y, tall)
        columns = area_weights(width_px, left - x0, scale_x, wide)
        return flatten_alpha(
            resample(_premultiply(rgba), rows, columns), self._slide.background_rgb
        )

    def _read_rgba(
        self, index: int, x: int, y: int, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], float, float]:
        """Pixels of one level from about (x, y) there, and from where exactly.

        OpenSlide takes whole level-0 px and divides them by its own downsample, which may not be
        whole, and then interpolates. An OpenSlide handle never recovers from an error: drop it.
        """
        location = (x, y)
        try:
            with self._using:
                if self._handle is None:
                    self._handle = openslide.OpenSlide(self._slide.path)
                    self._handle.set_cache(_shared_cache())
                down = self._handle.level_downsamples[index]
                location = (round(x * down), round(y * down))
                region = self._handle.read_region(location, index, size)
        except (openslide.OpenSlideError, OSError, MemoryError) as error:
            self.close()
            raise PixelsUnreadable(
                f"{self._slide.path.name}: level {index} cannot be decoded near level-0 pixel "
                f"{location}: {without_folder(self._slide.path, error)}.",
                mend="Copy the slide again from the scanner and compare checksums.",
            ) from error
        rgba = np.asarray(region)
        if self._slide.ycbcr:
            rgba = _from_ycbcr(rgba)
        return rgba, location[0] / down, location[1] / down


def _is_whole(scale_x: float, scale_y: float, left: float, top: float) -> bool:
    """Whether output pixels are source pixels, so that there is nothing to filter."""
    offsets = (scale_x - 1, scale_y - 1, left - round(left), top - round(top))
    return all(abs(offset) < 1e-9 for offset in offsets)


def _from_ycbcr(ycbcra: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb = Image.frombytes("YCbCr", ycbcra.shape[1::-1], ycbcra[..., :3].tobytes()).convert("RGB")
    return np.concatenate([np.asarray(rgb), ycbcra[..., 3:]], axis=2)


def _premultiply(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    rgb = (rgba[..., :3] * alpha + 127) // 255
    return np.concatenate([rgb.astype(np.uint8), rgba[..., 3:]], axis=2)


@cache
def _shared_cache() -> openslide.OpenSlideCache:
    return openslide.OpenSlideCache(CACHE_BYTES)


_proof: type[SlideReader] = OpenSlideReader
