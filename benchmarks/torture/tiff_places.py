"""Where a TIFF keeps its numbers: header, directories, tags, tables and data."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MOST_DIRECTORIES = 64
KIND_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
              16: 8, 17: 8, 18: 8}  # fmt: skip
OFFSETS, COUNTS = (273, 324), (279, 325)


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the file: where it stands and how many bytes it takes."""

    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag of a directory."""

    tag: int
    at: int
    """Where its twelve bytes start; twenty in a BigTIFF."""
    size: int
    kind: Number
    count: Number
    values: tuple[Number, ...]
    """The first of them, wherever they stand."""
    text: bool


@dataclass(slots=True)
class Places:
    """Everything that a mutation may aim at."""

    links: list[Number] = field(default_factory=list)
    """The place of the first directory and of every next one."""
    lengths: list[Number] = field(default_factory=list)
    """How many tags a directory has."""
    entries: list[Entry] = field(default_factory=list)
    data: list[tuple[int, int]] = field(default_factory=list)
    """Start and length of tiles and strips."""


def find_places(content: bytes, *, ndpi: bool = False) -> Places:
    """Of a little-endian TIFF or BigTIFF; empty where it is none."""
    found = Places()
    if content[:4] not in (b"II*\0", b"II+\0"):
        return found
    big = content[2:3] == b"+"
    link = Number(8, 8) if big else Number(4, 4)
    seen: set[int] = set()
    while True:
        found.links.append(link)
        at = _read(content, link)
        if not at or at in seen or len(seen) >= MOST_DIRECTORIES or at + 20 > len(content):
            break
        seen.add(at)
        link = _directory(content, at, found, big=big)
        if ndpi:
            link = Number(link.at, 8)
        if link.at + link.size > len(content):
            break
    found.data = _data(content, found.entries)
    return found


def _directory(content: bytes, at: int, found: Places, *, big: bool) -> Number:
    """Takes up a directory; where the place of the next one stands."""
    length = Number(at, 8 if big else 2)
    found.lengths.append(length)
    size, word = (20, 8) if big else (12, 4)
    first = at + length.size
    count = min(_read(content, length), (len(content) - first) // size)
    for place in range(first, first + count * size, size):
        tag, kind = struct.unpack_from("<HH", content, place)
        many = Number(place + 4, word)
        each = KIND_SIZES.get(kind, 1)
        total = _read(content, many) * each
        start = place + 4 + word
        if total > word:
            start = _read(content, Number(start, word))
        step = 4 if kind in (5, 10) else each
        ends = range(start, min(start + total, start + 256 * step, len(content) - 8), step)
        values = tuple(Number(value, step) for value in ends)
        if total > word:
            values = (Number(place + 4 + word, word), *values)
        found.entries.append(
            Entry(tag, place, size, Number(place + 2, 2), many, values, text=kind == 2)
        )
    return Number(first + count * size, word)


def _data(content: bytes, entries: list[Entry]) -> list[tuple[int, int]]:
    """Tiles and strips, as the tables of every directory place them."""
    found = []
    starts = [entry for entry in entries if entry.tag in OFFSETS]
    lengths = [entry for entry in entries if entry.tag in COUNTS]
    for where, how_many in zip(starts, lengths, strict=False):
        pairs = zip(where.values[-256:], how_many.values[-256:], strict=False)
        for start, length in pairs:
            place, size = _read(content, start), _read(content, length)
            if size > 0 and place + size <= len(content):
                found.append((place, size))
    return found


def _read(content: bytes, number: Number) -> int:
    return int.from_bytes(content[number.at : number.at + number.size], "little")
