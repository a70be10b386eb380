"""Finds tokens in any byte that left a run, however it is packed and encoded, and pictures."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import lzma
import sqlite3
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

DEEPEST = 4
"""Packings within packings that are opened."""

FOUND_ABOVE = 0.5
"""Normalised cross-correlation from which a picture is held to show the pattern."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A token that was found."""

    place: str
    encoding: str
    where: str


def encodings(token: str) -> dict[str, list[bytes]]:
    """Every form of a token that is searched for, in lower case; `^` parts a DICOM name."""
    spellings = [token]
    if "^" in token:
        family, _, given = token.partition("^")
        spellings += [f"{given}^{family}", f"{given} {family}", f"{family} {given}",
                      f"{family}, {given}", f"{family}_{given}", f"{family}{given}"]  # fmt: skip
    forms: dict[str, list[bytes]] = {}
    for spelling in spellings:
        for name, form in _forms(spelling):
            forms.setdefault(name, []).append(form.lower())
    return forms


def _forms(text: str) -> Iterator[tuple[str, bytes]]:
    raw = text.encode()
    yield "raw", raw
    yield "UTF-16LE", text.encode("utf-16-le")
    yield "UTF-16BE", text.encode("utf-16-be")
    yield "URL", quote(text, safe="").encode()
    yield "whole URL", "".join(f"%{byte:02x}" for byte in raw).encode()
    yield "JSON", "".join(f"\\u{ord(each):04x}" for each in text).encode()
    yield "HTML decimal", "".join(f"&#{ord(each)};" for each in text).encode()
    yield "HTML hex", "".join(f"&#x{ord(each):x};" for each in text).encode()
    yield "hex", raw.hex().encode()
    for phase in range(3):
        yield f"base64 phase {phase}", _base64_core(raw, phase)
    for spelling in {text, text.lower(), text.upper(), text.replace("^", " ")}:
        for kind in ("md5", "sha1", "sha256"):
            digest = hashlib.new(kind, spelling.encode())
            yield f"{kind} digits", digest.hexdigest()[:12].encode()
            yield f"{kind} bytes", digest.digest()
            yield f"{kind} base64", base64.b64encode(digest.digest())[:16]


def _base64_core(raw: bytes, phase: int) -> bytes:
    """What base64 makes of the bytes that depends on nothing around them."""
    start = (0, 4, 4)[phase]  # the first group holds what came before
    whole = (len(raw) + phase) // 3 * 4
    return base64.b64encode(bytes(phase) + raw)[start:whole]


class Scanner:
    """Searches for tokens, each known by the place it was planted in."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self._needles: dict[int, list[tuple[str, str, bytes]]] = {}
        for place, token in tokens.items():
            for name, needles in encodings(token).items():
                for needle in needles:
                    start = int.from_bytes(needle[:4], "little")
                    self._needles.setdefault(start, []).append((place, name, needle))
        self._starts = np.array(sorted(self._needles), np.uint32)
        self._likely = np.zeros(1 << 16, bool)
        self._likely[self._starts & 0xFFFF] = True

    def search(self, content: bytes, where: str) -> list[Hit]:
        """Every hit in some bytes, and in what is packed in them; each token once."""
        hits: dict[Hit, None] = {}
        for inner, blob in unpack(content, where):
            low = blob.lower()
            for at in self._candidates(low):
                for place, name, needle in self._needles[
                    int.from_bytes(low[at : at + 4], "little")
                ]:
                    if low.startswith(needle, at):
                        hits[Hit(place, name, inner)] = None
        return list(hits)

    def _candidates(self, low: bytes) -> list[int]:
        """Where the first four bytes of a needle stand; a needle has no fewer."""
        every = np.frombuffer(low + bytes(4), np.uint8).astype(np.uint32)
        pairs = every[:-1] | every[1:] << 8
        at = np.flatnonzero(self._likely[pairs[: len(low)]])
        four = pairs[at] | pairs[at + 2] << 16
        found: list[int] = at[np.isin(four, self._starts)].tolist()
        return found

    def search_tree(self, folder: Path) -> list[Hit]:
        """Every hit in the files below a folder, their names, and the arrays among them."""
        hits: list[Hit] = []
        for path in sorted(folder.rglob("*")):
            inside = str(path.relative_to(folder))
            hits += self.search(inside.encode("utf-8", "surrogateescape"), f"name of {inside}")
            if path.is_file():
                hits += self.search(path.read_bytes(), inside)
            if path.name in ("zarr.json", ".zarray"):
                hits += self.search(_decoded(path.parent), f"values of {inside}")
        return hits


def _decoded(folder: Path) -> bytes:
    """The values of an array, as bytes; a group has none."""
    node = zarr.open(folder, mode="r")
    return np.ascontiguousarray(node[...]).tobytes() if isinstance(node, zarr.Array) else b""


def unpack(content: bytes, where: str, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """The bytes themselves, and all that is packed in them."""
    yield where, content
    if depth == DEEPEST:
        return
    for name, inner in _packed(content):
        yield from unpack(inner, f"{where} > {name}", depth + 1)


def _packed(content: bytes) -> Iterator[tuple[str, bytes]]:
    with suppress(OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, struct.error):
        if content[:2] == b"\x1f\x8b":
            yield "gzip header", content[:512]
            yield "gzip", gzip.decompress(content)
        elif content[:3] == b"BZh":
            yield "bzip2", bz2.decompress(content)
        elif content[:6] == b"\xfd7zXZ\0":
            yield "xz", lzma.decompress(content)
        elif content[:1] == b"\x78" and len(content) > 2 and int.from_bytes(content[:2]) % 31 == 0:
            yield "zlib", zlib.decompress(content)
        elif content[:4] == b"PK\3\4":
            yield from _of_zip(content)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive.getmembers():
                    file = archive.extractfile(member)
                    yield member.name, file.read() if file else b""
        elif content[:16] == b"SQLite format 3\0":
            yield "SQLite", _of_sqlite(content)
        elif content[:8] == b"\x89PNG\r\n\x1a\n":
            yield from _of_png(content)


def _of_zip(content: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            yield member.filename, member.filename.encode() + member.comment + member.extra
            yield member.filename, archive.read(member)


def _of_sqlite(content: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(content)
        tables = [name for (name,) in base.execute("select name from sqlite_master")]
        rows = [row for table in tables for row in base.execute(f'select * from "{table}"')]
    cells = (cell for row in rows for cell in row)
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


def _of_png(content: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at + 12 <= len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        at += size + 12
        keyword, _, rest = body.partition(b"\0")
        if kind == b"zTXt":
            yield "zTXt", keyword + zlib.decompress(rest[1:])
        elif kind == b"iTXt" and rest[:1] == b"\1":
            text = rest[2:].split(b"\0", 2)[2]
            yield "iTXt", keyword + zlib.decompress(text)
        elif kind == b"iCCP":
            yield "iCCP", keyword + zlib.decompress(rest[1:])
    yield "pixels", np.asarray(Image.open(io.BytesIO(content))).tobytes()


def pictures(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every picture below a folder in grey: PNG and JPEG files, and planes of arrays."""
    for path in sorted(folder.rglob("*")):
        inside = str(path.relative_to(folder))
        if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            yield inside, np.asarray(Image.open(path).convert("L"), np.float32)
        elif path.name in ("zarr.json", ".zarray"):
            node = zarr.open(path.parent, mode="r")
            if isinstance(node, zarr.Array) and node.ndim >= 2:
                planes = np.nan_to_num(np.asarray(node[...], np.float32))
                for number, plane in enumerate(planes.reshape(-1, *planes.shape[-2:])):
                    yield f"{inside}[{number}]", plane


def likeness(picture: NDArray[np.float32], pattern: NDArray[np.uint8]) -> float:
    """The highest normalised cross-correlation with the pattern, at any size and quarter turn."""
    shrink = max(1.0, max(picture.shape) / 640)
    size = (round(picture.shape[1] / shrink), round(picture.shape[0] / shrink))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    grey = np.asarray(Image.fromarray(pattern).convert("L"), np.float32)
    highest, side = 0.0, 24.0
    while side <= min(*picture.shape, 400):
        template = cv2.resize(grey, (round(side), round(side)), interpolation=cv2.INTER_AREA)
        for turns in range(4):
            turned = np.ascontiguousarray(np.rot90(template, turns))
            found = cv2.matchTemplate(picture, turned, cv2.TM_CCOEFF_NORMED)
            finite = found[np.isfinite(found) & (np.abs(found) <= 1.01)]
            highest = max(highest, float(finite.max(initial=0.0)))
        side *= 1.09
    return highest
