"""One decoder as its owner sees it: calls that always come back, whatever the file does."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slidetriage.errors import PixelsUnreadable, SlideNotReadable, SlideTriageError
from slidetriage.tiling import TileBatch, TilePixels
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest
from slidetriage.workflows.surveying import Survey, TileNeeds
from slidetriage.wsi import Slide

from .nursery_link import Nursery
from .progress import SharedMemory, make_shared_file

if TYPE_CHECKING:
    # What only the child needs takes a while to import.
    from .tasks import BatchRead, Inspection

MEMORY_BYTES = 2 << 30
"""What a decoder may use beyond what it was forked with; the address space, so never all of it."""

MEMORY_OF_MASKERS_BYTES = 16 << 30
"""The same where another library's tissue masker is used, which maps many gigabytes of code."""

LOOKED_AT_S = 0.25
"""Seconds between two looks at a decoder that has not answered."""

DEATHS_OF_TILE = 2
"""Deaths of a decoder at one tile after which the tile is passed over."""

DEATHS_OF_SLIDE = 3
"""Deaths at tiles of one slide that are put up with."""


class DecoderDied(Exception):
    """A decoder ended or hung before it answered."""

    def __init__(self, how: str, *, hung: bool, tile: int) -> None:
        super().__init__(how)
        self.how = how
        self.hung = hung
        self.tile = tile


class Decoder:
    """Reads slides in a child process for one thread.

    A decoder that dies, or gives no sign of life for `Settings.stall_s`, is replaced and the work
    tried again; a tile at which two decoders die is passed over as unreadable, and a slide at
    which more than three die is given up.
    """

    def __init__(self, nursery: Nursery, settings: Settings) -> None:
        self.nursery = nursery
        self._settings = settings
        self._child: Connection | None = None
        self.pid = 0
        """Of the child; 0 before there is one."""
        self._memory: SharedMemory | None = None
        self._room = 0
        self._deaths: dict[Path, int] = {}
        self._closed = False

    def inspect(self, request: SlideRequest, needs: TileNeeds) -> Inspection:
        """Open and hash a slide (see `Tasks.inspect`); raises E_CRASH or E_TIMEOUT as well."""
        found: Inspection = self._call_twice(request.path, "inspect", request, needs)
        return found

    def open(self, request: SlideRequest, needs: TileNeeds | None) -> Slide:
        """Open a slide without hashing it, for a model or only to know what it is."""
        found: Slide = self._call_twice(request.path, "open", request, needs)
        return found

    def survey(self, slide: Slide, sha256: str | None, needs: TileNeeds) -> Survey:
        """Find the tissue and choose the tiles (see `Tasks.survey`)."""
        found: Survey = self._call_twice(slide.path, "survey", slide, sha256, needs, self._settings)
        return found

    def hash(self, slide: Slide) -> str:
        """The slide's sha256 as it is now."""
        found: str = self._call_twice(slide.path, "hash", slide.files)
        return found

    def read(self, batch: TileBatch, sha256: str | None) -> TilePixels:
        """Read the tiles of a batch; the pixels are good until the next read.

        Raises
        ------
        SlideError
            The slide changed (E_UNSTABLE), its disk does not answer (E_IO), or it killed one
            decoder after the other (E_CRASH, or E_TIMEOUT where they hung).
        """
        count, side = len(batch.tiles), batch.tiles.grid.tile_px
        self._make_room(count * side * side * 3)
        deaths: dict[int, int] = {}
        how = ""
        while True:
            skipped = tuple(sorted(t for t, n in deaths.items() if n >= DEATHS_OF_TILE))
            try:
                found: BatchRead = self._call("read", batch, sha256, skipped)
            except DecoderDied as death:
                how = death.how
                deaths[death.tile] = deaths.get(death.tile, 0) + 1
                self._count_death(batch.slide.path, death)
                continue
            assert self._memory is not None
            error = found.error
            if skipped:
                error = f"{batch.slide.path.name}: its decoder {how} at this tile, twice."
            return TilePixels(self._memory.images(count, side), found.valid, found.readable, error)

    def close(self) -> None:
        """End the child; a call that waits for it raises."""
        self._closed = True
        if self._child is not None:
            self.nursery.reap(self.pid)  # who waits for it finds it gone

    def _count_death(self, path: Path, death: DecoderDied) -> None:
        """Raise where a slide has killed too many."""
        self._deaths[path] = self._deaths.get(path, 0) + 1
        if self._deaths[path] > DEATHS_OF_SLIDE:
            raise _given_up(path, death)

    def _call_twice(self, path: Path, task: str, *arguments: object) -> Any:
        try:
            return self._call(task, *arguments)
        except DecoderDied:
            pass
        try:
            return self._call(task, *arguments)
        except DecoderDied as death:
            raise _given_up(path, death) from None

    def _call(self, task: str, *arguments: object) -> Any:
        """Have a task done; raises `DecoderDied`, or what the task raised."""
        child, memory = self._living()
        try:
            child.send((task, arguments))
            self._wait(child, memory)
            kind, value = child.recv()
        except (EOFError, OSError):
            raise self._death(memory.tile) from None
        if kind == "refused":
            assert isinstance(value, SlideTriageError)
            raise value
        if kind == "failed":
            raise RuntimeError(value)
        return value

    def _wait(self, child: Connection, memory: SharedMemory) -> None:
        """Until there is an answer; a decoder without signs of life is killed."""
        signs, since = -1, time.monotonic()
        while not child.poll(LOOKED_AT_S):
            if memory.signs != signs:
                signs, since = memory.signs, time.monotonic()
            elif time.monotonic() - since > self._settings.stall_s:
                tile = memory.tile
                self._end()
                how = f"gave no sign of life for {self._settings.stall_s:g} s"
                raise DecoderDied(how, hung=True, tile=tile)

    def _death(self, tile: int) -> Exception:
        """What to raise where the child is gone."""
        if self._closed:
            return SlideTriageError("The run is ending.", code="E_CLOSED")
        status = self._end()
        return DecoderDied(_say(status), hung=False, tile=tile)

    def _living(self) -> tuple[Connection, SharedMemory]:
        """The child, forked if there is none."""
        if self._child is None or self._memory is None:
            ours, theirs = socket.socketpair()
            shared = make_shared_file(max(self._room, 1))
            try:
                self._memory = SharedMemory(shared)
                own = self._settings.masker == "slidetriage"
                budget = MEMORY_BYTES if own else MEMORY_OF_MASKERS_BYTES
                with theirs:
                    self.pid = self.nursery.fork((theirs.fileno(), shared), budget + self._room)
            finally:
                os.close(shared)
            self._child = Connection(ours.detach())
        return self._child, self._memory

    def _make_room(self, image_bytes: int) -> None:
        """A child with room for so many bytes of tiles; one with less is replaced."""
        if image_bytes > self._room:
            self._end()
            self._room = image_bytes

    def _end(self) -> int:
        """End the child; its status as `os.waitpid` gives it."""
        child, self._child = self._child, None
        if child is None:
            return 0
        with suppress(OSError):
            child.close()
        return self.nursery.reap(self.pid)


def _say(status: int) -> str:
    """How a process ended, in words."""
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def _given_up(path: Path, death: DecoderDied) -> SlideTriageError:
    if death.hung:
        return PixelsUnreadable(
            f"{path.name}: reading hung: the decoder {death.how}, again and again.",
            mend="Check its disk or share, then run again; if it hangs there too, copy the slide "
            "again or convert it to a pyramidal TIFF.",
            code="E_TIMEOUT",
        )
    return SlideNotReadable(
        f"{path.name}: reading it kills the decoder ({death.how}), again and again; the file is "
        "probably damaged.",
        mend="Copy it again, or convert it to a pyramidal TIFF.",
        code="E_CRASH",
    )
