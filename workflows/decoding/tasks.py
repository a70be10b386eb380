"""What a decoder does: opens slides, hashes them, finds tissue, reads tiles. Runs in the child.

Imports nothing of models: a decoder must start at once and stay small.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import (
    PixelsUnreadable,
    SlideError,
    SlideNotReadable,
    SlideTriageError,
)
from slidetriage.tiling import (
    TileBatch,
    TilePixels,
    read_tiles,
    stain,  # noqa: F401 - so that decoders are forked with it
)
from slidetriage.workflows.crash_points import crash_point
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest, expected_hash
from slidetriage.workflows.surveying import Survey, TileNeeds, open_request, survey_slide
from slidetriage.wsi import (
    Box,
    Pixels,
    Slide,
    SlideReader,
    check_file,
    file_signatures,
    hash_slide,
    open_reader,
    slide_files,
)
from slidetriage.wsi.slide import FINER

from .progress import SharedMemory

OPEN_SLIDES = 2
"""Slides open at a time: the last batches of one are read beside the first of the next."""

WAITS_S = (0.0, 0.1, 1.0, 2.0, 4.0, 8.0)
"""Before each attempt at reading a file through: a share that dropped is often back in seconds."""

VETTED_AT_MOST = 5
"""Times that a slide is read through to tell a passing fault from damage."""

PLAIN = frozenset(
    {"E_NOT_FOUND", "E_NOT_REGULAR", "E_PERMISSION", "E_EMPTY", "E_NO_MPP", "E_BAD_MPP",
     "E_MPP_TOO_COARSE", "E_HASH"}
)  # fmt: skip
"""What is wrong for certain, so that the file need not be read through."""

Signatures = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A slide that was opened and hashed."""

    slide: Slide
    sha256: str
    signatures: Signatures
    """Of each of its files, as `file_signatures` gives them."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchRead:
    """`TilePixels` without the pixels, which are in shared memory."""

    valid: NDArray[np.float32]
    readable: NDArray[np.bool_]
    error: str


class Tasks:
    """Carries out what the owner asks for, one thing at a time."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._readers: list[SlideReader] = []
        self._vetted: dict[tuple[Path, str], int] = {}

    def inspect(self, request: SlideRequest, needs: TileNeeds) -> Inspection:
        """Open and hash a slide, and compare with the hash that was stated for it.

        Raises `SlideError`: it cannot be used (as `open_slide`), is not what was stated (E_HASH),
        is being written (E_UNSTABLE), or its disk does not answer (E_IO).
        """
        try:
            return self._inspect(request, needs)
        except SlideTriageError:
            raise
        except OSError:
            self._read_through((request.path,))  # a passing fault is gone then
        try:
            return self._inspect(request, needs)
        except SlideTriageError:
            raise
        except OSError as error:
            raise _no_answer(request.path, error) from error

    def _inspect(self, request: SlideRequest, needs: TileNeeds) -> Inspection:
        expected = expected_hash(request)
        if expected is not None:
            check_file(request.path)
            self._compare(request, expected)
        slide = self._open(request, needs)
        before = file_signatures(slide.files)
        digest = self._read_through(slide.files)
        if slide.reader != "tiff":
            # A fault in passing would have made OpenSlide the reader.
            slide = self._open(request, needs)
        if file_signatures(slide.files) != before:
            raise _unstable(slide.path)
        return Inspection(slide, digest, before)

    def open(self, request: SlideRequest, needs: TileNeeds | None) -> Slide:
        """Open a slide without hashing it (see `open_request`)."""
        crash_point("slide.open")
        try:
            return open_request(request, needs)
        except SlideError:
            raise
        except OSError as error:
            raise _no_answer(request.path, error) from error

    def _open(self, request: SlideRequest, needs: TileNeeds) -> Slide:
        """Open a slide, once more where the disk may be what failed."""
        try:
            return open_request(request, needs)
        except SlideError as error:
            if error.code in PLAIN:
                raise
        self._read_through(slide_files(request.path))
        return open_request(request, needs)  # a passing fault is gone now, damage is not

    def survey(
        self, slide: Slide, sha256: str | None, needs: TileNeeds, settings: Settings
    ) -> Survey:
        """Find the tissue and choose the tiles (see `survey_slide`)."""
        reader = _SigningReader(open_reader(slide), self._memory.sign)
        try:
            survey = survey_slide(reader, needs, settings)
            if survey.complete or sha256 is None:
                return survey
        except PixelsUnreadable:
            if sha256 is None:
                raise
        self._vet(slide, sha256)
        return survey_slide(reader, needs, settings)

    def read(self, batch: TileBatch, sha256: str | None, skipped: tuple[int, ...]) -> BatchRead:
        """Read a batch into shared memory, but for tiles that killed a decoder before.

        With the sha256 that the slide should have, a passing fault is told from damage.
        """
        memory = self._memory.images(len(batch.tiles), batch.tiles.grid.tile_px)
        reader = self._reader_for(batch.slide)
        pixels = self._read(reader, batch, memory, skipped)
        lost = np.flatnonzero(~pixels.readable)
        slide = batch.slide
        if sha256 and len(np.setdiff1d(lost, skipped)) and self._vet(slide, sha256):
            reader.close()
            pixels = self._read(reader, batch, memory, skipped)
        return BatchRead(pixels.valid, pixels.readable, pixels.error)

    def hash(self, files: tuple[Path, ...]) -> str:
        """The slide's sha256 as it is now; raises `PixelsUnreadable` (E_IO)."""
        return self._read_through(files)

    def _read(
        self,
        reader: SlideReader,
        batch: TileBatch,
        memory: NDArray[np.uint8],
        skipped: tuple[int, ...],
    ) -> TilePixels:
        return read_tiles(
            reader, batch, memory=memory, skipped=skipped, before_tile=self._begin_tile
        )

    def _begin_tile(self, index: int) -> None:
        self._memory.sign(index)
        crash_point(f"tile.{index}")

    def _vet(self, slide: Slide, sha256: str) -> bool:
        """Tell a passing fault from damage by reading the slide through; True where it was.

        Raises `PixelsUnreadable` where it changed (E_UNSTABLE) or cannot be read (E_IO).
        """
        key = (slide.path, sha256)
        self._vetted[key] = self._vetted.get(key, 0) + 1
        if self._vetted[key] > VETTED_AT_MOST:
            return False
        if self._read_through(slide.files) != sha256:
            raise _unstable(slide.path)
        return True

    def _read_through(self, files: tuple[Path, ...]) -> str:
        for wait in WAITS_S:
            self._rest(wait)
            try:
                return hash_slide(files, sign=self._memory.sign)
            except OSError as error:
                said = error.strerror or str(error)
        raise PixelsUnreadable(
            f"{files[0].name}: its disk or share does not answer ({said}), tried "
            f"{len(WAITS_S)} times over {sum(WAITS_S):.0f} s.",
            mend="Check the disk or the network share, then run again.",
            code="E_IO",
        )

    def _compare(self, request: SlideRequest, expected: str) -> None:
        found = self._read_through((request.path,))
        files = slide_files(request.path)
        if found != expected and (len(files) == 1 or self._read_through(files) != expected):
            raise SlideNotReadable(
                f"{request.path.name}: its sha256 is {found[:12]}..., but {expected[:12]}... was "
                "stated for it.",
                mend="Copy it again from the scanner, or mend what was stated.",
                code="E_HASH",
            )

    def _rest(self, seconds: float) -> None:
        """Wait, with signs of life."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._memory.sign()
            time.sleep(min(left, 0.5))

    def _reader_for(self, slide: Slide) -> SlideReader:
        """The reader of a slide that is open, or a new one in place of the one longest unused."""
        reader = next((r for r in self._readers if r.slide == slide), None)
        if reader is None:
            reader = open_reader(slide)
        else:
            self._readers.remove(reader)
        self._readers.append(reader)
        if len(self._readers) > OPEN_SLIDES:
            self._readers.pop(0).close()
        return reader


class _SigningReader:
    """A reader that gives a sign of life with every read."""

    def __init__(self, reader: SlideReader, sign: Callable[[], None]) -> None:
        self._reader, self._sign = reader, sign

    @property
    def slide(self) -> Slide:
        return self._reader.slide

    def read(
        self,
        box: Box,
        width_px: int,
        height_px: int,
        *,
        finer: float = FINER,
        out: NDArray[np.uint8] | None = None,
    ) -> Pixels:
        self._sign()
        return self._reader.read(box, width_px, height_px, finer=finer, out=out)

    def close(self) -> None:
        self._reader.close()


def _no_answer(path: Path, error: OSError) -> PixelsUnreadable:
    return PixelsUnreadable(
        f"{path.name}: its disk or share does not answer ({error.strerror or error}).",
        mend="Check the disk or the network share, then run again.",
        code="E_IO",
    )


def _unstable(path: Path) -> PixelsUnreadable:
    return PixelsUnreadable(
        f"{path.name}: the file changed while it was read.",
        mend="Wait until it is written completely, then run again.",
        code="E_UNSTABLE",
    )
