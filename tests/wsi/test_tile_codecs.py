"""Compressed tiles become the pixels that were compressed, or an error; never something larger."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
import simplejpeg

from slidetriage.wsi.tile_codecs import (
    Jpeg2000Codec,
    JpegCodec,
    PlainCodec,
    codestream_size,
    jpeg_colours,
)
from tiny_slides import gradient

IMAGE = gradient(64, 96)


def encode(subsampling: str = "420") -> bytes:
    data: bytes = simplejpeg.encode_jpeg(IMAGE, 90, colorsubsampling=subsampling)
    return data


@pytest.mark.parametrize("subsampling", ["444", "420"])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_a_shrunk_jpeg_is_the_mean_of_the_whole_one(subsampling: str, shrink: int) -> None:
    codec = JpegCodec(96, 64, b"", rgb=False)
    whole = codec.decode(encode(subsampling), 1).astype(float)
    means = whole.reshape(64 // shrink, shrink, 96 // shrink, shrink, 3).mean((1, 3))
    shrunk = codec.decode(encode(subsampling), shrink)
    assert shrunk.shape == means.shape
    assert np.abs(shrunk - means).mean() < 1
    assert np.abs(whole - IMAGE).mean() < 6


def test_tables_and_colours_come_from_the_directory() -> None:
    """As Aperio writes it: tables apart, three components of RGB, no marker that says so."""
    data: bytes = imagecodecs.jpeg8_encode(IMAGE, level=95, colorspace="RGB", outcolorspace="RGB")
    plain = number_components(strip(data, 0xEE))  # no Adobe marker, no letters R, G, B
    tables, rest = split_tables(plain)
    assert jpeg_colours(rest).transform is None
    codec = JpegCodec(96, 64, tables, rgb=True)
    assert jpeg_colours(codec.complete(rest)).transform == 0
    assert np.abs(codec.decode(rest, 1).astype(int) - IMAGE).mean() < 2
    mistaken = JpegCodec(96, 64, tables, rgb=False).decode(rest, 1)
    assert np.abs(mistaken.astype(int) - IMAGE).mean() > 20, "the marker is what makes it right"


@pytest.mark.parametrize(
    ("subsampling", "even"), [("444", True), ("420", True), ("422", False), ("440", False)]
)
def test_colour_of_uneven_resolution_is_noticed(subsampling: str, even: bool) -> None:
    assert jpeg_colours(encode(subsampling)).even == even
    assert JpegCodec(96, 64, b"", rgb=False, even=False).shrinks == (1,)


def test_only_shrinks_that_divide_the_sides_are_offered() -> None:
    assert JpegCodec(240, 240, b"", rgb=False).shrinks == (1, 2, 4, 8)
    assert JpegCodec(244, 240, b"", rgb=False).shrinks == (1, 2, 4)


def test_a_tile_is_made_in_the_memory_given() -> None:
    out = np.empty((32, 48, 3), np.uint8)
    assert JpegCodec(96, 64, b"", rgb=False).decode(encode(), 2, out) is out


@pytest.mark.parametrize("size", [(48, 64), (96, 32), (192, 128)])
def test_a_tile_of_another_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"tile|buffer"):
        JpegCodec(*size, b"", rgb=False).decode(encode(), 1)


def test_a_jpeg_that_says_it_is_huge_takes_no_memory() -> None:
    data = bytearray(encode())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(ValueError, match=r"buffer|array of size"):
        JpegCodec(96, 64, b"", rgb=False).decode(bytes(data), 1)


@pytest.mark.parametrize("damage", ["zeros", "cut", "noise", "empty"])
def test_damaged_jpegs_are_errors(damage: str) -> None:
    data = encode()
    rng = np.random.default_rng(1)
    broken = {
        "zeros": b"\0" * len(data),
        "cut": data[: len(data) // 2],
        "noise": data[:700] + rng.bytes(200) + data[900:],
        "empty": b"",
    }[damage]
    for codec in (JpegCodec(96, 64, b"", rgb=False), JpegCodec(96, 64, b"", rgb=True)):
        with pytest.raises(ValueError):  # noqa: PT011 - libjpeg's words differ
            codec.decode(broken, 1)


def test_jpeg_2000_in_both_of_aperios_colours() -> None:
    rgb = imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="j2k", mct=False)
    got = Jpeg2000Codec(96, 64, ycbcr=False).decode(rgb, 1)
    assert np.abs(got.astype(int) - IMAGE).max() <= 1
    from PIL import Image

    ycbcr = np.asarray(Image.fromarray(IMAGE).convert("YCbCr"))
    data = imagecodecs.jpeg2k_encode(ycbcr, level=0, codecformat="j2k", mct=False)
    got = Jpeg2000Codec(96, 64, ycbcr=True).decode(data, 1)
    assert np.abs(got.astype(int) - IMAGE).mean() < 2, "YCbCr in bytes is itself that coarse"


def test_jpeg_2000_of_another_size_is_refused_before_it_is_decoded() -> None:
    data = bytearray(imagecodecs.jpeg2k_encode(IMAGE, level=0, codecformat="j2k"))
    assert codestream_size(bytes(data)) == (96, 64)
    data[8:16] = struct.pack(">II", 1 << 20, 1 << 20)
    with pytest.raises(ValueError, match="1048576 x 1048576"):
        Jpeg2000Codec(96, 64, ycbcr=False).decode(bytes(data), 1)
    with pytest.raises(ValueError, match="not a JPEG 2000"):
        Jpeg2000Codec(96, 64, ycbcr=False).decode(b"\0" * 100, 1)


@pytest.mark.parametrize("compression", ["none", "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize("predictor", [False, True])
def test_plain_tiles(compression: str, predictor: bool) -> None:
    stored = np.diff(IMAGE, axis=1, prepend=np.uint8(0)) if predictor else IMAGE
    raw = stored.astype(np.uint8).tobytes()
    data = raw if compression == "none" else getattr(imagecodecs, f"{compression}_encode")(raw)
    codec = PlainCodec(96, 64, compression, predictor)
    np.testing.assert_array_equal(codec.decode(data, 1), IMAGE)


@pytest.mark.parametrize("compression", ["none", "lzw", "zlib", "zstd", "packbits"])
def test_plain_tiles_cut_short_are_errors(compression: str) -> None:
    raw = IMAGE.tobytes()
    data = raw if compression == "none" else getattr(imagecodecs, f"{compression}_encode")(raw)
    with pytest.raises((ValueError, RuntimeError)):
        PlainCodec(96, 64, compression, predictor=False).decode(data[: len(data) // 2], 1)


def test_a_deflate_bomb_takes_no_more_than_a_tile() -> None:
    bomb = imagecodecs.zlib_encode(bytes(1 << 26))
    with pytest.raises((ValueError, RuntimeError)):
        PlainCodec(96, 64, "zlib", predictor=False).decode(bomb, 1)


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and their bytes up to the scan, and the scan."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found.append((data[at + 1], data[at : at + 2 + length]))
        at += 2 + length
    return [*found, (0xDA, data[at:])]


def number_components(data: bytes) -> bytes:
    """Component identifiers 0, 1, 2, as Aperio has them."""
    changed = bytearray(data)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for number in range(3):
        changed[frame + 10 + 3 * number] = changed[scan + 5 + 2 * number] = number
    return bytes(changed)


def strip(data: bytes, marker: int) -> bytes:
    return data[:2] + b"".join(part for found, part in segments(data) if found != marker)


def split_tables(data: bytes) -> tuple[bytes, bytes]:
    """Quantisation and Huffman tables as a stream of their own, and the rest."""
    parts = segments(data)
    tables = b"".join(part for marker, part in parts if marker in (0xDB, 0xC4))
    rest = b"".join(part for marker, part in parts if marker not in (0xDB, 0xC4))
    return data[:2] + tables + b"\xff\xd9", data[:2] + rest
