"""Decoded tiles of one TIFF file, each decoded once for the neighbours that share it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .tiff_layout import TiffLevel

CACHE_BYTES = 64 << 20
"""Decoded tiles that are kept: those under a row of output tiles and the next row."""


@dataclass(frozen=True, slots=True)
class Source:
    """What pixels are taken from: one level, shrunk by the decoder."""

    index: int
    """Of the level in the slide."""
    level: TiffLevel
    shrink: int


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """A decoded tile, perhaps shrunk."""

    rgb: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None
    """None where all of it was scanned."""


class TileStore:
    """Reads and decodes tiles of a file that is open; threads may share it."""

    def __init__(self, path: Path, background_rgb: tuple[int, int, int]) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._background = np.asarray(background_rgb, np.uint8)
        self._kept: OrderedDict[tuple[int, int, int], Tile] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def __del__(self) -> None:
        # Closed with the last user: a thread may still read while another lets the slide go.
        if hasattr(self, "_file"):
            os.close(self._file)

    def tile(
        self, source: Source, place: tuple[int, int], out: NDArray[np.uint8] | None = None
    ) -> Tile:
        """The tile at a row and column, decoded now or a moment ago.

        With `out` the tile is not kept: it is made there if it can be, and what is returned is good
        until `out` is used again. Raises `ValueError`, `RuntimeError`, `OSError` or `MemoryError`
        where it is damaged.
        """
        key = (source.index, source.shrink, place[0] * source.level.columns + place[1])
        with self._lock:
            tile = self._kept.get(key)
            if tile is not None:
                self._kept.move_to_end(key)
                return tile
        tile = self._decode(source, place, key[2], out)
        if out is None:
            self._keep(key, tile)
        return tile

    def _keep(self, key: tuple[int, int, int], tile: Tile) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = tile
                self._kept_bytes += tile.rgb.nbytes
            while self._kept_bytes > CACHE_BYTES:
                self._kept_bytes -= self._kept.popitem(last=False)[1].rgb.nbytes

    def _decode(
        self,
        source: Source,
        place: tuple[int, int],
        number: int,
        out: NDArray[np.uint8] | None,
    ) -> Tile:
        (row, column), level, shrink = place, source.level, source.shrink
        tall, wide = level.tile_height_px, level.tile_width_px
        data = self._compressed(level, number)
        if not data:
            shape = (tall // shrink, wide // shrink)
            return Tile(np.broadcast_to(self._background, (*shape, 3)), np.zeros(shape, np.bool_))
        height = min(tall, level.height_px - row * tall)
        width = min(wide, level.width_px - column * wide)
        if (height, width) == (tall, wide):
            return Tile(level.codec.decode(data, shrink, out), None)
        # The tile reaches past the slide's edge; what is there is padding, not tissue.
        image = level.codec.decode(data, 1).copy()
        inside = np.zeros((tall, wide), np.bool_)
        inside[:height, :width] = True
        image[~inside] = self._background
        if shrink > 1:
            image = (_means(image, shrink) + 0.5).astype(np.uint8)
            inside = _means(inside[..., None], shrink)[..., 0] > 0.5
        return Tile(image, inside)

    def _compressed(self, level: TiffLevel, number: int) -> bytes:
        """A tile as it lies in the file; nothing where it was never written."""
        offset, count = int(level.offsets[number]), int(level.byte_counts[number])
        if count == 0:
            return b""
        if offset < 8 or offset + count > self._size:
            raise ValueError(f"{count} bytes from {offset} reach past the end at {self._size}")
        if count > 2 * level.tile_bytes + (1 << 16):
            raise ValueError(f"{count} bytes are more than twice its pixels")
        data = os.pread(self._file, count, offset)
        if len(data) < count:
            raise OSError(f"the file ended after {len(data)} of {count} bytes")
        return data


def _means(image: NDArray[np.generic], shrink: int) -> NDArray[np.float64]:
    """Mean of each shrink x shrink pixels of H x W x C."""
    height, width, channels = image.shape
    parts = image.reshape(height // shrink, shrink, width // shrink, shrink, channels)
    means: NDArray[np.float64] = parts.mean((1, 3))
    return means
