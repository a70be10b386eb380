"""A slide's features on disk while it is worked on: one chunk per batch, one writer per chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

FEATURES = "features.zarr"

ROWS_AT_ONCE = 1024
"""Tiles read back at a time, in whole chunks: small chunks one by one are slow."""


def create_features(path: Path, *, tiles: int, dimension: int, batch: int) -> None:
    """Make room for N x D features and N coverages; NaN until a batch is written."""
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    for name, shape, chunks in (
        ("features", (tiles, dimension), (batch, dimension)),
        ("coverage", (tiles,), (batch,)),
    ):
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype="float32",
            fill_value=float("nan"),
            compressors=ZstdCodec(level=1, checksum=True),
            config={"write_empty_chunks": True},
        )


def write_features(
    path: Path, start: int, features: NDArray[np.float32], coverage: NDArray[np.float32]
) -> str:
    """Store one batch, and give its hash; rows of NaN are tiles that could not be read."""
    group = zarr.open_group(path, mode="r+", zarr_format=3)
    stop = start + len(features)
    _array(group, "features")[start:stop] = features
    _array(group, "coverage")[start:stop] = coverage
    return _digest(features, coverage)


def digest_features(path: Path, start: int, tiles: int) -> str:
    """The hash of a batch as it lies there; raises where that cannot be read."""
    group = zarr.open_group(path, mode="r", zarr_format=3)
    part = slice(start, start + tiles)
    return _digest(*(_array(group, name)[part] for name in ("features", "coverage")))


def iterate_features(path: Path) -> Iterator[NDArray[np.float32]]:
    """The features in tile order, N_i x D at a time, so that memory does not grow with the slide.

    Rows of NaN are tiles that could not be read.
    """
    features = _array(zarr.open_group(path, mode="r", zarr_format=3), "features")
    chunk = features.chunks[0]
    rows = chunk * max(1, ROWS_AT_ONCE // chunk)
    for start in range(0, features.shape[0], rows):
        yield np.asarray(features[start : start + rows], np.float32)


def read_coverage(path: Path) -> NDArray[np.float32]:
    """N; share of each tile's area that is tissue and was read, NaN where it was not read."""
    group = zarr.open_group(path, mode="r", zarr_format=3)
    return np.asarray(_array(group, "coverage")[:], np.float32)


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, np.float32).data)
    return digest.hexdigest()


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    return array
