"""Regions and tiles as GeoJSON that QuPath opens: annotations, and tiles with measurements.

QuPath refuses a whole file for one feature it does not like, so `check_geojson` in the module
beside this one tells what it would say.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from io import BufferedWriter, RawIOBase
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast
from uuid import UUID

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from slidetriage.errors import UsageError

from .results import Region, ScoredTiles
from .settings import RESEARCH_USE

FRAME_ORIGIN = "frame origin (level-0 px)"
"""Key of the metadata that says where coordinates begin."""

UNREADABLE = "Unreadable"
"""Class of the tiles that were planned and could not be read."""

GRID_PX = 0.01
"""QuPath snaps coordinates to it on reading (ROITypeAdapters, PrecisionModel)."""

_UNREADABLE_COLOR = (180, 180, 180)
_NAMESPACE = UUID("5b1c1f0e-6d0a-5c53-9e0a-3f0d5c0c7a11")


@dataclass(frozen=True, slots=True)
class GeoJsonFrame:
    """Whose objects they are, what they are called, and where QuPath's image begins."""

    slide_id: str
    class_name: str
    """The positive class; `:` and line breaks, which QuPath gives a meaning, become spaces."""
    class_color: tuple[int, int, int] = (200, 0, 0)
    """Red, green, blue from 0 to 255; QuPath keeps the first colour it sees for a class name."""
    bounds_px: tuple[float, float] = (0.0, 0.0)
    """Left and top of the slide's bounds in level-0 px, where QuPath crops the image."""
    crop_to_bounds: bool = True
    """False for images opened in QuPath with `--no-crop`."""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Free text shown by QuPath beside every region: the model, the run."""

    @property
    def label(self) -> str:
        """The class name as QuPath may be given it."""
        return class_label(self.class_name)

    @property
    def origin_px(self) -> tuple[float, float]:
        """Where QuPath's image begins in level-0 px."""
        return self.bounds_px if self.crop_to_bounds else (0.0, 0.0)

    @property
    def notes(self) -> dict[str, str]:
        """The metadata with the frame of the coordinates and the research note."""
        frame = "openslide-bounds" if self.crop_to_bounds else "level-0"
        x, y = self.origin_px
        fixed = {"frame": frame, FRAME_ORIGIN: f"{x:.12g}, {y:.12g}", "note": RESEARCH_USE}
        return {**{key: str(value) for key, value in self.metadata.items()}, **fixed}


def write_annotations(path: Path, regions: Iterable[Region], frame: GeoJsonFrame) -> int:
    """Write regions as locked annotations with measurements; returns how many were written.

    A `path` that ends in `.gz` is compressed. Identifiers follow from slide and shape, so a
    second import of the same region is noticed by QuPath.
    """
    return _write(path, frame, _region_features(regions, frame))


def write_tiles(path: Path, scored: ScoredTiles, frame: GeoJsonFrame) -> int:
    """Write every planned tile with its measurements; returns how many were written.

    Each tile is drawn as its cell of the heatmap. Tiles that could not be read carry the class
    `Unreadable` and no measurement but their tissue, so that gaps are seen and not taken for
    low probability. Above some 100,000 tiles QuPath becomes slow: it loads the whole file.
    """
    return _write(path, frame, _tile_features(scored, frame))


def class_label(name: str) -> str:
    """The name of a class as QuPath may be given it: `:` and line breaks become spaces."""
    label = " ".join(name.replace(":", " ").split())
    if not label:
        raise UsageError(
            f"{name!r} is no name for a class in QuPath.",
            mend="Give the model's classes names with letters in them.",
        )
    return label


def settle_shape(shape: BaseGeometry, origin_px: tuple[float, float]) -> BaseGeometry:
    """Move into QuPath's frame, snap to its grid, repair, and keep what has an area."""
    moved = shapely.transform(shape, lambda xy: np.round(xy - np.asarray(origin_px), 2))
    # Snapping comes first, for it can make a shape invalid; what repair adds is snapped again.
    snapped = shapely.set_precision(shapely.make_valid(moved), GRID_PX)
    parts = shapely.get_parts(shapely.get_parts(snapped))
    polygons = [part for part in parts if part.geom_type == "Polygon" and part.area >= GRID_PX]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def identify(frame: GeoJsonFrame, kind: str, shape: str) -> str:
    """The identifier that follows from the slide, the kind of object and its shape in words."""
    # uuid5 in a third of its time: there may be millions.
    named = f"{frame.slide_id}\n{kind}\n{shape}".encode()
    text = sha1(_NAMESPACE.bytes + named, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(text[16], 16) % 4]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def write_collection(
    path: Path, notes: Mapping[str, str], features: Iterable[bytes], *, level: int = 6
) -> int:
    """Write features, each the text of one, a line each; returns how many were written.

    `level` is gzip's, for a `path` that ends in `.gz`.
    """
    count = 0
    with _open(path, level) as file:
        head = orjson.dumps({"type": "FeatureCollection", "metadata": notes})
        file.write(head[:-1] + b',"features":[')
        for count, feature in enumerate(features, start=1):
            file.write((b"\n" if count == 1 else b",\n") + feature)
        file.write(b"\n]}\n")
    return count


def _region_features(regions: Iterable[Region], frame: GeoJsonFrame) -> Iterator[dict[str, object]]:
    label, notes = frame.label, frame.notes
    for rank, region in enumerate(regions, start=1):
        shape = settle_shape(region.shape, frame.origin_px)
        if shape.is_empty:
            continue
        measurements = {
            "Area mm^2": region.area_mm2,
            f"{label} probability mean": region.mean_probability,
            f"{label} probability max": region.max_probability,
            "Tiles": region.tile_count,
        }
        yield {
            "type": "Feature",
            "id": identify(frame, "annotation", shapely.to_wkt(region.shape, 2)),
            "geometry": shapely.geometry.mapping(shape),
            "properties": {
                "objectType": "annotation",
                "name": f"{label} region {rank}",
                "classification": {"name": label, "color": frame.class_color},
                "isLocked": True,
                "measurements": _finite(measurements),
                "metadata": notes,
            },
        }


def _tile_features(scored: ScoredTiles, frame: GeoJsonFrame) -> Iterator[dict[str, object]]:
    name = f"{frame.label} probability"
    cells = scored.cells_px
    shifted = np.round(cells - np.tile(frame.origin_px, 2), 2)
    columns = {name: scored.probability, "Attention": scored.attention}
    columns["Coverage"] = scored.coverage
    if scored.novelty is not None:
        columns["Novelty"] = scored.novelty
    # Single-precision scalars, not Python floats: orjson writes the fewest digits that hold them.
    values = zip(*columns.values(), scored.tiles.tissue, strict=True)
    for cell, ring, read, measured in zip(cells, _rings(shifted), scored.read, values, strict=True):
        *found, tissue = measured
        properties: dict[str, object] = {"objectType": "tile", "isLocked": True}
        measurements = {"Tissue": tissue}
        if read:
            measurements = {**dict(zip(columns, found, strict=True)), **measurements}
        else:
            properties["classification"] = {"name": UNREADABLE, "color": _UNREADABLE_COLOR}
            properties["metadata"] = {"status": "The pixels of this tile could not be read."}
        properties["measurements"] = _finite(measurements)
        yield {
            "type": "Feature",
            "id": identify(frame, "tile", ",".join([f"{edge:.2f}" for edge in cell])),
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": properties,
        }


def _rings(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """N x 5 x 2: the closed outline of each cell, from left, top, right, bottom."""
    return np.take(cells, [0, 1, 2, 1, 2, 3, 0, 3, 0, 1], axis=1).reshape(-1, 5, 2)


def _finite(measurements: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in measurements.items() if isfinite(value)}


def _write(path: Path, frame: GeoJsonFrame, features: Iterable[dict[str, object]]) -> int:
    texts = (orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY) for feature in features)
    return write_collection(path, frame.notes, texts)


@contextmanager
def _open(path: Path, level: int) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            yield raw
            return
        # Neither name nor time in the header: the same objects give the same bytes.
        with (
            gzip.GzipFile("", "wb", level, raw, mtime=0) as packed,
            # The packer is called twice a megabyte, not for every feature.
            BufferedWriter(cast(RawIOBase, packed), 1 << 19) as whole,
        ):
            yield whole
