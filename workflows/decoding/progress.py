"""Memory that a decoder and its owner share: tiles, and a sign of life."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = mmap.PAGESIZE
"""Before the tiles: two int64, the signs of life counted and the tile in work."""

NO_TILE = -1


class SharedMemory:
    """A file without a name, mapped by both processes."""

    def __init__(self, handle: int) -> None:
        self._map = mmap.mmap(handle, os.fstat(handle).st_size)
        self._numbers = np.frombuffer(self._map, np.int64, 2)

    @property
    def signs(self) -> int:
        """Signs of life so far."""
        return int(self._numbers[0])

    @property
    def tile(self) -> int:
        """Index within its batch of the tile in work; NO_TILE where it is none."""
        return int(self._numbers[1])

    def sign(self, tile: int = NO_TILE) -> None:
        """Give a sign of life, and say which tile comes next."""
        self._numbers[1] = tile
        self._numbers[0] += 1

    def images(self, count: int, side_px: int) -> NDArray[np.uint8]:
        """Room for the tiles of a batch: count x side_px x side_px x 3."""
        size = count * side_px * side_px * 3
        pixels = np.frombuffer(self._map, np.uint8, size, HEADER_BYTES)
        return pixels.reshape(count, side_px, side_px, 3)


def make_shared_file(image_bytes: int) -> int:
    """A file handle on memory with room for so many bytes of tiles; pages cost nothing until used.

    The caller closes it.
    """
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("slidetriage-tiles")
    else:  # pragma: no cover - not on Linux
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, HEADER_BYTES + image_bytes)
    return handle
