"""The verdict QuPath would give on a GeoJSON file, without QuPath."""

from __future__ import annotations

import gzip
import json
from collections import Counter, deque
from collections.abc import Iterator
from importlib.resources import files
from math import isfinite
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import shapely
from shapely.validation import explain_validity

Contract = Literal["written", "read"]

_SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_LONGEST = 240


def check_geojson(path: Path, *, contract: Contract = "written") -> list[str]:
    """List what is wrong with a GeoJSON file; nothing means QuPath opens it.

    Needs the package jsonschema, which is a requirement of development only.

    Parameters
    ----------
    path
        Plain or `.gz`.
    contract
        `"written"`: the rules slidetriage writes by, strict in everything QuPath ignores,
        replaces or reads differently from version to version. `"read"`: only what makes
        QuPath 0.7.0 refuse the file or read nothing; for files of other programs.
    """
    problems = []
    if not path.name.lower().endswith(_SUFFIXES):
        problems.append(f"{path.name}: QuPath opens {', '.join(_SUFFIXES)} only")
    try:
        text = _read_text(path)
        document, oddities = _parse(text)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        return [*problems, f"{path.name}: not JSON: {error}"]
    if contract == "written":
        problems += oddities
    problems += _check_schema(document, contract)
    problems += _check_shapes(document, contract)
    if contract == "written":
        problems += _check_identifiers(document)
    return problems


def load_schema() -> dict[str, Any]:
    """Load the JSON Schema (2020-12) of both contracts."""
    source = files(__package__) / "schemas" / "qupath-geojson.schema.json"
    schema: dict[str, Any] = json.loads(source.read_text("utf-8"))
    return schema


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix.lower() == ".gz":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8")


def _parse(text: str) -> tuple[Any, list[str]]:
    """Parse, and list what Python and QuPath forgive but JSON does not allow or define."""
    oddities: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        oddities.extend(f"key {key!r} twice in one object" for key, n in counts.items() if n > 1)
        return dict(pairs)

    def allow(literal: str) -> float:
        oddities.append(f"{literal} is no JSON")
        return float(literal.replace("Infinity", "inf"))

    if text.startswith("\N{ZERO WIDTH NO-BREAK SPACE}"):
        oddities.append("starts with a byte order mark")
        text = text[1:]
    return json.loads(text, object_pairs_hook=build, parse_constant=allow), oddities


def _check_schema(document: Any, contract: Contract) -> Iterator[str]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import relevance

    schema = {**load_schema(), "$ref": f"#/$defs/{contract}"}
    errors = list(Draft202012Validator(schema).iter_errors(document))
    for error in sorted(errors, key=lambda error: (error.json_path, relevance(error))):
        where = "/".join(str(step) for step in error.absolute_path) or "the file"
        yield f"{where}: {shorten(error.message, _LONGEST)}"


def _features(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object that may be a feature, with its place, children included."""
    waiting: deque[tuple[str, Any]] = deque()
    if isinstance(document, dict) and isinstance(document.get("features"), list):
        waiting.extend((f"features/{i}", item) for i, item in enumerate(document["features"]))
    elif isinstance(document, list):
        waiting.extend((str(i), item) for i, item in enumerate(document))
    else:
        bare = isinstance(document, dict) and "coordinates" in document
        waiting.append(("the file", {"geometry": document} if bare else document))
    while waiting:
        where, feature = waiting.popleft()
        if not isinstance(feature, dict):
            continue
        yield where, feature
        properties = feature.get("properties")
        for key in ("childObjects", "children"):
            children = properties.get(key) if isinstance(properties, dict) else None
            if isinstance(children, list):
                place = f"{where}/properties/{key}"
                waiting.extend((f"{place}/{i}", child) for i, child in enumerate(children))


def _check_identifiers(document: Any) -> Iterator[str]:
    counts = Counter(str(feature.get("id")) for _, feature in _features(document))
    for identifier, count in counts.items():
        if count > 1:
            yield f"id {identifier} {count} times"


def _check_shapes(document: Any, contract: Contract) -> Iterator[str]:
    for where, feature in _features(document):
        for key in ("geometry", "nucleusGeometry"):
            geometry = feature.get(key)
            if isinstance(geometry, dict):
                for problem in _check_geometry(geometry, contract):
                    yield f"{where}/{key}: {problem}"


def _check_geometry(geometry: dict[str, Any], contract: Contract) -> Iterator[str]:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(coordinates, list):
        return
    polygons = [coordinates] if kind == "Polygon" else coordinates
    try:
        parts = [
            [[(float(x), float(y)) for x, y, *_ in ring] for ring in polygon if ring]
            for polygon in polygons
        ]
    except (TypeError, ValueError):
        return  # the schema has said so
    flat = [ring for polygon in parts for ring in polygon]
    if not all(isfinite(value) for ring in flat for point in ring for value in point):
        yield "a coordinate is not finite"
    elif any(ring[0] != ring[-1] for ring in flat):
        yield "a ring is not closed"
    elif all(len(ring) >= 4 for ring in flat):
        snapped = [[_snap(ring) for ring in polygon] for polygon in parts]
        if contract == "written" and not all(polygon and all(polygon) for polygon in snapped):
            yield "a ring without an area"
        whole = [list(filter(None, polygon)) for polygon in snapped if polygon and polygon[0]]
        shape = shapely.MultiPolygon([(polygon[0], polygon[1:]) for polygon in whole])
        if not shape.is_valid:
            yield f"not a valid shape: {explain_validity(shape)}"


def _snap(ring: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The ring as QuPath has it after reading; nothing if no three of its points differ."""
    # Hundredths of a pixel: PrecisionModel in ROITypeAdapters and GeometryTools.
    snapped = [(round(x, 2), round(y, 2)) for x, y in ring]
    return snapped if len(set(snapped)) > 2 else []
