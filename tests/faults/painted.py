"""The small painted slides that hostile ones are made from: like Aperio's, and plain tiled TIFF."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faults.tiff_parts import (
    HEIGHT,
    LONG,
    RATIONAL,
    RESOLUTION_UNIT,
    SHORT,
    SUBFILE,
    WIDTH,
    X_RESOLUTION,
    Y_RESOLUTION,
    Directory,
    Encode,
    Image8,
    as_jpeg,
    describe,
    stripped,
    tiled,
    write_parts,
)
from slidetriage.wsi import PhantomSpec, plan_phantom
from slidetriage.wsi.phantom_paint import render_pixels

MPP = 2.0
SIZE_PX = (1000, 800)
TILE_PX = 64
"""Less than a model tile, which is 100 px here, so that a bad one can cost a single cell."""

CELL_PX = 100
COLUMNS = -(-SIZE_PX[0] // TILE_PX)
LEVEL, THUMBNAIL, COARSE, LABEL, MACRO = range(5)
"""Directories of `aperio` in their order."""


@cache
def paint(seed: int = 3) -> Image8:
    """The pixels of level 0; they must not be changed."""
    width, height = SIZE_PX
    spec = PhantomSpec(width_mm=width * MPP / 1e3, height_mm=height * MPP / 1e3, mpp=MPP, seed=seed)
    image = np.asarray(render_pixels(plan_phantom(spec), (0, 0, width, height), MPP))
    image.setflags(write=False)
    return image


def means(image: Image8, factor: int = 4) -> Image8:
    """The image reduced by means, as a pyramid is made."""
    height, width = (side // factor for side in image.shape[:2])
    parts = image[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return np.asarray(parts.mean((1, 3)).round().astype(np.uint8))


def aperio(
    image: Image8 | None = None,
    *,
    mpp: str | None = f"{MPP:g}",
    power: str | None = None,
    encode: Encode = as_jpeg,
    coarse: Image8 | None = None,
) -> list[Directory]:
    """The directories of a slide like Aperio's: level, thumbnail, coarse level, label, macro."""
    if image is None and encode is as_jpeg and coarse is None:
        directories = deepcopy(_painted_aperio())
    else:
        directories = _aperio(paint() if image is None else image, encode, coarse)
    said = "".join(
        f"|{name} = {value}" for name, value in (("AppMag", power), ("MPP", mpp)) if value
    )
    width, height = (directories[LEVEL].tags[tag][1][0] for tag in (WIDTH, HEIGHT))
    size = f"{width}x{height} [0,0 {width}x{height}] ({TILE_PX}x{TILE_PX})"
    describe(directories[LEVEL], f"Aperio Image Library v10.0\r\n{size} JPEG/RGB Q=87{said}")
    return directories


@cache
def _painted_aperio() -> list[Directory]:
    return _aperio(paint(), as_jpeg, None)


def _aperio(image: Image8, encode: Encode, coarse: Image8 | None) -> list[Directory]:
    small = means(image) if coarse is None else coarse
    plain: NDArray[np.uint8] = np.full((60, 80, 3), 180, np.uint8)
    directories = [
        tiled(image, TILE_PX, encode),
        describe(stripped(small), "Aperio Image Library v10.0\r\nthumbnail"),
        describe(tiled(small, TILE_PX, encode), "Aperio Image Library v10.0\r\nlevel"),
        describe(stripped(plain), "Aperio Image Library v10.0\r\nlabel 80x60"),
        describe(stripped(plain), "Aperio Image Library v10.0\r\nmacro 80x60"),
    ]
    directories[LABEL].set(SUBFILE, LONG, 1)
    directories[MACRO].set(SUBFILE, LONG, 9)
    return directories


def generic(
    *images: Image8, mpp: tuple[float, float] = (MPP, MPP), encode: Encode = as_jpeg
) -> list[Directory]:
    """The directories of a plain tiled TIFF; its levels are means unless they are given."""
    levels = images or (paint(), means(paint()))
    directories = [tiled(level, TILE_PX, encode) for level in levels]
    for directory in directories[1:]:
        directory.set(SUBFILE, LONG, 1)
    for directory in directories:
        scale = levels[0].shape[1] / directory.tags[WIDTH][1][0]
        for tag, value in zip((X_RESOLUTION, Y_RESOLUTION), mpp, strict=True):
            directory.set(tag, RATIONAL, round(1e7 / (value * scale)), 1000)
        directory.set(RESOLUTION_UNIT, SHORT, 3)
    return directories


def write_good(path: Path, seed: int) -> Path:
    """A slide with nothing wrong."""
    return write_parts(path, aperio(paint(seed)))


def tiles_under(row: int, column: int) -> list[int]:
    """Numbers of the file's tiles that the cell of that row and column touches."""
    first_row, last_row = row * CELL_PX // TILE_PX, ((row + 1) * CELL_PX - 1) // TILE_PX
    first, last = column * CELL_PX // TILE_PX, ((column + 1) * CELL_PX - 1) // TILE_PX
    return [
        y * COLUMNS + x
        for y in range(first_row, last_row + 1)
        for x in range(first, min(last, COLUMNS - 1) + 1)
    ]


def cells_over(tile: int) -> list[tuple[int, int]]:
    """Row and column of the cells that touch a tile of the file."""
    y, x = divmod(tile, COLUMNS)
    rows = range(y * TILE_PX // CELL_PX, (min((y + 1) * TILE_PX, SIZE_PX[1]) - 1) // CELL_PX + 1)
    columns = range(x * TILE_PX // CELL_PX, (min((x + 1) * TILE_PX, SIZE_PX[0]) - 1) // CELL_PX + 1)
    return [(row, column) for row in rows for column in columns]
