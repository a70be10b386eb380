"""Which files make up one slide, and the hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from .dicom import DICOM_SUFFIXES, dicom_series

_READ_BYTES = 1 << 20


def slide_files(path: Path) -> tuple[Path, ...]:
    """Every file that OpenSlide may read for the slide at `path`, sorted.

    MRXS keeps its data in a folder of the same name, VMS and VMU name their parts in the index
    file, and a DICOM slide is all instances of one series in the folder.
    """
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        folder = path.with_suffix("")
        parts = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
        return tuple(sorted([path, *parts]))
    if suffix in (".vms", ".vmu"):
        return tuple(sorted({path, *_named_in_index(path)}))
    if suffix in DICOM_SUFFIXES:
        series = dicom_series(path)
        if series is not None:
            near = (p for p in path.parent.iterdir() if p.suffix.lower() in DICOM_SUFFIXES)
            return tuple(sorted(p for p in near if p == path or dicom_series(p) == series))
    return (path,)


def file_signatures(files: tuple[Path, ...]) -> tuple[tuple[int, int, int, int], ...]:
    """inode, size, and times of change (mtime and ctime, ns) of each file.

    While they stay, the files were not written or replaced: nothing but the system sets ctime.
    Raises `OSError` where a file is gone.
    """
    found = [path.stat() for path in files]
    return tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)


def hash_slide(files: tuple[Path, ...], *, sign: Callable[[], None] | None = None) -> str:
    """sha256 of a slide's content, as 64 hex digits.

    One file gives its plain sha256. Several give the sha256 of their sorted digests, so that
    renaming or moving the files does not change it. `sign` is called after every mebibyte.
    """
    digests = sorted(_hash_file(path, sign) for path in files)
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()


def _hash_file(path: Path, sign: Callable[[], None] | None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            if sign is not None:
                sign()
    return digest.hexdigest()


def _named_in_index(path: Path) -> list[Path]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    values = (line.partition("=")[2].strip() for line in lines)
    named = (path.parent / value for value in values if value and Path(value).name == value)
    return [part for part in named if part.is_file()]
