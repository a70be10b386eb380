"""Small slides made for tests: pyramidal tiled TIFF with chosen tags."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colours that differ everywhere, so that a shift shows."""
    y, x = np.mgrid[:height, :width]
    red = 128 + 90 * np.sin(x / 37.0)
    green = 128 + 90 * np.sin(y / 29.0)
    blue = 128 + 90 * np.sin((x + y) / 53.0)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def write_tiff(
    path: Path,
    image: NDArray[np.uint8],
    *,
    mpp: float | None = 0.5,
    levels: int = 1,
    tile: int = 256,
    compression: str | None = "deflate",
) -> Path:
    """A tiled TIFF pyramid; each level halves the one before by its mean."""
    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            if level:
                height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
                quarters = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
                image = quarters.mean((1, 3)).round().astype(np.uint8)
            tiff.write(
                image,
                tile=(tile, tile),
                photometric="rgb",
                compression=compression,
                subfiletype=1 if level else 0,
                metadata=None,
                software="",
                resolution=resolution,
                resolutionunit="CENTIMETER" if resolution else None,
            )
    return path


def tile_offsets(path: Path, level: int = 0) -> tuple[list[int], list[int], int, int]:
    """Offsets and byte counts of a level's tiles, and where in the file those tables stand."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        assert isinstance(page, tifffile.TiffPage)
        tags = page.tags
        return (
            list(page.dataoffsets),
            list(page.databytecounts),
            tags["TileOffsets"].valueoffset,
            tags["TileByteCounts"].valueoffset,
        )


def patch_table(path: Path, at: int, index: int, value: int) -> None:
    """Overwrite one 4-byte entry of a classic TIFF's table."""
    with path.open("r+b") as file:
        file.seek(at + 4 * index)
        file.write(value.to_bytes(4, "little"))


def zero_tiles(path: Path, indices: Iterable[int]) -> None:
    """Overwrite the data of some tiles of level 0 with zeros, as a bad disk or copy does."""
    offsets, counts, _, _ = tile_offsets(path)
    with path.open("r+b") as file:
        for index in indices:
            file.seek(offsets[index])
            file.write(b"\0" * counts[index])
