"""Decoders of one compressed TIFF tile: bytes in, RGB out, at full size or shrunk while decoding.

A decoder is never trusted with the size of what it makes: each checks what the tile says of itself
against what the directory says, before memory is taken.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

JPEG_SHRINKS = (1, 2, 4, 8)
"""What libjpeg-turbo can divide both sides by, each pixel being the mean of those it replaces."""

RGB_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""An APP14 segment of transform 0: the three components are red, green and blue (Adobe Technical
Note 5116, section 18). TIFF says so in a tag that a JPEG decoder never sees."""


class TileCodec(Protocol):
    """Decodes the tiles of one level."""

    @property
    def shrinks(self) -> tuple[int, ...]:
        """What the sides can be divided by while decoding; 1 is among them."""
        ...

    def decode(
        self, data: bytes, shrink: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """One tile as tile height / shrink x tile width / shrink x 3, RGB.

        It may be made in `out`, which is contiguous and has that shape; what is returned counts.
        Raises `ValueError` or a codec's `RuntimeError` where the data is damaged.
        """
        ...


@dataclass(frozen=True, slots=True)
class JpegCodec:
    """Baseline or progressive JPEG of any subsampling through libjpeg-turbo."""

    width_px: int
    height_px: int
    tables: bytes
    """The directory's JPEGTables (an abbreviated stream of its own), or nothing."""
    rgb: bool
    """Whether the components are red, green and blue rather than YCbCr."""
    even: bool = True
    """Whether colour has the same resolution down and across (4:4:4, 4:2:0). With 4:2:2 the decoder
    shrinks colour by too much along one side: 2 to 3 grey levels from the mean."""

    @property
    def shrinks(self) -> tuple[int, ...]:
        """Those that divide both sides."""
        if not self.even:
            return (1,)
        sides = (self.width_px, self.height_px)
        return tuple(s for s in JPEG_SHRINKS if all(side % s == 0 for side in sides))

    def decode(
        self, data: bytes, shrink: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """One tile (see `TileCodec`); each pixel is the mean of shrink x shrink."""
        height, width = self.height_px // shrink, self.width_px // shrink
        # The buffer is all that may be written: a tile that says it is larger is refused.
        buffer = np.empty((height, width, 3), np.uint8) if out is None else out
        if self.tables or self.rgb:
            data = self.complete(data)
        if shrink == 1:
            image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=buffer)
        else:
            image = simplejpeg.decode_jpeg(
                data, "RGB", min_height=height, min_width=width, buffer=buffer
            )
        if image.shape != buffer.shape:
            raise ValueError(
                f"tile of {image.shape[1]} x {image.shape[0]} px, not {width} x {height}"
            )
        return buffer

    def complete(self, data: bytes) -> bytes:
        """A tile's abbreviated stream as a JPEG file: tables and colours after the start."""
        if not (self.tables or self.rgb):
            return data
        if data[:2] != b"\xff\xd8":
            raise ValueError(f"not a JPEG: starts with {data[:2].hex()}")
        marker = RGB_MARKER if self.rgb else b""
        return b"".join((b"\xff\xd8", marker, self.tables[2:-2], data[2:]))


@dataclass(frozen=True, slots=True)
class Jpeg2000Codec:
    """JPEG 2000 codestreams as Aperio writes them (compressions 33003 and 33005)."""

    width_px: int
    height_px: int
    ycbcr: bool
    """Whether the components are YCbCr (33003); the codestream does not say."""

    shrinks = (1,)
    """Its own lower resolutions are wavelet averages, not means of areas."""

    def decode(
        self, data: bytes, shrink: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """One tile (see `TileCodec`)."""
        size = codestream_size(data)
        if size != (self.width_px, self.height_px):
            raise ValueError(f"tile of {size[0]} x {size[1]} px")
        image = np.asarray(imagecodecs.jpeg2k_decode(data))
        if image.dtype != np.uint8 or image.shape != (self.height_px, self.width_px, 3):
            raise ValueError(f"tile of kind {image.dtype}, {image.shape}")
        if self.ycbcr:
            image = np.asarray(Image.fromarray(image, "YCbCr").convert("RGB"))
        return image


@dataclass(frozen=True, slots=True)
class PlainCodec:
    """Raw pixels, LZW, deflate, Zstandard and PackBits, with or without horizontal predictor."""

    width_px: int
    height_px: int
    compression: str
    """Name of the decoder in imagecodecs, or "none"."""
    predictor: bool

    shrinks = (1,)

    def decode(
        self, data: bytes, shrink: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """One tile (see `TileCodec`)."""
        size = self.width_px * self.height_px * 3
        if self.compression == "none":
            pixels = data
        else:
            pixels = getattr(imagecodecs, f"{self.compression}_decode")(data, out=size)
        if len(pixels) < size:
            raise ValueError(f"{len(pixels)} bytes of pixels, not {size}")
        image = np.frombuffer(pixels, np.uint8, size).reshape(self.height_px, self.width_px, 3)
        return np.cumsum(image, axis=1, dtype=np.uint8) if self.predictor else image


def codestream_size(data: bytes) -> tuple[int, int]:
    """Width and height in px that a JPEG 2000 codestream states (ISO/IEC 15444-1, A.5.1).

    Raises `ValueError` where it is no codestream, or one whose tile does not begin at 0.
    """
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 24:
        raise ValueError("not a JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack(">4I", data[8:24])
    if left or top:
        raise ValueError("a codestream that does not begin at 0")
    return right, bottom


@dataclass(frozen=True, slots=True)
class JpegColours:
    """What a JPEG stream says of its components."""

    components: tuple[int, ...]
    """Their identifiers; 82, 71, 66 are the letters R, G, B."""
    bits: int
    transform: int | None
    """Of an Adobe marker: 0 is RGB, 1 is YCbCr; None without marker."""
    even: bool
    """Whether every component has the same resolution down as across."""


def jpeg_colours(data: bytes) -> JpegColours:
    """Read a JPEG's markers up to its frame header.

    Raises `ValueError` where there is none.
    """
    transform, at = None, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            transform = body[11]
        # SOF0 to SOF15 but for the tables and reserved ones among them (ISO/IEC 10918-1, B.1).
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            parts = [body[at : at + 3] for at in range(6, 6 + 3 * body[5], 3)]
            # Horizontal and vertical sampling factors are the halves of one byte (B.2.2).
            ratios = {(part[1] >> 4) / max(1, part[1] & 15) for part in parts if len(part) == 3}
            identifiers = tuple(part[0] for part in parts if part)
            return JpegColours(identifiers, body[0], transform, even=len(ratios) == 1)
        at += 2 + length
    raise ValueError("no frame header in the JPEG")


_proofs: tuple[type[TileCodec], ...] = (JpegCodec, Jpeg2000Codec, PlainCodec)
