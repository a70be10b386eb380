"""The heatmap of a slide as OME-Zarr: probability, attention and more on the grid of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from slidetriage.errors import OutputError
from slidetriage.tiling import TileGrid

from .results import ScoredTiles
from .settings import Ngff

CHANNELS = ("probability", "attention", "coverage", "novelty")
"""The heatmap's channels, in order; the last is there if the model has a reference for it."""

_COLORS = ("FF0000", "00FFFF", "FFFFFF", "FFFF00")
_AXES = ("c", "y", "x")
_CHUNK = (1, 128, 128)
_SMALLEST_SIDE = 32


def rasterise(scored: ScoredTiles) -> NDArray[np.float32]:
    """Put the tiles on their grid: channels x rows x columns, as `CHANNELS` has them.

    All are NaN where nothing was read, be it bare glass or a tile that could not be
    decoded; tiles.geojson and result.json tell the two apart.
    """
    channels = [scored.probability, scored.attention, scored.coverage]
    if scored.novelty is not None:
        channels.append(scored.novelty)
    missing = np.float32(np.nan)
    return np.stack([scored.on_grid(np.where(scored.read, c, missing)) for c in channels])


def write_heatmap(
    path: Path,
    scored: ScoredTiles,
    *,
    ngff: Ngff = "0.5",
    name: str,
    provenance: Mapping[str, object],
) -> None:
    """Write the heatmap as an OME-Zarr image with a pyramid; the same input gives the same bytes.

    A pixel of the first level is one tile. Transforms are in micrometres from the top left corner
    of the whole slide (the bounds of MIRAX and the like are not subtracted) and place the
    *centre* of each pixel, with the centre of the slide's first pixel as origin, as NGFF 0.6
    states and napari and ome-zarr-py do.

    Each coarser pixel is the mean of all first-level pixels under it that are not NaN; an odd
    last row or column is padded with NaN, so pixels stay exactly twice as large. Every chunk is
    written, also those of NaN only: a chunk that is missing was lost and was never meant to be
    empty. Chunks carry a checksum (CRC-32C in 0.5, Adler-32 within zlib in 0.4, the one
    checksummed codec that QuPath reads), so that a flipped bit is an error when read.

    Parameters
    ----------
    path
        Directory to create; must not exist.
    ngff
        Version of the specification; QuPath reads 0.4 only (zarr version 2).
    name
        Of the image, shown by viewers.
    provenance
        What made the heatmap, as plain JSON; stands beside the OME metadata under `slidetriage`.

    Raises
    ------
    OutputError
        If something is at `path` already.
    """
    if path.exists():
        raise OutputError(
            f"There is something at {path.name} already.", mend="Write to a new directory."
        )
    levels = _pyramid(rasterise(scored))
    image = _image_metadata(name, levels, scored.tiles.grid)
    own = orjson.loads(orjson.dumps(dict(provenance), option=orjson.OPT_SORT_KEYS))
    if ngff == "0.5":
        attributes = {"ome": {"version": ngff, **image}, "slidetriage": own}
    else:
        image["multiscales"][0]["version"] = image["omero"]["version"] = ngff
        attributes = {**image, "slidetriage": own}
    group = zarr.open_group(
        path, mode="w-", zarr_format=3 if ngff == "0.5" else 2, attributes=attributes
    )
    for number, level in enumerate(levels):
        _write_level(group, f"s{number}", level, ngff)


def _write_level(group: zarr.Group, path: str, level: NDArray[np.float32], ngff: Ngff) -> None:
    kinds: dict[str, Any] = (
        {
            "serializer": BytesCodec(endian="little"),
            "compressors": (ZstdCodec(level=5), Crc32cCodec()),
            "dimension_names": _AXES,
        }
        if ngff == "0.5"
        else {
            "compressors": {"id": "zlib", "level": 6},
            "chunk_key_encoding": {"name": "v2", "separator": "/"},
        }
    )
    array = group.create_array(
        path,
        shape=level.shape,
        dtype="<f4",
        chunks=_CHUNK,
        fill_value=float("nan"),
        config={"write_empty_chunks": True},
        **kinds,
    )
    array[...] = level


def _pyramid(raster: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The raster and its means over 2 x 2, 4 x 4, ... pixels, down to a side of 32 or less."""
    known = ~np.isnan(raster)
    total, count = np.where(known, raster, 0).astype(np.float64), known.astype(np.float64)
    levels = [raster]
    while max(total.shape[1:]) > (1 if len(levels) == 1 else _SMALLEST_SIDE):
        total, count = _sum_fours(total), _sum_fours(count)
        mean = np.full(total.shape, np.nan)
        np.divide(total, count, out=mean, where=count > 0)
        levels.append(mean.astype(np.float32))
    return levels


def _sum_fours(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    planes = np.pad(planes, ((0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)))
    return planes[:, ::2, ::2] + planes[:, 1::2, ::2] + planes[:, ::2, 1::2] + planes[:, 1::2, 1::2]


def _image_metadata(name: str, levels: list[NDArray[np.float32]], grid: TileGrid) -> dict[str, Any]:
    windows = [1.0, _highest(levels[0][1]), 1.0, *map(_highest, levels[0][3:])]
    return {
        "multiscales": [
            {
                "name": name,
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"},
                ],
                "datasets": [
                    {"path": f"s{number}", "coordinateTransformations": _transforms(grid, number)}
                    for number in range(len(levels))
                ],
                "type": "nanmean",
                "metadata": {
                    "description": "Mean of the tiles under each pixel that are not NaN.",
                    "method": "slidetriage.workflows.heatmap",
                },
            }
        ],
        "omero": {
            "channels": [
                {
                    "label": label,
                    "color": color,
                    "family": "linear",
                    "active": label == CHANNELS[0],
                    "window": {"min": 0.0, "max": top, "start": 0.0, "end": top},
                }
                for label, color, top in zip(CHANNELS, _COLORS, windows, strict=False)
            ]
        },
    }


def _transforms(grid: TileGrid, level: int) -> list[dict[str, object]]:
    cell_um = grid.stride_px * grid.mpp
    size_um = cell_um * 2**level
    tile_um = grid.tile_px * grid.mpp
    # The first pixel's centre lies half of what it spans past the first tile's centre less half
    # a cell, and half a level-0 pixel is subtracted because that is where the origin is.
    shift_um = (tile_um - cell_um + size_um) / 2
    y_um = grid.bounds.y * grid.mpp_y + shift_um - grid.mpp_y / 2
    x_um = grid.bounds.x * grid.mpp_x + shift_um - grid.mpp_x / 2
    return [
        {"type": "scale", "scale": [1.0, size_um, size_um]},
        {"type": "translation", "translation": [0.0, y_um, x_um]},
    ]


def _highest(plane: NDArray[np.float32]) -> float:
    known = plane[~np.isnan(plane)]
    top = float(known.max()) if known.size else 1.0
    return top if top > 0 else 1.0
