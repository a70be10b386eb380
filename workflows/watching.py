"""Slides that a scanner is still writing: each is taken once it has settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from slidetriage.errors import UsageError
from slidetriage.wsi import file_signatures

from .book import Book
from .jobs import More
from .sources import SlideRequest, find_slides

Signature = tuple[int, int, int, int]


class Newcomers:
    """Looks into folders now and then, for files that were not seen before or have changed."""

    def __init__(
        self,
        folders: Iterable[str | Path],
        *,
        mpp: float | None,
        every_s: float,
        until: Callable[[], bool],
    ) -> None:
        self._folders = [Path(folder) for folder in folders]
        for folder in self._folders:
            if not folder.is_dir():
                raise UsageError(
                    f"{folder}: there is no such folder to watch.",
                    mend="Name the folder that the scanner writes to.",
                )
        self._mpp = mpp
        self._every_s = every_s
        self._until = until
        self._seen: dict[Path, Signature] = {}
        self._taken: dict[Path, Signature] = {}
        self._next = 0.0

    def bind(self, book: Book) -> More:
        """What a run asks for slides that came; those done before are not among them."""

        def more(idle: bool) -> list[SlideRequest] | None:
            wait = self._next - time.monotonic()
            if wait > 0:
                if not idle:
                    return []
                time.sleep(min(wait, 0.5))  # in short naps, so that an interrupt is heard
                return None if self._until() else []
            if self._until():
                return None
            self._next = time.monotonic() + self._every_s
            entered = book.enter(self.look())
            return [request for request in entered if book.keep(request) is None]

        return more

    def look(self) -> list[SlideRequest]:
        """The slides that are as they were at the last look, and were not taken as they are."""
        found: dict[Path, Signature] = {}
        settled = []
        for folder in self._folders:
            for request in find_slides(folder, mpp=self._mpp):
                try:
                    (signature,) = file_signatures((request.path,))
                except OSError:
                    continue  # it went again
                found[request.path] = signature
                if self._seen.get(request.path) != signature or signature[1] == 0:
                    continue
                if self._taken.get(request.path) != signature:
                    self._taken[request.path] = signature
                    settled.append(request)
        self._seen = found
        return settled
