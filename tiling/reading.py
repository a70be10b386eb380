"""Reads the pixels of a batch of tiles, run by run, and says which could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable
from slidetriage.wsi import Box, Pixels, SlideReader

from .tiles import TileBatch, TileGrid

LARGEST_RUN_PX = 4096
"""Longest run of neighbouring tiles read at once, in tile pixels; bounds memory."""

ATTEMPTS = 2
"""Times a tile is tried; the reader opens the file anew in between, which mends passing faults."""


@dataclass(frozen=True, slots=True, eq=False)
class TilePixels:
    """The pixels of a batch of tiles; an unreadable tile's are zero and must not be used."""

    images: NDArray[np.uint8]
    """N x tile_px x tile_px x 3, RGB."""
    valid: NDArray[np.float32]
    """N; share of the tile's area within the slide that was scanned, 0 to 1."""
    readable: NDArray[np.bool_]
    """N; False where the file could not be decoded, tried twice."""
    error: str
    """What the last unreadable tile's error said; empty where all were read."""


def read_tiles(reader: SlideReader, batch: TileBatch) -> TilePixels:
    """Read every tile of `batch` at exactly its mpp.

    Neighbours in a row are read together and cut apart; the area filter makes that the same as
    reading each on its own. Where a run fails its tiles are read one by one, so that one bad
    tile of the file costs only the tiles that touch it.
    """
    grid, count = batch.tiles.grid, len(batch.tiles)
    images = np.zeros((count, grid.tile_px, grid.tile_px, 3), np.uint8)
    valid = np.zeros(count, np.float32)
    readable = np.zeros(count, np.bool_)
    error = ""
    for first, length in _runs(batch):
        try:
            _read_run(reader, batch, first, length, images, valid)
        except PixelsUnreadable:
            for index in range(first, first + length):
                problem = _read_tile(reader, batch, index, images, valid)
                readable[index] = problem is None
                error = error if problem is None else str(problem)
        else:
            readable[first : first + length] = True
    return TilePixels(images, valid, readable, error)


def _runs(batch: TileBatch) -> Iterator[tuple[int, int]]:
    """First index and length of each run of neighbours in one row."""
    rows, columns, grid = batch.tiles.rows, batch.tiles.columns, batch.tiles.grid
    longest = 1 + max(0, LARGEST_RUN_PX - grid.tile_px) // grid.stride_px
    first = 0
    for index in range(1, len(rows) + 1):
        follows = (
            index < len(rows)
            and rows[index] == rows[first]
            and columns[index] == columns[index - 1] + 1
            and index - first < longest
        )
        if not follows:
            yield first, index - first
            first = index


def _read_run(
    reader: SlideReader,
    batch: TileBatch,
    first: int,
    length: int,
    images: NDArray[np.uint8],
    valid: NDArray[np.float32],
) -> None:
    grid = batch.tiles.grid
    row, column = int(batch.tiles.rows[first]), int(batch.tiles.columns[first])
    box = grid.box(row, column, columns=length)
    pixels = reader.read(box, grid.run_px(length), grid.tile_px)
    for step in range(length):
        part = slice(step * grid.stride_px, step * grid.stride_px + grid.tile_px)
        images[first + step] = pixels.rgb[:, part]
        tile = Pixels(pixels.rgb[:, part], pixels.valid[:, part])
        valid[first + step] = _valid_share(tile, grid.box(row, column + step), grid)


def _read_tile(
    reader: SlideReader,
    batch: TileBatch,
    index: int,
    images: NDArray[np.uint8],
    valid: NDArray[np.float32],
) -> PixelsUnreadable | None:
    for attempt in range(ATTEMPTS):
        try:
            _read_run(reader, batch, index, 1, images, valid)
        except PixelsUnreadable as error:
            if attempt == ATTEMPTS - 1:
                return error
        else:
            break
    return None


def _valid_share(pixels: Pixels, box: Box, grid: TileGrid) -> float:
    """Share of the tile's part inside the bounds that was scanned."""
    bounds = grid.bounds
    wide = min(box.x + box.width, bounds.x + bounds.width) - max(box.x, bounds.x)
    tall = min(box.y + box.height, bounds.y + bounds.height) - max(box.y, bounds.y)
    inside = max(wide, 0.0) * max(tall, 0.0) / (box.width * box.height)
    return min(1.0, float(pixels.valid.mean()) / inside) if inside > 0 else 0.0
