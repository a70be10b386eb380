"""Where a tiled TIFF keeps its tiles, and how they are coded: what the direct reader needs to know.

tifffile reads the directories. A layout that the direct reader cannot read exactly right is said
to be `Unsuited`, and the slide is left to OpenSlide.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import TiffPage

from .ome import pyramid
from .tile_codecs import Jpeg2000Codec, JpegCodec, PlainCodec, TileCodec, jpeg_colours

_RGB, _YCBCR = 2, 6
_APERIO_YCBCR, _APERIO_RGB = 33003, 33005

_PLAIN = {1: "none", 5: "lzw", 8: "zlib", 32946: "zlib", 50000: "zstd", 32773: "packbits"}
"""TIFF's numbers of compressions, and imagecodecs' names of their decoders."""

_DAMAGE = (tifffile.TiffFileError, struct.error, ValueError, KeyError, TypeError, OSError)
"""What tifffile raises for directories that make no sense."""

HEAD_BYTES = 1 << 16
"""As much of a JPEG tile as is looked at for its markers."""


class Unsuited(Exception):
    """The direct reader does not take this file; the message says why, as half a sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class TiffLevel:
    """One resolution: its size, its tiles' places in the file, and their decoder."""

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    offsets: NDArray[np.int64]
    """Of each tile in the file, row by row."""
    byte_counts: NDArray[np.int64]
    """Compressed size of each tile; 0 is a tile that was never written."""
    codec: TileCodec
    shrinks: tuple[int, ...]
    """What tiles can be divided by while they are decoded, the most first."""

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width_px // self.tile_width_px)

    @property
    def rows(self) -> int:
        """Tiles below each other."""
        return -(-self.height_px // self.tile_height_px)

    @property
    def tile_bytes(self) -> int:
        """Of one decoded tile."""
        return self.tile_width_px * self.tile_height_px * 3

    @property
    def sparse(self) -> bool:
        """Whether tiles are missing."""
        return bool((self.byte_counts == 0).any())


def read_layout(path: Path, sizes: tuple[tuple[int, int], ...]) -> tuple[TiffLevel, ...]:
    """The levels of a TIFF that have the `sizes` (width, height in px), in that order.

    Raises `Unsuited` where a level is missing or kept in a way that is not read directly.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = {(int(page.imagewidth), int(page.imagelength)): page for page in _tiled(tiff)}
            missing = [size for size in sizes if size not in pages]
            if missing:
                raise Unsuited(f"no tiled directory of {missing[0][0]} x {missing[0][1]} px")
            with path.open("rb") as file:
                return tuple(_level(pages[size], file.fileno()) for size in sizes)
    except (
        tifffile.TiffFileError,
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        OSError,
    ) as error:
        raise Unsuited(f"its directories are not understood ({error})") from error


def _tiled(tiff: tifffile.TiffFile) -> Iterator[TiffPage]:
    """Every tiled directory, the later ones first, so that the first of a size is kept."""
    pages = [page for page in tiff.pages if isinstance(page, TiffPage) and page.is_tiled]
    yield from reversed(pages)
    if tiff.is_ome:
        yield from pyramid(tiff)


def _level(page: TiffPage, file: int) -> TiffLevel:
    if (page.samplesperpixel, page.bitspersample, int(page.planarconfig)) != (3, 8, 1):
        raise Unsuited("its pixels are not three interleaved bytes")
    if int(page.fillorder) != 1:
        raise Unsuited("its bits are in reverse order")
    offsets = np.asarray(page.dataoffsets, np.int64)
    counts = np.asarray(page.databytecounts, np.int64)
    width, height = int(page.tilewidth), int(page.tilelength)
    codec = _codec(page, width, height, file)
    level = TiffLevel(
        int(page.imagewidth), int(page.imagelength), width, height, offsets, counts, codec,
        tuple(sorted(codec.shrinks, reverse=True)),
    )  # fmt: skip
    if not len(offsets) == len(counts) == level.rows * level.columns:
        raise Unsuited(f"{len(offsets)} tiles where there should be {level.rows * level.columns}")
    return level


def _codec(page: TiffPage, width: int, height: int, file: int) -> TileCodec:
    compression, photometric = int(page.compression), int(page.photometric)
    if photometric not in (_RGB, _YCBCR):
        raise Unsuited(f"photometric interpretation {photometric}")
    if compression == 7:
        codec = JpegCodec(width, height, bytes(page.jpegtables or b""), photometric == _RGB)
        return replace(codec, even=_check_colours(page, codec, file))
    if compression in (_APERIO_YCBCR, _APERIO_RGB):
        return Jpeg2000Codec(width, height, ycbcr=compression == _APERIO_YCBCR)
    if compression in _PLAIN and photometric == _RGB and int(page.predictor) in (1, 2):
        return PlainCodec(width, height, _PLAIN[compression], predictor=int(page.predictor) == 2)
    raise Unsuited(f"compression {compression} with photometric interpretation {photometric}")


def _check_colours(page: TiffPage, codec: JpegCodec, file: int) -> bool:
    """The tag decides on colours; a tile whose own marker contradicts it is left to OpenSlide.

    Returns whether colour has the same resolution down and across.
    """
    first = next((i for i, count in enumerate(page.databytecounts) if count), None)
    if first is None:
        return True
    count = min(int(page.databytecounts[first]), HEAD_BYTES)
    said = jpeg_colours(codec.complete(os.pread(file, count, int(page.dataoffsets[first]))))
    if said.bits != 8 or len(said.components) != 3:
        raise Unsuited(f"JPEG of {len(said.components)} components of {said.bits} bits")
    letters = said.components == tuple(b"RGB")
    if said.transform not in ((0,) if codec.rgb else (None, 1)) or (letters and not codec.rgb):
        raise Unsuited("its JPEG tiles contradict its tags about colours")
    return said.even
