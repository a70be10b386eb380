"""Cells as a GeoParquet table: one row each, for analysis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from slidetriage.errors import UsageError
from slidetriage.models.nuclei import Assessment, NucleusTable
from slidetriage.workflows.settings import RESEARCH_USE

from .cell_chunks import (
    CellChunk,
    CellColumns,
    NumberedCells,
    mend_outlines,
    open_cells,
    replace_outlines,
    whole_file,
)

ROWS_PER_GROUP = 65_536
"""Rows that are held in memory, and that a reader loads at once."""

_OWN = b"slidetriage"
_EDGES = ("xmin", "ymin", "xmax", "ymax")
# GeoParquet 1.1 (geoparquet.org/releases/v1.1.0). Written before the first cell is known, so that
# every reader finds it: without the extent of all, which the statistics of bbox tell.
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None,  # pixels of an image are no place on earth
            "edges": "planar",
            "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
        }
    },
}


def write_cell_parquet(
    path: Path, chunks: Iterable[CellChunk], *, provenance: Mapping[str, object]
) -> int:
    """Write cells as GeoParquet 1.1, while they come; returns how many.

    Outlines are polygons in level-0 px of the whole slide, y down (no bounds are subtracted), on
    the grid of 0.01 px that QuPath has: the numbers are those of `cells.geojson.gz`, and the file
    is half as large as with all digits. An outline with no area on that grid stays, as a row that
    GEOS calls invalid, so that rows, names in QuPath and labels agree. Row groups are equally
    large however the cells came, so the same cells give the same bytes. Memory does not grow with
    the number of cells.

    Parameters
    ----------
    path
        Appears once all cells are in it.
    chunks
        Of one slide, drawn one by one.
    provenance
        What made the cells, as plain JSON; stands in the file's metadata under `slidetriage`.
    """
    columns, stream = open_cells(chunks)
    schema = _schema(columns, provenance)
    rows = 0
    with (
        whole_file(path) as hidden,
        pq.ParquetWriter(
            hidden, schema, compression="zstd", use_dictionary=["class", "reasons"]
        ) as writer,
    ):
        waiting: list[pa.RecordBatch] = []
        for cells in stream:
            mended = mend_outlines(cells.table)
            waiting.append(_batch(cells, mended.shapes, columns, schema))
            rows += len(cells.table)
            waiting = _write_groups(writer, waiting)
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), ROWS_PER_GROUP)
    return rows


def read_cell_parquet(path: Path) -> Iterator[CellChunk]:
    """Read cells that `write_cell_parquet` wrote, a row group at a time.

    Values are exact; outlines are those written, on a grid of 0.01 px. Raises `UsageError` for
    tables of other programs.
    """
    with pq.ParquetFile(path) as file:
        try:
            record = orjson.loads(file.schema_arrow.metadata[_OWN])
            columns = CellColumns.from_record(record["columns"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path.name}: not a table of cells by slidetriage.",
                mend="Give the cells.parquet of a run, as it was written.",
            ) from error
        for group in range(file.num_row_groups):
            yield _chunk(file.read_row_group(group), columns)


def _schema(columns: CellColumns, provenance: Mapping[str, object]) -> pa.Schema:
    own = {
        "columns": columns.record(),
        "frame": "level-0 px of the whole slide, y down",
        "note": RESEARCH_USE,
        "provenance": dict(provenance),
    }
    return pa.schema(
        [
            pa.field("label", pa.uint32(), nullable=False),
            pa.field("geometry", pa.binary(), nullable=False),
            pa.field("bbox", pa.struct([pa.field(edge, pa.float32()) for edge in _EDGES])),
            pa.field("class", pa.dictionary(pa.int16(), pa.string())),
            pa.field("flagged", pa.bool_()),
            pa.field("abnormality", pa.float32()),
            pa.field("score", pa.float32()),
            pa.field("reasons", pa.string()),
            *[pa.field(name, pa.float32()) for name in columns.measurements],
        ],
        metadata={b"geo": _dump(_GEO), _OWN: _dump(own)},
    )


def _batch(
    cells: NumberedCells,
    shapes: NDArray[np.object_],
    columns: CellColumns,
    schema: pa.Schema,
) -> pa.RecordBatch:
    table, assessment = cells.table, cells.assessment
    first = cells.first_row + 1
    classes = pa.array(assessment.classes.astype(np.int16))
    edges = [pa.array(edge) for edge in _outward(shapely.bounds(shapes))]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.arange(first, first + len(table), dtype=np.uint32)),
            pa.array(shapely.to_wkb(shapes, byte_order=1), pa.binary()),
            pa.StructArray.from_arrays(edges, _EDGES),
            pa.DictionaryArray.from_arrays(classes, pa.array(columns.class_names, pa.string())),
            pa.array(assessment.flagged),
            pa.array(assessment.abnormality),
            pa.array(table.scores),
            pa.array(columns.reasons_of(assessment), pa.string()),
            *[pa.array(column) for column in table.measurements.values()],
        ],
        schema=schema,
    )


def _outward(edges: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """The sides of boxes in single precision, never inside of the shapes."""
    columns = []
    for side, outside in zip(edges.T, (-np.inf, -np.inf, np.inf, np.inf), strict=True):
        near = side.astype(np.float32)
        inside = near > side if outside < 0 else near < side
        columns.append(np.where(inside, np.nextafter(near, np.float32(outside)), near))
    return columns


def _write_groups(writer: pq.ParquetWriter, waiting: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Write what fills row groups; returns the rest."""
    rows = sum(batch.num_rows for batch in waiting)
    full = rows - rows % ROWS_PER_GROUP
    if not full:
        return waiting
    table = pa.Table.from_batches(waiting)
    writer.write_table(table.slice(0, full), ROWS_PER_GROUP)
    return table.slice(full).to_batches() if rows > full else []


def _dump(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _chunk(group: pa.Table, columns: CellColumns) -> CellChunk:
    def column(name: str) -> NDArray[np.float32]:
        return np.asarray(group[name].to_numpy(), np.float32)

    shapes = shapely.from_wkb(group["geometry"].to_numpy())
    names = {name: code for code, name in enumerate(columns.class_names)}
    empty = NucleusTable(
        np.empty((0, 2)),
        np.zeros(len(shapes) + 1, np.int64),
        column("score"),
        {name: column(name) for name in columns.measurements},
    )
    assessment = Assessment(
        column("abnormality"),
        np.array([names[name] for name in group["class"].to_pylist()], np.uint8),
        columns.class_names,
        columns.class_colors,
        group["flagged"].to_numpy(),
        columns.reason_codes(group["reasons"].to_pylist()),
        columns.reason_names,
    )
    return replace_outlines(empty, shapes), assessment
