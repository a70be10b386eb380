"""Reads the pixels of a batch of tiles, and says which could not be read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import PixelsUnreadable, UsageError
from slidetriage.wsi import Box, SlideReader

from .tiles import TileBatch, TileGrid

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


def read_tiles(
    reader: SlideReader,
    batch: TileBatch,
    *,
    memory: NDArray[np.uint8] | None = None,
    skipped: Collection[int] = (),
    before_tile: Callable[[int], None] | None = None,
) -> TilePixels:
    """Read every tile of `batch` at exactly its mpp.

    The reader keeps what neighbours share, and batches are blocks of neighbours, so each part of
    the file is decoded once. One bad tile of the file costs only the tiles that touch it.

    Parameters
    ----------
    memory
        At least N x tile_px x tile_px x 3, of any content: the images are made there.
    skipped
        Indices of tiles not to be tried; they are unreadable.
    before_tile
        Is told the index of every tile before it is read.
    """
    grid, count = batch.tiles.grid, len(batch.tiles)
    shape = (grid.tile_px, grid.tile_px, 3)
    images = np.empty((count, *shape), np.uint8) if memory is None else memory[:count]
    if images.shape != (count, *shape):
        raise UsageError(f"memory for tiles is {images.shape}; it must be {(count, *shape)}")
    valid = np.zeros(count, np.float32)
    readable = np.zeros(count, np.bool_)
    error = ""
    places = zip(batch.tiles.rows.tolist(), batch.tiles.columns.tolist(), strict=True)
    for index, (row, column) in enumerate(places):
        if index in skipped:
            images[index] = 0
            continue
        if before_tile is not None:
            before_tile(index)
        box = grid.box(row, column)
        outcome = _read_tile(reader, box, images[index])
        if isinstance(outcome, PixelsUnreadable):
            images[index] = 0
            error = str(outcome)
        else:
            readable[index] = True
            valid[index] = _share_inside(outcome, box, grid)
    return TilePixels(images, valid, readable, error)


def _read_tile(reader: SlideReader, box: Box, out: NDArray[np.uint8]) -> float | PixelsUnreadable:
    """The share of the tile that was scanned, or why it could not be read."""
    for attempt in range(ATTEMPTS):
        try:
            pixels = reader.read(box, out.shape[1], out.shape[0], out=out)
        except PixelsUnreadable as error:
            if attempt == ATTEMPTS - 1:
                return error
        else:
            return 1.0 if pixels.complete else float(pixels.valid.mean())
    raise AssertionError("unreachable")


def _share_inside(share: float, box: Box, grid: TileGrid) -> float:
    """Of the tile's part inside the bounds, from the share of the whole tile."""
    bounds = grid.bounds
    wide = min(box.x + box.width, bounds.x + bounds.width) - max(box.x, bounds.x)
    tall = min(box.y + box.height, bounds.y + bounds.height) - max(box.y, bounds.y)
    inside = max(wide, 0.0) * max(tall, 0.0) / (box.width * box.height)
    return min(1.0, share / inside) if inside > 0 else 0.0
