"""Where nuclei are looked for: regions that were found, given as GeoJSON, or all tissue."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import shapely
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from slidetriage.errors import UsageError
from slidetriage.workflows.geojson import FRAME_ORIGIN
from slidetriage.workflows.steps import SlidePlan
from slidetriage.wsi import Box

ANNOTATIONS = "annotations"
SUFFIXES = (".geojson", ".geojson.gz", ".json")

_MOST_BYTES = 1 << 30
"""Of a file of regions, unpacked: regions are drawn by people and by models, not cell by cell."""


@dataclass(frozen=True, slots=True)
class Area:
    """One region in which nuclei are looked for."""

    name: str
    shape: BaseGeometry
    """In level-0 px of the whole slide (bounds not subtracted), within its bounds."""


class AreaError(UsageError):
    """Given regions cannot be used for a slide."""

    code = "E_REGIONS"


def hash_given(given: str) -> str:
    """sha256 over the names and contents of the files of regions; raises `AreaError`."""
    digest = hashlib.sha256()
    for path in _list_files(Path(given)):
        name = str(path.relative_to(given)) if path != Path(given) else ""
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(hashlib.sha256(_read(path)).digest())
    return digest.hexdigest()


def read_given(given: str, plan: SlidePlan, *, cropped: bool) -> tuple[Area, ...]:
    """The regions given for a slide; none where a run flagged none.

    Parameters
    ----------
    given
        A GeoJSON file, or a folder: results of a run (SLIDE_ID/annotations.geojson), or files
        called as their slides or as the slides' ids.
    cropped
        Whether coordinates begin at the slide's bounds, as in QuPath, or at level 0. What our
        own files say of themselves comes first.

    Raises
    ------
    AreaError
        There is no file for this slide, it is no GeoJSON, holds no region, or one that lies
        outside the slide.
    """
    path = _find_file(Path(given), plan)
    record = _parse(path)
    bounds = plan.slide.bounds
    origin = _origin(record, bounds if cropped else Box(0, 0, 0, 0))
    frame = shapely.box(bounds.x, bounds.y, bounds.x + bounds.width, bounds.y + bounds.height)
    areas: list[Area] = []
    for number, feature in enumerate(_features(record), start=1):
        shape = _shape(feature, f"{path.name}: region {number}")
        if shape is None:
            continue
        moved = shapely.transform(shape, lambda xy: xy + origin)
        inside = shapely.intersection(shapely.make_valid(moved), frame)
        if shapely.area(inside) == 0:
            raise AreaError(
                f"{path.name}: region {number} lies outside the slide, which is "
                f"{bounds.width:g} x {bounds.height:g} px.",
                mend="Give regions of this slide, in pixels of its level 0 as QuPath writes them.",
            )
        # Names in the file may be of persons: they are not taken over.
        areas.append(Area(f"region {len(areas) + 1}", inside))
    if not areas and not _is_ours(record):
        raise AreaError(
            f"{path.name}: there is no region in it: no polygon that is an annotation.",
            mend="Draw regions in QuPath and export them as GeoJSON.",
        )
    return tuple(areas)


def unite(areas: tuple[Area, ...]) -> BaseGeometry:
    """All areas in one shape."""
    return shapely.union_all([area.shape for area in areas])


def _list_files(given: Path) -> list[Path]:
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise AreaError(f"{given}: there is no such file or folder of regions.")
    found = [
        path
        for path in sorted(given.rglob("*"))
        if path.name.endswith(SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(given).parts)
        and (path.parent == given or path.name.startswith(f"{ANNOTATIONS}."))
    ]
    if not found:
        raise AreaError(
            f"{given}: there are no regions in this folder.",
            mend="Give the folder of a finished run, or one with a GeoJSON file for each slide.",
        )
    return found


def _find_file(given: Path, plan: SlidePlan) -> Path:
    if given.is_file():
        return given
    stem = plan.slide.path.stem
    names = [f"{plan.slide_id}/{ANNOTATIONS}", plan.slide_id, plan.slide.path.name, stem]
    for name in names:
        for suffix in SUFFIXES:
            path = given / f"{name}{suffix}"
            if path.is_file():
                return path
    raise AreaError(
        f"{given}: there are no regions for this slide in the folder.",
        mend=f"Put a file {stem}.geojson there, or look for nuclei everywhere with --whole.",
    )


def _read(path: Path) -> bytes:
    try:
        if path.name.endswith(".gz"):
            with gzip.open(path) as packed:
                text = packed.read(_MOST_BYTES + 1)
        else:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError) as error:
        raise AreaError(f"{path.name}: it cannot be read ({error}).") from error
    if len(text) > _MOST_BYTES:
        raise AreaError(
            f"{path.name}: it is larger than {_MOST_BYTES >> 20} MB, more than regions take.",
            mend="Give regions, not cells or tiles.",
        )
    return text


def _parse(path: Path) -> Any:
    try:
        return orjson.loads(_read(path))
    except orjson.JSONDecodeError as error:
        raise AreaError(
            f"{path.name}: it is no GeoJSON ({error}).", mend="Export it from QuPath again."
        ) from error


def _origin(record: Any, bounds: Box) -> tuple[float, float]:
    """What to add to coordinates; our own files say where their frame begins."""
    if not _is_ours(record):
        return bounds.x, bounds.y
    x, _, y = record["metadata"][FRAME_ORIGIN].partition(",")
    return float(x), float(y)


def _is_ours(record: Any) -> bool:
    """Whether slidetriage wrote it."""
    notes = record.get("metadata") if isinstance(record, dict) else None
    return isinstance(notes, dict) and isinstance(notes.get(FRAME_ORIGIN), str)


def _features(record: Any) -> Iterator[dict[str, Any]]:
    """Annotations: of a collection, of a list, or one by itself, as QuPath writes them."""
    listed = record
    if isinstance(record, dict):
        listed = record.get("features", [record])
    for feature in listed if isinstance(listed, list) else []:
        if not isinstance(feature, dict):
            continue
        properties = feature.get("properties")
        kind = properties.get("objectType") if isinstance(properties, dict) else None
        if (kind or "annotation") == "annotation":
            yield feature


def _shape(feature: dict[str, Any], what: str) -> BaseGeometry | None:
    """The polygon of a feature; None where it is a point or a line."""
    geometry = feature.get("geometry", feature if "coordinates" in feature else None)
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        shape: BaseGeometry = shapely.from_geojson(
            orjson.dumps({key: geometry[key] for key in ("type", "coordinates")})
        )
    except (GEOSException, KeyError) as error:
        raise AreaError(f"{what}: its outline cannot be used ({error}).") from error
    if shape.is_empty:
        raise AreaError(f"{what}: its outline is empty.")
    return shape
