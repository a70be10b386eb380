"""Looks at a file before a decoder does: is it there, whole, of a sane size and kind.

OpenSlide gives one message for nearly everything that is wrong with a file, blocks for ever on a
FIFO, and aborts the process on a tile of absurd size; so these are told apart here first.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import tifffile
from tifffile import TiffPage

from slidetriage.errors import SlideNotFound, SlideNotReadable

LARGEST_SLIDE_PX = 1 << 38
"""About 500,000 x 500,000 px, four times the area of the largest scans (reliability, S3)."""

TILE_SIDE_PX = (16, 8192)

LOST_TILES = 0.001
"""Share of tiles past the end of the file above which it is truncated rather than damaged."""

COLOURS = (2, 6)
"""PhotometricInterpretation (TIFF 6.0) of what is read as RGB: RGB itself, and YCbCr."""

_PHOTOMETRIC = {0: "grey", 1: "grey", 2: "RGB", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*"}

MOST_DIRECTORIES = 65_536
"""Directories that a TIFF may have; slides have some ten, series of a focus stack a thousand."""

TABLE_DAMAGE = (
    tifffile.TiffFileError, struct.error, ValueError, IndexError, KeyError, TypeError,
    OverflowError, ZeroDivisionError,
)  # fmt: skip
"""What reading the tables of a damaged TIFF raises."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_file(path: Path) -> None:
    """Raise unless `path` is a regular, readable file with something in it.

    Raises `SlideNotFound` (E_NOT_FOUND) or `SlideNotReadable` (E_NOT_REGULAR, E_PERMISSION,
    E_EMPTY).
    """
    try:
        status = path.stat()
    except PermissionError as error:
        raise _refused(path, "may not be read", "E_PERMISSION", _ASK) from error
    except OSError as error:
        what = "no such file"
        if error.errno == errno.ENAMETOOLONG:
            what = "its path is too long for the system"
        elif path.is_symlink():
            what = "the link leads nowhere"
        raise SlideNotFound(
            f"{path.name}: {what}.", mend=f"Check the path: {path}", code="E_NOT_FOUND"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        what = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise _refused(path, what, "E_NOT_REGULAR", "Give the slide's own file.")
    if not os.access(path, os.R_OK):
        raise _refused(path, "may not be read", "E_PERMISSION", _ASK)
    if status.st_size == 0:
        raise _refused(path, "is empty", "E_EMPTY", "Copy it again from the scanner.")


def is_tiff(path: Path) -> bool:
    """Whether the file starts as a TIFF or BigTIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MAGIC


@dataclass(frozen=True, slots=True)
class TiffFacts:
    """What a TIFF's tables say that is not taken from OpenSlide."""

    first_px: tuple[int, int]
    """Width and height of the first image."""
    warnings: tuple[str, ...]


def check_tiff(path: Path) -> TiffFacts:
    """Raise where a TIFF's own tables show that it is truncated, of absurd size, or not RGB.

    Raises `SlideNotReadable` (E_TRUNCATED, E_TOO_LARGE, E_NOT_RGB, E_NOT_SLIDE).
    """
    size = path.stat().st_size
    _check_chain(path)
    try:
        with _Complaints() as complaints, tifffile.TiffFile(path) as tiff:
            # Only the first series holds the slide; label and macro pages are not looked at.
            pages = [
                page
                for page in tiff.pages
                if isinstance(page, tifffile.TiffPage) and (page.is_tiled or page.index == 0)
            ]
            _check_directories(path, complaints.said, size)
            for page in pages:
                _check_page(path, page)
            _check_extents(path, pages, size)
            first = pages[0]
            return TiffFacts(
                (int(first.imagewidth), int(first.imagelength)), _profile_warnings(first)
            )
    except TABLE_DAMAGE as error:
        if isinstance(error, SlideNotReadable):
            raise
        raise _refused(
            path,
            "has a damaged directory; the file is truncated or was not copied whole",
            "E_TRUNCATED",
            "Copy it again from the scanner and compare sizes.",
        ) from error


_LISTENING = threading.Lock()
"""Held while tifffile's logger is kept from the screen."""


class _Complaints(logging.Handler):
    """Collects what tifffile logs while a file is read; it goes on where a directory is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        # Another thread may be reading another file.
        if record.thread == self._thread:
            self.said.append(record.getMessage())

    def __enter__(self) -> _Complaints:
        _LISTENING.acquire()
        logger = tifffile.logger()
        logger.addHandler(self)
        self._propagated, logger.propagate = logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        logger = tifffile.logger()
        logger.removeHandler(self)
        logger.propagate = self._propagated
        _LISTENING.release()


def _check_chain(path: Path) -> None:
    """Raise where directories follow each other in a circle, which tifffile walks for ever."""
    seen: set[int] = set()
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(f"{order}H", head[2:4])[0] == 43
        count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
        start = head[8:16] if big else head[4:8]
        while len(start) == struct.calcsize(link):
            (offset,) = struct.unpack(f"{order}{link}", start)
            if offset == 0:
                return
            if offset in seen or len(seen) >= MOST_DIRECTORIES:
                raise _refused(
                    path, "has directories that follow each other in a circle", "E_NOT_SLIDE",
                    "Copy it again from the scanner, or export it anew.",
                )  # fmt: skip
            seen.add(offset)
            try:
                file.seek(offset)
                (entries,) = struct.unpack(f"{order}{count}", file.read(struct.calcsize(count)))
                file.seek(offset + struct.calcsize(count) + entries * entry)
                start = file.read(struct.calcsize(link))
            except (struct.error, OSError, ValueError, OverflowError):
                return  # past the end, which is told more exactly from the tags


_PLACE = re.compile(r"invalid (?:offset to first page|page offset|value offset) (\d+)")


def _check_directories(path: Path, complaints: list[str], size: int) -> None:
    """A directory or a tag's value that should lie past the end was lost with the end."""
    places = [int(place) for text in complaints for place in _PLACE.findall(text)]
    # tifffile refuses what starts within the header's 8 bytes or reaches past the end.
    lost = [place for place in places if place >= 8]
    if lost:
        raise _refused(
            path,
            f"is truncated: it ends at {size} bytes, amid or before what lies at {max(lost)}",
            "E_TRUNCATED",
            "Copy it again from the scanner and compare sizes.",
        )


def _check_page(path: Path, page: TiffPage) -> None:
    width, height = int(page.imagewidth), int(page.imagelength)
    if width <= 0 or height <= 0:
        raise _refused(path, f"says it is {width} x {height} px", "E_NOT_SLIDE", _AGAIN)
    if width * height > LARGEST_SLIDE_PX:
        raise _refused(path, f"says it is {width} x {height} px", "E_TOO_LARGE", _AGAIN)
    if page.is_tiled:
        sides = int(page.tilewidth), int(page.tilelength)
        if not all(TILE_SIDE_PX[0] <= side <= TILE_SIDE_PX[1] for side in sides):
            what = f"has tiles of {sides[0]} x {sides[1]} px"
            raise _refused(path, what, "E_TOO_LARGE", "Convert it to tiles of 256 to 1024 px.")
    bits, samples = int(page.bitspersample), int(page.samplesperpixel)
    if bits != 8 or samples not in (3, 4) or int(page.photometric) not in COLOURS:
        kind = _PHOTOMETRIC.get(int(page.photometric), f"of kind {int(page.photometric)}")
        raise _refused(
            path,
            f"has {samples} channel(s) of {bits} bits, {kind}, not 8-bit RGB",
            "E_NOT_RGB",
            "Fluorescence and grey images are not supported; export brightfield RGB.",
        )


def _check_extents(path: Path, pages: list[TiffPage], size: int) -> None:
    """Compare where the directories say that data lies with where the file ends."""
    tiles, lost, cut = 0, 0, False
    for page in pages:
        offsets, counts = page.dataoffsets, page.databytecounts
        if page.is_tiled and len(offsets) < _tiles_needed(page):
            raise _refused(
                path,
                f"has places for {len(offsets)} tiles, and {page.imagewidth} x "
                f"{page.imagelength} px need {_tiles_needed(page)}",
                "E_NOT_SLIDE",
                _AGAIN,
            )
        tiles += len(offsets)
        past = [(o, c) for o, c in zip(offsets, counts, strict=False) if o + c > size]
        lost += len(past)
        cut |= any(o < size and c < size for o, c in past)
    # One that begins within the file was cut off with its end; a single other is damage.
    if (lost == 1 and cut) or (lost > 1 and lost > LOST_TILES * tiles):
        raise _refused(
            path,
            f"is truncated: {lost} of {tiles} tiles lie past its end at {size} bytes",
            "E_TRUNCATED",
            "Copy it again from the scanner and compare sizes.",
        )


def _tiles_needed(page: TiffPage) -> int:
    across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
    return int(across * down * planes)


def _profile_warnings(page: TiffPage) -> tuple[str, ...]:
    """Say so where the colour profile is none: ICC.1:2022 has `acsp` at byte 36 of its header."""
    tag = page.tags.get(34675)
    if tag is None:
        return ()
    profile = bytes(tag.value) if isinstance(tag.value, bytes) else b""
    if len(profile) >= 128 and profile[36:40] == b"acsp":
        return ()
    return ("its colour profile is damaged and was not looked at",)


_ASK = "Ask for read permission on it."
_AGAIN = "The file is damaged or not a slide; export it again."


def _refused(path: Path, what: str, code: str, mend: str) -> SlideNotReadable:
    return SlideNotReadable(f"{path.name}: the file {what}.", mend=mend, code=code)
