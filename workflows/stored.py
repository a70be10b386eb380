"""Which batches of a slide are on the disk already, so that a run that was killed reads none twice.

A receipt lies beside what it stands for, in the slide's staging folder. It counts for the plan that
it was written under, and only while what it stands for has the hash that it says.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from slidetriage import __version__
from slidetriage.tiling import Tiles

from .steps import BatchReceipt, StoredBatch

_ORIGIN = "origin"


@dataclass(frozen=True, slots=True)
class StoredBatches:
    """Receipts of what a slide's batches left in a folder; one writer per batch."""

    content: Path
    """Folder that the batches are stored in."""

    @property
    def _receipts(self) -> Path:
        return self.content.with_suffix(".receipts")

    def keep(
        self,
        origin: str,
        make: Callable[[], object],
        *,
        usable: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep the content if it is of this origin; else it goes, and `make` makes it anew.

        `usable` raises whatever damage to the content makes it raise.
        """
        with suppress(Exception):  # a power cut may have left anything
            if (self._receipts / _ORIGIN).read_text() == origin and self.content.is_dir():
                usable()
                return
        shutil.rmtree(self._receipts, ignore_errors=True)
        shutil.rmtree(self.content, ignore_errors=True)
        make()
        self._receipts.mkdir()
        (self._receipts / _ORIGIN).write_text(origin)

    def note(self, start: int, receipt: BatchReceipt, digest: str) -> None:
        """The batch whose first tile is `start` is on the disk, as what has this hash.

        One in which something could not be read is not noted: the next run may be luckier.
        """
        if receipt.error:
            return
        record = {
            "tiles": receipt.tiles,
            "unreadable": receipt.unreadable,
            "runtime": receipt.runtime,
            "sha256": digest,
        }
        path = self._receipts / f"{start:08d}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps(record))
        temporary.replace(path)

    def recall(self, slide_id: str, digest: Callable[[int, int], str]) -> tuple[StoredBatch, ...]:
        """The batches that are there and whole, by their first tile.

        Parameters
        ----------
        digest
            Hash of what lies there of a batch, by the number of its first tile and of its tiles;
            may raise whatever a damaged file makes it raise.
        """
        found = []
        for path in sorted(self._receipts.glob("*.json")):
            with suppress(Exception):  # the batch is read again
                record: dict[str, Any] = orjson.loads(path.read_bytes())
                start = int(path.stem)
                receipt = BatchReceipt(
                    slide_id, record["tiles"], record["unreadable"], "", record["runtime"]
                )
                if digest(start, receipt.tiles) == record["sha256"]:
                    found.append(StoredBatch(start, receipt))
        return tuple(found)


def origin_of(key: str, tiles: Tiles, *more: object) -> str:
    """sha256 over all that decides what a slide's batches leave behind.

    Parameters
    ----------
    key
        Of the slide's plan: content, model and settings.
    tiles
        In their order, in batches of the size that the settings say.
    """
    digest = hashlib.sha256(f"{__version__} {key} {more!r} {tiles.grid!r}".encode())
    for values in (tiles.rows, tiles.columns, tiles.tissue):
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
