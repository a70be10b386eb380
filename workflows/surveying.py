"""A slide is opened for a model: its scale is checked, its tissue found, its tiles chosen.

Imports nothing of models, because decoders do this (see `decoding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slidetriage.errors import ScaleError, SlideTriageError
from slidetriage.tiling import (
    Thumbnail,
    TileGrid,
    Tiles,
    TissueMask,
    find_tissue,
    read_thumbnail,
    select_tiles,
)
from slidetriage.wsi import Slide, SlideReader, open_slide

from .settings import Settings
from .sources import SlideRequest

PICTURE_PX = 1200 * 1200
"""Pixels of the overlay's picture: more are not seen, and fewer would look like a mosaic."""


class TileNeeds(Protocol):
    """The tiles that a model takes; a bundle's `Card` says it."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of its tiles."""
        ...

    @property
    def mpp_range(self) -> tuple[float, float]:
        """Micrometres per pixel it accepts."""
        ...

    @property
    def tile_px(self) -> int:
        """Side of a tile in pixels."""
        ...


@dataclass(frozen=True, slots=True)
class TilesWanted:
    """`TileNeeds` as a plain value, which a process without models can take."""

    name: str
    mpp: float
    mpp_range: tuple[float, float]
    tile_px: int

    @classmethod
    def of(cls, needs: TileNeeds) -> TilesWanted:
        """The same needs."""
        return cls(needs.name, needs.mpp, needs.mpp_range, needs.tile_px)


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Where the tissue of a slide is, which tiles will be read, and a picture of it."""

    picture: NDArray[np.uint8]
    """height x width x 3, as the overlay shows it."""
    tiles: Tiles
    tissue_mm2: float
    thumbnail_px: int
    """Pixels of the thumbnail on which tissue was found."""
    complete: bool
    """Whether all of the thumbnail could be read."""


def open_request(request: SlideRequest, needs: TileNeeds | None) -> Slide:
    """Open the slide that was asked for; raises `SlideTriageError` where it cannot be triaged.

    Where nothing is needed its scale is not checked.
    """
    if request.problem is not None:
        code, message = request.problem
        raise SlideTriageError(message, code=code)
    slide = open_slide(request.path, mpp=request.mpp, mpp_source=request.mpp_source)
    if needs is not None:
        check_scale(slide, needs)
    return slide


def survey_slide(reader: SlideReader, needs: TileNeeds, settings: Settings) -> Survey:
    """Find the tissue and choose the tiles; raises `PixelsUnreadable` for a damaged slide.

    The reader is closed in the end, so that no more of a slide stays open than is read.
    """
    slide = reader.slide
    try:
        thumbnail = read_thumbnail(reader)
        picture = _read_picture(reader, thumbnail)
    finally:
        reader.close()
    found = find_tissue(
        thumbnail.rgb,
        thumbnail.valid,
        (thumbnail.mpp_x, thumbnail.mpp_y),
        masker=settings.masker,
    )
    # What could not be read may be tissue: its tiles are planned, so that they count as missing.
    suspected = TissueMask(
        found.mask | thumbnail.unreadable, found.mpp_x, found.mpp_y, found.method
    )
    grid = TileGrid.over(
        slide, tile_px=needs.tile_px, stride_px=settings.stride_px(needs.tile_px), mpp=needs.mpp
    )
    tiles = select_tiles(grid, suspected, min_tissue=settings.min_tissue)
    complete = not thumbnail.unreadable.any()
    return Survey(picture, tiles, found.area_mm2, found.mask.size, complete)


def _read_picture(reader: SlideReader, thumbnail: Thumbnail) -> NDArray[np.uint8]:
    """The slide as the overlay shows it: the thumbnail made smaller, or read anew and finer."""
    rows, columns = thumbnail.valid.shape
    scale = sqrt(rows * columns / PICTURE_PX)
    if scale < 1:
        return read_thumbnail(reader, scale * sqrt(thumbnail.mpp_x * thumbnail.mpp_y)).rgb
    size = (max(1, round(columns / scale)), max(1, round(rows / scale)))
    picture = Image.fromarray(thumbnail.rgb).resize(size, Image.Resampling.HAMMING)
    return np.asarray(picture)


def check_scale(slide: Slide, needs: TileNeeds) -> None:
    """Raise `ScaleError` (E_MPP_TOO_COARSE) where the slide lacks the detail the model needs."""
    coarsest = max(slide.mpp.x, slide.mpp.y)
    limit = needs.mpp_range[1]
    if coarsest > limit:
        raise ScaleError(
            f"{slide.path.name}: its finest level has {coarsest:g} um/px, but the model "
            f"{needs.name} needs {needs.mpp:g} um/px and accepts nothing coarser than {limit:g}.",
            mend="Scan at a higher power, or choose a model for coarser pixels with --model.",
            code="E_MPP_TOO_COARSE",
        )
