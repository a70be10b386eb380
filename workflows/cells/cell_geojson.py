"""Cells as GeoJSON that QuPath opens: detections with a class, measurements and reasons."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.nuclei import Assessment, NucleusTable
from slidetriage.workflows.geojson import GeoJsonFrame, class_label, identify, write_collection

from .cell_chunks import (
    ABNORMALITY,
    FLAGGED,
    SCORE,
    CellChunk,
    CellColumns,
    NumberedCells,
    mend_outlines,
    open_cells,
    whole_file,
)

_COLUMNS = "columns"  # key of the file's metadata, where the readers find what all cells have
_ORIGIN = "frame origin (level-0 px)"
# Of 1,421 bytes a cell, gzip leaves 428 at level 1 (17 us), 373 at 4 (25 us), 345 at 6 (43 us).
_LEVEL = 4
_BATCH = 65_536
_FEATURE = (
    b'{"type":"Feature","id":"%b","geometry":{"type":"Polygon","coordinates":[%b]},'
    b'"properties":{"objectType":"detection","name":"Nucleus %d","classification":%b,'
    b'"measurements":{%b}%b}}'
)


@dataclass(frozen=True, slots=True)
class CellFiles:
    """What became of the cells."""

    paths: tuple[Path, ...]
    """One file, or several where they were split."""
    written: int
    vanished: int
    """Cells of which nothing is left on QuPath's grid of 0.01 px; they are in no file."""


def write_cell_geojson(
    path: Path, chunks: Iterable[CellChunk], frame: GeoJsonFrame, *, most: int | None = None
) -> CellFiles:
    """Write cells as detections, while they come; the same cells give the same bytes.

    The name of a detection is `Nucleus` and its label: the row of the Parquet table plus one, and
    the value of its pixels in the label image. The class is the one of the assessment, in whose
    colour QuPath draws it; `Flagged` is a measurement of 0 or 1 and the reasons are metadata.
    Memory does not grow with the number of cells.

    Parameters
    ----------
    path
        Ends in `.geojson` or `.geojson.gz`. Appears once all cells are in it.
    chunks
        Of one slide, drawn one by one.
    frame
        Whose cells they are and where QuPath's image begins; its class is not used.
    most
        Cells per file, for QuPath holds a file in memory and becomes slow above some 100,000
        objects; further files are called `cells-2.geojson.gz` and so on. By default there is one
        file, whose name others can rely on.
    """
    if most is not None and most < 1:
        raise UsageError(f"{most} cells per file are none.", mend="Allow one at least.")
    columns, stream = open_cells(chunks)
    classes = _class_texts(columns)
    notes = {**frame.notes, _COLUMNS: orjson.dumps(columns.record()).decode()}
    seen = 0

    def features() -> Iterator[bytes]:
        nonlocal seen
        for cells in stream:
            seen += len(cells.table)
            yield from _features(cells, columns, classes, frame)

    texts, written = features(), 0
    paths: list[Path] = []
    first = next(texts, None)
    with ExitStack() as stack:  # all files appear when the last is written, or none does
        while first is not None or not paths:
            target = path if not paths else _numbered(path, len(paths) + 1)
            rest = texts if most is None else islice(texts, most - 1)
            hidden = stack.enter_context(whole_file(target))
            some = chain([first], rest) if first is not None else ()
            written += write_collection(hidden, notes, some, level=_LEVEL)
            paths.append(target)
            first = next(texts, None)
    return CellFiles(tuple(paths), written, seen - written)


def read_cell_geojson(path: Path) -> Iterator[CellChunk]:
    """Read cells that `write_cell_geojson` wrote, some at a time, in level-0 px.

    Values are exact; outlines are those written, on a grid of 0.01 px. Raises `UsageError` for
    files of other programs, QuPath's own among them.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        try:
            head = orjson.loads(file.readline().rstrip() + b"]}")["metadata"]
            columns = CellColumns.from_record(orjson.loads(head[_COLUMNS]))
            origin = np.array([float(edge) for edge in head[_ORIGIN].split(", ")])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path.name}: not a file of cells by slidetriage.",
                mend="Give the cells.geojson.gz of a run, as it was written.",
            ) from error
        lines = (line for line in file if line.startswith(b"{"))
        while batch := [orjson.loads(line.rstrip(b",\n")) for line in islice(lines, _BATCH)]:
            yield _chunk(batch, columns, origin)


def _numbered(path: Path, number: int) -> Path:
    stem, *suffixes = path.name.split(".")
    return path.with_name(".".join([f"{stem}-{number}", *suffixes]))


def _class_texts(columns: CellColumns) -> list[bytes]:
    pairs = zip(columns.class_names, columns.class_colors, strict=True)
    return [orjson.dumps({"name": class_label(name), "color": color}) for name, color in pairs]


def _features(
    cells: NumberedCells, columns: CellColumns, classes: list[bytes], frame: GeoJsonFrame
) -> Iterator[bytes]:
    """Text put together by hand: a third of the time that one dictionary per cell takes."""
    mended = mend_outlines(cells.table, frame.origin_px)
    table = mended.table.choose(mended.sound)
    assessment = cells.assessment.choose(mended.sound)
    labels = (cells.first_row + 1 + np.flatnonzero(mended.sound)).tolist()
    reasons = columns.reasons_of(assessment)
    notes = {text: b',"metadata":%b' % orjson.dumps({"reasons": text}) for text in set(reasons)}
    notes[""] = b""
    rows = zip(
        labels,
        _ring_texts(table),
        assessment.classes.tolist(),
        _measurement_texts(table, assessment),
        reasons,
        strict=True,
    )
    for label, ring, kind, measurements, reason in rows:
        identifier = identify(frame, "detection", f"{label}\n{ring.decode()}").encode()
        yield _FEATURE % (identifier, ring, label, classes[kind], measurements, notes[reason])


def _ring_texts(table: NucleusTable) -> Iterator[bytes]:
    """The closed outline of each nucleus."""
    if not len(table):
        return
    points = np.ascontiguousarray(table.points)
    corners = _dump(points)[2:-2].split(b"],[")
    offsets = table.offsets.tolist()
    for start, stop in pairwise(offsets):
        yield b"[[%b],[%b]]" % (b"],[".join(corners[start:stop]), corners[start])


def _measurement_texts(table: NucleusTable, assessment: Assessment) -> Iterator[bytes]:
    """The inside of `measurements` for each nucleus; what is not finite is left out."""
    columns: dict[str, NDArray[Any]] = {
        SCORE: table.scores,
        ABNORMALITY: assessment.abnormality,
        FLAGGED: assessment.flagged.astype(np.uint8),
        **table.measurements,
    }
    known = np.all([np.isfinite(column) for column in columns.values()], axis=0).tolist()
    # orjson writes the fewest digits that hold a single-precision value, and null for NaN.
    texts = [_dump(np.ascontiguousarray(column))[1:-1].split(b",") for column in columns.values()]
    keys = [orjson.dumps(name) + b":" for name in columns]
    template = b",".join(key.replace(b"%", b"%%") + b"%b" for key in keys)
    for row, whole in zip(zip(*texts, strict=True), known, strict=False):
        if whole:
            yield template % row
        else:
            pairs = zip(keys, row, strict=True)
            yield b",".join([key + value for key, value in pairs if value != b"null"])


def _dump(values: NDArray[Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def _chunk(
    batch: list[dict[str, Any]], columns: CellColumns, origin: NDArray[np.float64]
) -> CellChunk:
    rings = [feature["geometry"]["coordinates"][0][:-1] for feature in batch]
    offsets = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64)
    properties = [feature["properties"] for feature in batch]
    found = [each["measurements"] for each in properties]

    def column(name: str) -> NDArray[np.float32]:
        return np.array([values.get(name, np.nan) for values in found], np.float32)

    kinds = {class_label(name): code for code, name in reversed([*enumerate(columns.class_names)])}
    classes = [kinds[each["classification"]["name"]] for each in properties]
    reasons = [each.get("metadata", {}).get("reasons", "") for each in properties]
    table = NucleusTable(
        np.round(np.concatenate(rings) + origin, 2),
        offsets,
        column(SCORE),
        {name: column(name) for name in columns.measurements},
    )
    assessment = Assessment(
        column(ABNORMALITY),
        np.array(classes, np.uint8),
        columns.class_names,
        columns.class_colors,
        column(FLAGGED) > 0,
        columns.reason_codes(reasons),
        columns.reason_names,
    )
    return table, assessment
