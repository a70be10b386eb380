"""The part of an HDF5 file that texts of any length lie in, checked before the library reads it.

A global heap is a block of objects, one behind the other. The library never comes back from one
whose free space claims to have no size, as a single wrong byte can make it (seen with HDF5 1.14).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from .feature_values import damaged

SIGNATURE = b"GCOL\x01\0\0\0"
BLOCK = 2**24

HEADER = 16
"""Bytes before the first object of a heap, and before the content of each object."""

SIZES_AT = {0: 13, 1: 13, 2: 9, 3: 9}
"""Where a superblock of each version says how long offsets and lengths are."""


def check_heaps(path: Path) -> None:
    """Raise `UsageError` (E_FEATURES) where a global heap of the file is not whole."""
    status = path.stat()
    _check(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _check(path: Path, changed_ns: int, size: int) -> None:
    del changed_ns
    with path.open("rb") as file:
        start = file.read(16)
        at = SIZES_AT.get(start[8] if len(start) == 16 else -1)
        if at is None or start[at : at + 2] != b"\x08\x08":
            raise damaged(path, "it is an HDF5 file of a kind that none of these tools writes")
        for place in list(_find(file)):
            _check_heap(path, file, place, size)


def _find(file: BinaryIO) -> Iterator[int]:
    """Places of the signature; numbers are hardly ever these eight bytes by chance."""
    offset, kept = 0, b""
    file.seek(0)
    while block := file.read(BLOCK):
        block = kept + block
        at = block.find(SIGNATURE)
        while at >= 0:
            yield offset + at
            at = block.find(SIGNATURE, at + 1)
        kept = block[-(len(SIGNATURE) - 1) :]
        offset += len(block) - len(kept)


def _check_heap(path: Path, file: BinaryIO, place: int, size: int) -> None:
    file.seek(place + 8)
    length = int.from_bytes(file.read(8), "little")
    end = place + length
    at = place + HEADER
    if length < HEADER or end > size:
        raise damaged(path, "a heap of its texts ends behind the file")
    while at + HEADER <= end:
        file.seek(at)
        header = file.read(HEADER)
        content = int.from_bytes(header[8:], "little")
        is_free = header[:2] == b"\0\0"
        step = content if is_free else HEADER + -(-content // 8) * 8
        if step < HEADER or at + step > end:
            raise damaged(path, "a heap of its texts is not whole")
        at += step
