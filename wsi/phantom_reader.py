"""A slide reader without a file: it serves the phantom's pixels as they are painted."""

from __future__ import annotations

from math import ceil, floor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .phantom_paint import render_pixels
from .phantom_scene import PhantomScene, PhantomSpec, plan_phantom
from .resample import area_weights, flatten_alpha, resample
from .slide import FINER, Box, Level, Mpp, Pixels, Slide, SlideReader

_SOURCE_PX = 1 << 22
"""Level-0 pixels painted at once; larger requests are served in bands of rows."""


class PhantomReader:
    """A `SlideReader` of the phantom, for tests: no file, no JPEG, one level.

    It pickles as its spec and plans the scene when first read. What lies outside the slide is
    white and not valid.
    """

    def __init__(self, spec: PhantomSpec | None = None) -> None:
        self.spec = spec or PhantomSpec()
        self._scene: PhantomScene | None = None

    def __reduce__(self) -> tuple[type[PhantomReader], tuple[PhantomSpec]]:
        return PhantomReader, (self.spec,)

    @property
    def slide(self) -> Slide:
        """The phantom as a slide; no file is at its path."""
        width, height = self.spec.size_px
        return Slide(
            path=Path(f"phantom-{self.spec.seed}"),
            files=(),
            reader="image",
            vendor="phantom",
            width_px=width,
            height_px=height,
            levels=(Level(width, height, 1.0),),
            mpp=Mpp(self.spec.mpp, self.spec.mpp, "file"),
            bounds=Box(0, 0, width, height),
            objective_power=None,
            background_rgb=(255, 255, 255),
        )

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
        del finer  # there is one level
        rgb = np.empty((height_px, width_px, 3), np.uint8) if out is None else out
        valid = np.empty((height_px, width_px), np.bool_)
        step = box.height / height_px
        rows = max(1, int(_SOURCE_PX / max(1.0, box.width) / max(step, 1.0)))
        for top in range(0, height_px, rows):
            deep = min(rows, height_px - top)
            band = Box(box.x, box.y + top * step, box.width, deep * step)
            rgb[top : top + deep], valid[top : top + deep] = self._read_band(band, width_px, deep)
        return Pixels(rgb, valid)

    def close(self) -> None:
        """Forget the scene; a later read plans it again."""
        self._scene = None

    def _read_band(
        self, box: Box, width_px: int, height_px: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        # One pixel more on each side: enlarging interpolates past the box.
        left, top = floor(box.x) - 1, floor(box.y) - 1
        width, height = ceil(box.x + box.width) + 1 - left, ceil(box.y + box.height) + 1 - top
        source = self._paint(left, top, width, height)
        rows = area_weights(height_px, box.y - top, box.height / height_px, height)
        columns = area_weights(width_px, box.x - left, box.width / width_px, width)
        return flatten_alpha(resample(source, rows, columns), self.slide.background_rgb)

    def _paint(self, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """Height x width x 4: the pixels, transparent outside the slide."""
        if self._scene is None:
            self._scene = plan_phantom(self.spec)
        slide_width, slide_height = self.spec.size_px
        rgba = np.zeros((height, width, 4), np.uint8)
        x0, x1 = max(left, 0), min(left + width, slide_width)
        y0, y1 = max(top, 0), min(top + height, slide_height)
        if x1 > x0 and y1 > y0:
            inner = rgba[y0 - top : y1 - top, x0 - left : x1 - left]
            inner[..., :3] = render_pixels(self._scene, (x0, y0, x1 - x0, y1 - y0), self.spec.mpp)
            inner[..., 3] = 255
        return rgba


_proof: type[SlideReader] = PhantomReader
