"""Our own form of a slide's features: a zarr group with features, corners and what made them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import SlideTriageError

from .feature_values import (
    FeatureFacts,
    FeatureHeader,
    SlideBag,
    check_array,
    check_bag,
    damaged,
)

if TYPE_CHECKING:
    import zarr

FACTS = "slidetriage_features"
"""The group's attribute that holds the facts, as a JSON text."""

CHUNK_BYTES = 4 * 2**20
MAX_CHUNK_BYTES = 2**27


def write_zarr(
    path: Path,
    facts: FeatureFacts,
    corners_px: NDArray[np.float64],
    parts: Iterable[NDArray[np.float32]],
    *,
    feature_size: int,
) -> None:
    """Write a group that is not there yet; chunks carry checksums, equal values give equal bytes.

    Parameters
    ----------
    corners_px
        N x 2, level-0 px.
    parts
        N_i x D features that make up N x D together.
    """
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes={FACTS: facts.to_json()})
    rows = max(1, CHUNK_BYTES // (4 * feature_size))
    squeeze: dict[str, Any] = {
        "compressors": ZstdCodec(level=1, checksum=True),
        "config": {"write_empty_chunks": True},
    }
    shape = (len(corners_px), feature_size)
    features = group.create_array(
        "features", shape=shape, chunks=(rows, feature_size), dtype="float32", **squeeze
    )
    corners = group.create_array(
        "corners", shape=corners_px.shape, chunks=(2**16, 2), dtype="float64", **squeeze
    )
    corners[:] = corners_px
    for start, part in whole_chunks(parts, rows):
        features[start : start + len(part)] = part


def read_zarr_header(path: Path) -> FeatureHeader:
    """What the group says of itself; raises `UsageError` (E_FEATURES) for a damaged one."""
    group = _open(path)
    features = _array(path, group, "features")
    text = group.attrs.get(FACTS)
    facts = FeatureFacts()
    if text is not None:
        facts = FeatureFacts.from_json(str(text), where=path)
    return FeatureHeader(path, "zarr", features.shape[0], features.shape[1], facts)


def read_zarr(path: Path) -> SlideBag:
    """The features of one slide; rows of NaN, tiles that could not be read, are left out."""
    group = _open(path)
    try:
        features = np.asarray(_array(path, group, "features")[:], np.float32)
        corners = None
        if "corners" in group:
            corners = np.asarray(_array(path, group, "corners")[:], np.float64)
    except SlideTriageError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"it cannot be read ({error})") from error
    read = ~np.isnan(features).any(axis=1)
    if corners is None and not read.all():
        features = features[read]  # published with --keep-features: missing tiles keep their row
    return check_bag(path, SlideBag(features, corners))


def whole_chunks(
    parts: Iterable[NDArray[np.float32]], rows: int
) -> Iterable[tuple[int, NDArray[np.float32]]]:
    """The same rows in parts of exactly `rows` but the last, each with the place it starts at."""
    start, held = 0, list[NDArray[np.float32]]()
    for part in parts:
        held.append(part)
        if sum(map(len, held)) < rows:
            continue
        joined = np.concatenate(held)
        whole = len(joined) // rows * rows
        for at in range(0, whole, rows):
            yield start + at, joined[at : at + rows]
        start, held = start + whole, [joined[whole:]]
    rest = np.concatenate(held) if held else None
    if rest is not None and len(rest):
        yield start, rest


def _open(path: Path) -> zarr.Group:
    import zarr

    try:
        return zarr.open_group(path, mode="r", zarr_format=3)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"it is no zarr group ({error})") from error


def _array(path: Path, group: zarr.Group, name: str) -> zarr.Array[Any]:
    import zarr

    try:
        array = group[name]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"its array {name!r} is missing or damaged ({error})") from error
    if not isinstance(array, zarr.Array):
        raise damaged(path, f"{name!r} is no array")
    stored = sum(file.stat().st_size for file in (path / name).rglob("*") if file.is_file())
    check_array(path, name, array.shape, np.dtype(array.dtype), stored=stored)
    if np.dtype(array.dtype).itemsize * int(np.prod(array.chunks)) > MAX_CHUNK_BYTES:
        raise damaged(path, f"{name!r} has chunks of {array.chunks} values")
    return array
