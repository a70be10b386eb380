"""The levels of a label image, written block by block from the canvas that was drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

CHUNK = 1_024
"""Side of a chunk in pixels, at every level."""

_PER_SHARD = 4  # chunks along each side of a shard
_SMALLEST_SIDE = 1_024


class Canvas:
    """Chunks of labels on disk, where they can be changed until an image is made of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.drawn: set[tuple[int, int]] = set()
        """Rows and columns of the chunks that hold something."""
        self._folder = folder
        self._codec = pa.Codec("zstd", compression_level=1)

    def load(self, row: int, column: int) -> NDArray[np.uint32]:
        """A chunk, which may be changed; zeros where nothing was drawn."""
        if (row, column) not in self.drawn:
            return np.zeros((CHUNK, CHUNK), np.uint32)
        packed = self._path(row, column).read_bytes()
        plain = self._codec.decompress(packed, 4 * CHUNK**2)
        return np.frombuffer(plain, np.uint32).reshape(CHUNK, CHUNK).copy()

    def save(self, row: int, column: int, chunk: NDArray[np.uint32]) -> None:
        """Keep a chunk, if there is something in it."""
        if chunk.any():
            self._path(row, column).write_bytes(
                self._codec.compress(np.ascontiguousarray(chunk), asbytes=True)
            )
            self.drawn.add((row, column))

    def _path(self, row: int, column: int) -> Path:
        return self._folder / f"{row}-{column}"


def choose_halvings(shape: tuple[int, int], levels: int | None = None) -> list[int]:
    """How many times each level is halved, until no side is over 1,024 px.

    With a number of `levels` that is not enough for a halving each, some are skipped; with more,
    the last levels are smaller still.

    >>> choose_halvings((5_000, 1_001))
    [0, 1, 2, 3]
    >>> choose_halvings((60_000, 100_000), levels=4)
    [0, 3, 5, 7]
    """
    needed = max(0, ceil(log2(max(shape) / _SMALLEST_SIDE)))
    count = needed + 1 if levels is None else levels
    if count > needed:
        return list(range(count))
    return [-(-needed * level // max(1, count - 1)) for level in range(count)]


def write_levels(
    group: zarr.Group, shape: tuple[int, int], canvas: Canvas, *, halvings: list[int], spare: Path
) -> None:
    """Write the finest level from the canvas and each other one from the one before it.

    `spare` is a folder to be made, for the canvases of the other levels. Nothing is read twice.
    """
    for halved in range(halvings[-1] + 1):
        size = -(-shape[0] // 2**halved), -(-shape[1] // 2**halved)
        wanted = halved in halvings
        array = _create(group, f"s{halvings.index(halved)}", size) if wanted else None
        coarser = Canvas(spare / str(halved))
        for row, column, block in _blocks(canvas):
            if array is not None:
                # What lies beyond the image is cut off, and with it the canvas's last rows.
                top, left = row * CHUNK, column * CHUNK
                kept = block[: max(size[0] - top, 0), : max(size[1] - left, 0)]
                array[top : top + kept.shape[0], left : left + kept.shape[1]] = kept
            for y, x in np.ndindex(_PER_SHARD // 2, _PER_SHARD // 2):
                part = block[2 * y * CHUNK :: 2, 2 * x * CHUNK :: 2][:CHUNK, :CHUNK]
                coarser.save(row // 2 + y, column // 2 + x, part)
        canvas = coarser


def _blocks(canvas: Canvas) -> Iterator[tuple[int, int, NDArray[np.uint32]]]:
    """Row and column of the first chunk and the labels of all blocks that hold something."""
    side = _PER_SHARD * CHUNK
    block = np.empty((side, side), np.uint32)
    begins = {
        (row - row % _PER_SHARD, column - column % _PER_SHARD) for row, column in canvas.drawn
    }
    for row, column in sorted(begins):
        for y, x in np.ndindex(_PER_SHARD, _PER_SHARD):
            place = slice(y * CHUNK, (y + 1) * CHUNK), slice(x * CHUNK, (x + 1) * CHUNK)
            block[place] = canvas.load(row + y, column + x)
        yield row, column, block


def _create(group: zarr.Group, path: str, shape: tuple[int, int]) -> zarr.Array[Any]:
    kinds: dict[str, Any] = (
        {
            "serializer": BytesCodec(endian="little"),
            "compressors": (ZstdCodec(level=1), Crc32cCodec()),
            "dimension_names": ("y", "x"),
            # A file per chunk would be some 6,000 for a million cells, and 16 times fewer so.
            "shards": (_PER_SHARD * CHUNK, _PER_SHARD * CHUNK),
        }
        if group.metadata.zarr_format == 3
        else {
            # QuPath reads zlib, and neither Zstandard nor shards.
            "compressors": {"id": "zlib", "level": 1},
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    )
    return group.create_array(
        path,
        shape=shape,
        dtype="<u4",
        chunks=(CHUNK, CHUNK),
        fill_value=0,
        config={"write_empty_chunks": False},
        **kinds,
    )
