"""Checks of Zarr stores: whether every chunk is there and can be decoded."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

# Codecs and readers of metadata raise all of these for what is damaged.
_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, zlib.error
)  # fmt: skip


def check_store(path: Path) -> Iterator[tuple[str, str]]:
    """Each array that is not whole: its name, and what is wrong with it."""
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that are none of the store's
        try:
            arrays = sorted(zarr.open_group(path, mode="r").arrays())
        except _DAMAGE as error:
            yield "", f"the store cannot be opened ({type(error).__name__})"
            return
        if not arrays:
            yield "", "the store holds no array"
        for name, array in arrays:
            what = _check_array(array)
            if what is not None:
                yield name, what


def _check_array(array: Any) -> str | None:
    """What is wrong with an array; every chunk is decoded, so that its checksum is compared."""
    try:
        missing = array.nchunks - array.nchunks_initialized
        if missing:
            return f"{missing} of {array.nchunks} chunks are missing"
        steps = (range(0, n, c) for n, c in zip(array.shape, array.chunks, strict=True))
        for corner in product(*steps):
            array[tuple(slice(a, a + c) for a, c in zip(corner, array.chunks, strict=True))]
    except _DAMAGE as error:
        return f"a chunk cannot be decoded ({type(error).__name__})"
    return None
