"""What a slide is: its size, levels, physical scale and bounds, as values without open handles.

Level-0 pixels are the only coordinates that cross a folder; physical sizes are micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

MppSource = Literal["file", "manifest", "command line"]
"""Where a slide's micrometres per pixel came from; they are never guessed."""

ReaderName = Literal["tiff", "openslide", "image"]


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per level-0 pixel along each axis, and who said so."""

    x: float
    y: float
    source: MppSource


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in level-0 px; fractions are allowed, and so is reaching past the edge."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of the pyramid."""

    width_px: int
    height_px: int
    downsample: float
    """Level-0 px per px of this level, as it was made (see `exact_downsample`)."""
    averaged: bool = False
    """Whether its pixels were found to be means of finer ones, so that it can be read for them."""


@dataclass(frozen=True, slots=True)
class Slide:
    """A slide that was opened, understood and closed again."""

    path: Path
    files: tuple[Path, ...]
    """Every file that belongs to the slide (MRXS and DICOM have many), sorted."""
    reader: ReaderName
    vendor: str
    width_px: int
    height_px: int
    levels: tuple[Level, ...]
    mpp: Mpp
    bounds: Box
    """The scanned part of level 0; the whole of it where the format states no bounds."""
    objective_power: float | None
    background_rgb: tuple[int, int, int]
    ycbcr: bool = False
    """OpenSlide hands out YCbCr as if it were RGB; readers convert it (see `mislabelled_ycbcr`)."""
    warnings: tuple[str, ...] = ()
    reader_reason: str = ""
    """Why this reader was taken, as half a sentence."""

    @property
    def whole(self) -> Box:
        """All of level 0 as a box."""
        return Box(0, 0, self.width_px, self.height_px)


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """Pixels as read: transparent ones are in the background colour and marked not valid."""

    rgb: NDArray[np.uint8]
    """height x width x 3, sRGB."""
    valid: NDArray[np.bool_]
    """height x width; False where at least half of the pixel's area holds no scanned data."""
    complete: bool = False
    """Known to be valid throughout, so that `valid` need not be looked at."""


FINER = 4.0
"""How many times finer than asked for the level read is, where there is one. Some writers make
coarse levels by leaving pixels out; averaging over 4 x 4 mends that (docs/decisions/0003)."""


class SlideReader(Protocol):
    """Reads any part of one slide at any scale.

    A reader pickles as its slide, opens its file when first read, and opens it anew after any
    error, because an OpenSlide handle never recovers from one. It never reads label, macro or
    thumbnail images.
    """

    @property
    def slide(self) -> Slide:
        """The slide that is read."""
        ...

    def read(
        self,
        box: Box,
        width_px: int,
        height_px: int,
        *,
        finer: float = FINER,
        out: NDArray[np.uint8] | None = None,
    ) -> Pixels:
        """Resample `box` (level-0 px) to exactly `width_px` x `height_px` pixels.

        Each output pixel is the mean of the area it covers in the coarsest level that is fine
        enough (see `choose_level`), or in level 0. What lies outside the slide is not valid.
        `out`, height x width x 3, becomes the pixels' `rgb` where it is given.
        Raises `PixelsUnreadable` where the file cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Release the file; a later read opens it again."""
        ...
