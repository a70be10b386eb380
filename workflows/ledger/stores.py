"""Checks of Zarr stores: whether every chunk is there and can be decoded."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

OWN, STORED = "slidetriage", "files"
"""Where an array with parts that were never written says how many files it has."""

# Codecs and readers of metadata raise all of these for what is damaged.
_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, zlib.error
)  # fmt: skip

_CHUNK = re.compile(r"(?:c/)?(\d+(?:/\d+)*)")


def note_stored(store: Path, name: str) -> None:
    """Write down how many files of chunks an array has; for one that is finished and not full."""
    import zarr

    zarr.open_array(store / name, mode="r+").attrs[OWN] = {STORED: len(_stored(store / name))}


def check_store(path: Path) -> Iterator[tuple[str, str]]:
    """Each array that is not whole: its name, and what is wrong with it.

    All chunks must be there, or where an array says how many files it has (`note_stored`) so many.
    """
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that are none of the store's
        try:
            members = zarr.open_group(path, mode="r").members(max_depth=None)
            arrays = sorted((name, each) for name, each in members if isinstance(each, zarr.Array))
        except _DAMAGE as error:
            yield "", f"the store cannot be opened ({type(error).__name__})"
            return
        if not arrays:
            yield "", "the store holds no array"
        for name, array in arrays:
            what = _check_array(array, path / name)
            if what is not None:
                yield name, what


def _check_array(array: Any, folder: Path) -> str | None:
    """What is wrong with an array; every chunk is decoded, so that its checksum is compared."""
    try:
        places: Iterable[tuple[int, ...]] = product(*(range(-(-n // c)) for n, c in _sides(array)))
        planned, there = array.nchunks, array.nchunks_initialized
        if OWN in array.attrs or "/" in array.path:
            # Label images of former versions do not say it, and are mostly empty.
            places = _stored(folder)
            there = len(places)
            planned = int(array.attrs[OWN][STORED]) if OWN in array.attrs else there
        if there < planned:
            return f"{planned - there} of {planned} chunks are missing"
        if there > planned:
            return f"{there - planned} chunks are there that were not written"
        for place in places:
            _decode(array, place)
    except _DAMAGE as error:
        return f"a chunk cannot be decoded ({type(error).__name__})"
    return None


def _sides(array: Any) -> list[tuple[int, int]]:
    """Along each axis the length of the array and of what is in one file."""
    return list(zip(array.shape, array.shards or array.chunks, strict=True))


def _decode(array: Any, place: tuple[int, ...]) -> None:
    """Read one file, a chunk at a time."""
    ranges = [
        range(at * length, min((at + 1) * length, whole), chunk)
        for at, (whole, length), chunk in zip(place, _sides(array), array.chunks, strict=True)
    ]
    for corner in product(*ranges):
        array[tuple(slice(a, a + c) for a, c in zip(corner, array.chunks, strict=True))]


def _stored(folder: Path) -> list[tuple[int, ...]]:
    """Where in its grid the files of an array lie."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    found = (_CHUNK.fullmatch(path) for path in paths)
    return sorted(tuple(map(int, each[1].split("/"))) for each in found if each)
