"""TIFF files put together part by part, so that every number in them can be a lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = (
    254,
    256,
    257,
    258,
    259,
    262,
    270,
)
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS = 273, 277, 278, 279
X_RESOLUTION, Y_RESOLUTION, PLANAR, RESOLUTION_UNIT, COLOUR_MAP = 282, 283, 284, 296, 320
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES = 322, 323, 324, 325, 338
SAMPLE_FORMAT, YCBCR_SUBSAMPLING, ICC_PROFILE = 339, 530, 34675

_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1}

Image8 = NDArray[np.uint8]
Encode = Callable[[Image8], bytes]
Value = bytes | Sequence[int]


@dataclass(slots=True, eq=False)
class Directory:
    """One image file directory; `lies` replaces entries of its tables of offsets and counts."""

    tags: dict[int, tuple[int, Value]]
    blocks: list[bytes]
    offset_lies: dict[int, int] = field(default_factory=dict)
    count_lies: dict[int, int] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[int, int]:
        """The tags that hold the places of its data."""
        tiled = TILE_WIDTH in self.tags
        return (TILE_OFFSETS, TILE_COUNTS) if tiled else (STRIP_OFFSETS, STRIP_COUNTS)

    def set(self, tag: int, kind: int, *values: int) -> Directory:
        """Give a tag other values."""
        self.tags[tag] = (kind, values)
        return self

    def zero(self, *numbers: int) -> Directory:
        """Overwrite the data of some tiles with zeros, as a bad disk or copy does."""
        for number in numbers:
            self.blocks[number] = bytes(len(self.blocks[number]))
        return self

    def omit(self, *numbers: int) -> Directory:
        """Say of some tiles that they were never written."""
        for number in numbers:
            self.offset_lies[number] = self.count_lies[number] = 0
        return self

    def _entries(self, offsets: list[int]) -> list[tuple[int, int, int, bytes]]:
        counts = [len(block) for block in self.blocks]
        for table, lies in ((offsets, self.offset_lies), (counts, self.count_lies)):
            for number, value in lies.items():
                table[number] = value
        places, sizes = self.tables
        tags = {places: (LONG, offsets), sizes: (LONG, counts), **self.tags}
        return [(tag, *_packed(*tags[tag])) for tag in sorted(tags)]

    def size(self) -> int:
        """Bytes that the directory and its values take."""
        entries = self._entries([0] * len(self.blocks))
        return (
            6 + 12 * len(entries) + sum(len(e[3]) + len(e[3]) % 2 for e in entries if len(e[3]) > 4)
        )

    def packed(self, at: int, offsets: list[int], after: int) -> bytes:
        """The directory as it lies at `at`, its values behind it; `after` is the next one."""
        entries = self._entries(list(offsets))
        values = at + 6 + 12 * len(entries)
        head, tail = struct.pack("<H", len(entries)), b""
        for tag, kind, count, data in entries:
            if len(data) <= 4:
                inline = data.ljust(4, b"\0")
            else:
                inline = struct.pack("<I", values + len(tail))
                tail += data + b"\0" * (len(data) % 2)
            head += struct.pack("<HHI", tag, kind, count) + inline
        return head + struct.pack("<I", after) + tail


def _packed(kind: int, values: Value) -> tuple[int, int, bytes]:
    if isinstance(values, bytes):
        data = values
    elif kind == SHORT:
        data = struct.pack(f"<{len(values)}H", *values)
    else:
        data = struct.pack(f"<{len(values)}I", *values)
    return kind, len(data) // _SIZES[kind], data


def write_parts(
    path: Path,
    directories: list[Directory],
    *,
    directories_first: bool = False,
    loop: bool = False,
) -> Path:
    """Write a little-endian TIFF: the data first, as Aperio does, or the directories first.

    With `loop` the last directory is followed by the first.
    """
    sizes = [directory.size() for directory in directories]
    room = sum(len(block) + len(block) % 2 for d in directories for block in d.blocks)
    start = 8 if directories_first else 8 + room
    places = [start + sum(sizes[:n]) for n in range(len(sizes))]
    at, data, packed = (8 + sum(sizes) if directories_first else 8), b"", b""
    for number, directory in enumerate(directories):
        offsets = []
        for block in directory.blocks:
            offsets.append(at + len(data))
            data += block + b"\0" * (len(block) % 2)
        last = number + 1 == len(directories)
        after = places[number + 1] if not last else places[0] if loop else 0
        packed += directory.packed(places[number], offsets, after)
    parts = (packed, data) if directories_first else (data, packed)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, places[0]) + b"".join(parts))
    return path


def as_jpeg(tile: Image8) -> bytes:
    """A tile as JPEG, YCbCr with colour at half resolution."""
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, "JPEG", quality=87, subsampling="4:2:0")
    return buffer.getvalue()


def as_jpeg2000(tile: Image8) -> bytes:
    """A tile as a JPEG 2000 codestream of RGB, as Aperio's compression 33005."""
    return bytes(imagecodecs.jpeg2k_encode(tile, level=40, codecformat="j2k"))


def as_raw(tile: Image8) -> bytes:
    """A tile's pixels as they are."""
    return tile.tobytes()


def tiled(image: NDArray[np.generic], tile: int, encode: Encode = as_jpeg) -> Directory:
    """A directory of tiles; at the edges the last pixel is repeated, as scanners do."""
    height, width = image.shape[:2]
    rest = ((0, -height % tile), (0, -width % tile), (0, 0))[: image.ndim]
    padded = np.pad(image, rest, mode="edge")
    blocks = [
        encode(np.ascontiguousarray(padded[top : top + tile, left : left + tile]))
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
    directory = _plain(width, height, blocks)
    directory.set(TILE_WIDTH, SHORT, tile).set(TILE_HEIGHT, SHORT, tile)
    return _coded(directory, encode)


def stripped(image: Image8, encode: Encode = as_jpeg) -> Directory:
    """A directory of a single strip: a thumbnail, a label, a macro image."""
    height, width = image.shape[:2]
    directory = _plain(width, height, [encode(image)])
    directory.set(ROWS_PER_STRIP, SHORT, height)
    return _coded(directory, encode)


def _plain(width: int, height: int, blocks: list[bytes]) -> Directory:
    directory = Directory({}, blocks)
    directory.set(WIDTH, LONG, width).set(HEIGHT, LONG, height)
    return directory.set(BITS, SHORT, 8, 8, 8).set(SAMPLES, SHORT, 3).set(PLANAR, SHORT, 1)


def _coded(directory: Directory, encode: Encode) -> Directory:
    if encode is as_jpeg:
        directory.set(COMPRESSION, SHORT, 7).set(PHOTOMETRIC, SHORT, 6)
        return directory.set(YCBCR_SUBSAMPLING, SHORT, 2, 2)
    compression = 33005 if encode is as_jpeg2000 else 1
    return directory.set(COMPRESSION, SHORT, compression).set(PHOTOMETRIC, SHORT, 2)


def describe(directory: Directory, text: str) -> Directory:
    """Give a directory its ImageDescription."""
    directory.tags[DESCRIPTION] = (ASCII, text.encode() + b"\0")
    return directory
