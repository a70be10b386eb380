"""A request becomes a plan: the slide is opened, its tissue found, its tiles chosen."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slidetriage.errors import ScaleError, SlideTriageError
from slidetriage.models import Card
from slidetriage.tiling import (
    Thumbnail,
    TileGrid,
    Tiles,
    TissueMask,
    find_tissue,
    read_thumbnail,
    select_tiles,
)
from slidetriage.wsi import Slide, SlideReader, hash_slide, open_reader, open_slide

from .identity import result_key, slide_id
from .manifest import verified_key
from .records import read_result
from .settings import Settings
from .sources import SlideRequest
from .steps import PlanStep, SlidePlan, SlideResult

PICTURE_FILE = "picture.npy"

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


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Where the tissue of a slide is, which tiles will be read, and a picture of it."""

    picture: NDArray[np.uint8]
    """height x width x 3, as the overlay shows it."""
    tiles: Tiles
    tissue_mm2: float
    thumbnail_px: int
    """Pixels of the thumbnail on which tissue was found."""


def plan_slide(
    step: PlanStep, card: Card, identity: str, settings: Settings, out: Path
) -> SlidePlan | SlideResult:
    """Plan one slide; leaves its picture in the staging folder.

    A slide that was finished before, with the same content, model and settings, gives its result.

    Raises
    ------
    SlideTriageError
        The slide is missing, damaged, without scale, or too coarse for the model.
    """
    request = step.request
    slide = open_request(request, card)
    digest = hash_slide(slide.files)
    name = slide_id(request.name, digest)
    key = _key(request, slide, digest, identity, settings)
    directory = name
    if (out / name).exists() and verified_key(out / name) != key:
        # Another model or other settings: the old result stays, the new one stands beside it.
        directory = f"{name}-{key[:8]}"
    if verified_key(out / directory) == key:
        return read_result(out / directory)
    survey = survey_slide(slide, card, settings)
    # A worker that died here before may have left something.
    shutil.rmtree(step.staging, ignore_errors=True)
    step.staging.mkdir(parents=True)
    np.save(step.staging / PICTURE_FILE, survey.picture)
    return SlidePlan(
        slide_id=name,
        sha256=digest,
        key=key,
        directory=directory,
        slide=slide,
        tiles=survey.tiles,
        tissue_mm2=survey.tissue_mm2,
    )


def open_request(request: SlideRequest, card: TileNeeds) -> Slide:
    """Open the slide that was asked for; raises `SlideTriageError` where it cannot be triaged."""
    if request.problem is not None:
        code, message = request.problem
        raise SlideTriageError(message, code=code)
    slide = open_slide(request.path, mpp=request.mpp, mpp_source=request.mpp_source)
    check_scale(slide, card)
    return slide


def survey_slide(slide: Slide, card: TileNeeds, settings: Settings) -> Survey:
    """Find the tissue and choose the tiles; raises `PixelsUnreadable` for a damaged slide."""
    reader = open_reader(slide)
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
        slide, tile_px=card.tile_px, stride_px=settings.stride_px(card.tile_px), mpp=card.mpp
    )
    tiles = select_tiles(grid, suspected, min_tissue=settings.min_tissue)
    return Survey(picture, tiles, found.area_mm2, found.mask.size)


def _read_picture(reader: SlideReader, thumbnail: Thumbnail) -> NDArray[np.uint8]:
    """The slide as the overlay shows it: the thumbnail made smaller, or read anew and finer."""
    rows, columns = thumbnail.valid.shape
    scale = sqrt(rows * columns / PICTURE_PX)
    if scale < 1:
        return read_thumbnail(reader, scale * sqrt(thumbnail.mpp_x * thumbnail.mpp_y)).rgb
    size = (max(1, round(columns / scale)), max(1, round(rows / scale)))
    picture = Image.fromarray(thumbnail.rgb).resize(size, Image.Resampling.HAMMING)
    return np.asarray(picture)


def check_scale(slide: Slide, card: TileNeeds) -> None:
    """Raise `ScaleError` (E_MPP_TOO_COARSE) where the slide lacks the detail the model needs."""
    coarsest = max(slide.mpp.x, slide.mpp.y)
    limit = card.mpp_range[1]
    if coarsest > limit:
        raise ScaleError(
            f"{slide.path.name}: its finest level has {coarsest:g} um/px, but the model "
            f"{card.name} needs {card.mpp:g} um/px and accepts nothing coarser than {limit:g}.",
            mend="Scan at a higher power, or choose a model for coarser pixels with --model.",
            code="E_MPP_TOO_COARSE",
        )


def _key(
    request: SlideRequest, slide: Slide, digest: str, identity: str, settings: Settings
) -> str:
    scale = {"mpp": [slide.mpp.x, slide.mpp.y], "mpp_source": slide.mpp.source}
    return result_key(digest, identity, {**settings.as_record(), **scale, "name": request.name})
