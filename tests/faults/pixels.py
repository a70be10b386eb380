"""C: slides that open, but whose pixels are damaged."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from random import Random

import numpy as np
import simplejpeg

from faults.painted import (
    COARSE,
    LABEL,
    LEVEL,
    MACRO,
    THUMBNAIL,
    aperio,
    cells_over,
    paint,
    tiles_under,
)
from faults.specimens import Specimen, done, failed, gaps, rejected
from faults.tiff_parts import (
    ICC_PROFILE,
    LONG,
    TILE_HEIGHT,
    TILE_WIDTH,
    UNDEFINED,
    Directory,
    as_jpeg2000,
    write_parts,
)

COPY = "copy the slide again|copy it again"

CELL, FIRST_CELL = (3, 3), (0, 5)
"""A cell amid the tissue of `paint()`, and the first with tissue."""

WITHIN_CELL, WITHIN_FIRST, WITHIN_OTHER = 85, 8, 88
"""Tiles of the file that lie wholly within these, and within one more."""


def make(here: Path) -> list[Specimen]:
    """Every specimen of section C but the one that kills its reader."""
    assert cells_over(WITHIN_CELL) == [CELL]
    assert cells_over(WITHIN_FIRST) == [FIRST_CELL]
    return [
        *_bad_tiles(here), *_beside_the_pixels(here), *_flips(here), *_tables(here),
        *_jpeg2000(here),
    ]  # fmt: skip


def _with_level(path: Path, level: Directory) -> Path:
    parts = aperio()
    parts[LEVEL].blocks = level.blocks
    parts[LEVEL].offset_lies, parts[LEVEL].count_lies = level.offset_lies, level.count_lies
    return write_parts(path, parts)


def _level() -> Directory:
    return aperio()[LEVEL]


def _cell_lost(case: int, path: Path, variant: str = "") -> Specimen:
    return Specimen(
        case, path, "DONE_WITH_GAPS", (), ("1 of", "could not be read"), variant,
        lost=(CELL,), touched=(CELL,),
    )  # fmt: skip


def _bad_tiles(here: Path) -> list[Specimen]:
    one = _with_level(here / "one-zero.svs", _level().zero(WITHIN_CELL))
    many = _with_level(here / "many-zero.svs", _level().zero(WITHIN_CELL, WITHIN_OTHER))
    first = _with_level(here / "first-zero.svs", _level().zero(WITHIN_FIRST))
    noise = _level()
    noise.blocks[WITHIN_CELL] = Random(1).randbytes(len(noise.blocks[WITHIN_CELL]))
    two_noise, two_cut = _level(), _level()
    for number in (WITHIN_CELL, WITHIN_OTHER):
        block = two_cut.blocks[number]
        two_cut.blocks[number] = block[: len(block) // 2]
        two_noise.blocks[number] = Random(number).randbytes(len(block))
    every = _level()
    every.zero(*range(len(every.blocks)))
    return [
        _cell_lost(25, one),
        _cell_lost(25, _with_level(here / "one-noise.svs", noise), "noise"),
        failed(26, many, "E_TOO_MANY_GAPS", "2 of", COPY),
        *(
            failed(
                26, _with_level(here / f"many-{name}.svs", level), "E_TOO_MANY_GAPS", "2 of", COPY,
                variant=name,
            )
            for name, level in (("noise", two_noise), ("cut", two_cut))
        ),
        failed(
            26, _with_level(here / "all-zero.svs", every), "E_TOO_MANY_GAPS E_TILE_DECODE",
            "could not be read|decode", COPY, variant="all",
        ),
        Specimen(
            27, first, "DONE_WITH_GAPS", (), ("1 of",), lost=(FIRST_CELL,), touched=(FIRST_CELL,)
        ),
    ]  # fmt: skip


def _beside_the_pixels(here: Path) -> list[Specimen]:
    found = []
    for case, number, name in (
        (28, LABEL, "label"), (29, MACRO, "macro"), (30, THUMBNAIL, "thumbnail"),
    ):  # fmt: skip
        parts = aperio()
        parts[number].zero(0)
        found.append(done(case, write_parts(here / f"bad-{name}.svs", parts)))
    coarse = aperio()
    coarse[COARSE].zero(*range(len(coarse[COARSE].blocks)))
    found.append(done(37, write_parts(here / "bad-coarse.svs", coarse), "level"))
    profile = aperio()
    profile[LEVEL].tags[ICC_PROFILE] = (UNDEFINED, Random(2).randbytes(1000))
    path = write_parts(here / "bad-profile.svs", profile)
    found.append(done(38, path, "icc|colour profile"))
    return found


def _flips(here: Path) -> list[Specimen]:
    """One bit of a tile's data; the decoder finds nothing wrong."""
    whole, flipped = _level(), _level()
    flipped.blocks[WITHIN_CELL] = _silent_flip(flipped.blocks[WITHIN_CELL])
    path = _with_level(here / "flip.svs", flipped)
    known = _with_level(here / "flip-known.svs", whole)
    digest = hashlib.sha256(known.read_bytes()).hexdigest()
    shutil.copy(path, known)
    known.with_name(f"{known.name}.sha256").write_text(digest)
    unnoticed = Specimen(32, path, "DONE", (), (), "without-sidecar", touched=(CELL,))
    return [
        rejected(32, known, "E_HASH", "sha256|hash|checksum", COPY, variant="sidecar"),
        unnoticed,
    ]


def _silent_flip(data: bytes) -> bytes:
    """The data with one bit changed, such that it decodes to other pixels without complaint."""
    right = simplejpeg.decode_jpeg(data)
    for at in range(len(data) * 2 // 3, len(data) - 2):
        changed = bytearray(data)
        changed[at] ^= 4
        try:
            pixels = simplejpeg.decode_jpeg(bytes(changed), strict=True)
        except ValueError:
            continue
        if 0xFF not in (data[at], changed[at]) and np.abs(pixels - right.astype(int)).max() > 20:
            return bytes(changed)
    raise AssertionError("every flip was noticed")


def _tables(here: Path) -> list[Specimen]:
    past, huge, missing = _level(), _level(), _level()
    past.offset_lies[WITHIN_CELL] = 1 << 31
    huge.count_lies[WITHIN_CELL] = (1 << 31) - 1
    without = tiles_under(*CELL)
    missing.omit(*without)
    around = tuple({cell for tile in without for cell in cells_over(tile)})
    return [
        _cell_lost(33, _with_level(here / "past-end.svs", past)),
        _cell_lost(34, _with_level(here / "huge-tile.svs", huge)),
        Specimen(
            31, _with_level(here / "missing.svs", missing), "DONE_WITH_GAPS", (), ("1 of",),
            lost=(CELL,), touched=around,
        ),
        *(_odd_tiles(here, name, sides) for name, sides in TILE_SIDES.items()),
    ]  # fmt: skip


TILE_SIDES = {"square": (100_000, 100_000), "tall": (64, 65_520), "none": (0, 0)}


def _odd_tiles(here: Path, name: str, sides: tuple[int, int]) -> Specimen:
    parts = aperio()
    parts[LEVEL].set(TILE_WIDTH, LONG, sides[0]).set(TILE_HEIGHT, LONG, sides[1])
    path = write_parts(here / f"tiles-{name}.svs", parts)
    says = f"{sides[0]} x {sides[1]}|invalid tiff"
    return rejected(35, path, "E_TOO_LARGE E_NOT_SLIDE", says, "convert|export|copy", variant=name)


def _jpeg2000(here: Path) -> list[Specimen]:
    """A part of the slide, since coding is slow: 4 x 5 cells, all tissue."""
    part = paint()[200:600, 200:700]
    one = aperio(part, encode=as_jpeg2000)
    columns = -(-part.shape[1] // 64)
    within = 2 * columns + 2  # 128 to 192 px is within the second cell each way
    broken = bytearray(one[LEVEL].blocks[within])
    broken[100:] = Random(3).randbytes(len(broken) - 100)
    every = aperio(part, encode=as_jpeg2000)
    for number, block in enumerate(every[LEVEL].blocks):
        every[LEVEL].blocks[number] = block[:60] + Random(number).randbytes(len(block) - 60)
    one[LEVEL].blocks[within] = b"\xff\x4f" + bytes(broken[2:50])
    return [
        gaps(36, write_parts(here / "one-j2k.svs", one), "1 of", "could not be read"),
        failed(
            36, write_parts(here / "all-j2k.svs", every), "E_TOO_MANY_GAPS E_TILE_DECODE",
            "could not be read|decode", COPY, variant="all",
        ),
    ]  # fmt: skip


def make_killer(here: Path, variants: Path) -> Specimen:
    """A slide that ends the process that reads it: a frame that no machine has memory for."""
    from pydicom import dcmread

    path = here / "killer.dcm"
    header = dcmread(variants / "raw.dicom")
    measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [0.004, 0.004]
    header.Rows = header.Columns = 65535
    header.TotalPixelMatrixColumns = header.TotalPixelMatrixRows = 60000
    header.NumberOfFrames = 1
    header.save_as(path)
    return rejected(35, path, "E_CRASH", "decoder", "convert it|copy it again", variant="killed")
