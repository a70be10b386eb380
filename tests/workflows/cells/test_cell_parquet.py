"""Cells as GeoParquet: values that come back, metadata as specified, the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from made_cells import BOW_TIE, SLIVER, SQUARE, assert_same, assess, cut, scatter, table_of
from slidetriage.errors import ModelError, OutputError, UsageError
from slidetriage.models.nuclei import join_tables
from slidetriage.workflows.cells import CellChunk, read_cell_parquet, write_cell_parquet


@pytest.mark.parametrize("count", [0, 1, 300])
def test_cells_come_back_as_they_were(tmp_path: Path, count: int):
    path, wanted = tmp_path / "cells.parquet", scatter(count)
    assert write_cell_parquet(path, [wanted], provenance={}) == count
    assert_same(list(read_cell_parquet(path)), wanted)


def test_no_chunk_at_all_is_a_table_without_rows(tmp_path: Path):
    path = tmp_path / "cells.parquet"
    assert write_cell_parquet(path, [], provenance={}) == 0
    assert pq.read_table(path).num_rows == 0
    assert list(read_cell_parquet(path)) == []


def test_other_programs_find_what_they_look_for(tmp_path: Path):
    path, (table, assessment) = tmp_path / "cells.parquet", scatter(200)
    write_cell_parquet(path, [(table, assessment)], provenance={"model": "nuclei 1.0"})
    read = pq.read_table(path)
    assert read["label"].to_pylist() == list(range(1, 201))
    assert pa.types.is_dictionary(read.schema.field("class").type)
    names = [assessment.class_names[code] for code in assessment.classes]
    assert read["class"].to_pylist() == names
    for name in table.measurements:
        assert read.schema.field(name).type == pa.float32()
    row = int(np.flatnonzero(assessment.flagged)[0])
    said = [assessment.reason_names[code] for code in assessment.reasons[row] if code >= 0]
    assert read["reasons"][row].as_py() == "; ".join(said)
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    own = json.loads(read.schema.metadata[b"slidetriage"])
    assert own["provenance"] == {"model": "nuclei 1.0"}
    assert "Research Use Only" in own["note"]


def test_the_geo_metadata_is_that_of_geoparquet_1_1(tmp_path: Path):
    path, (table, assessment) = tmp_path / "cells.parquet", scatter(200, origin=(1e5, 7e4))
    write_cell_parquet(path, [(table, assessment)], provenance={})
    read = pq.read_table(path)
    # In the schema and in the file's own metadata: programs look in either.
    for metadata in (read.schema.metadata, pq.read_metadata(path).metadata):
        geo = json.loads(metadata[b"geo"])
        assert geo["version"] == "1.1.0"
        column = geo["columns"][geo["primary_column"]]
        assert column["encoding"] == "WKB"
        assert column["geometry_types"] == ["Polygon"]
        assert column["crs"] is None
        assert column["edges"] == "planar"
        assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    shapes = shapely.from_wkb(read["geometry"].to_numpy())
    assert shapely.is_valid(shapes).all()
    exact = shapely.bounds(shapes)
    boxes = read["bbox"].combine_chunks()
    edges = np.column_stack([boxes.field(i).to_numpy() for i in range(4)]).astype(np.float64)
    assert (edges[:, :2] <= exact[:, :2]).all()
    assert (edges[:, 2:] >= exact[:, 2:]).all()
    np.testing.assert_allclose(edges, exact, atol=0.02)


def test_outlines_are_mended_and_every_row_stays(tmp_path: Path):
    path = tmp_path / "cells.parquet"
    table = table_of([SQUARE, SLIVER + 100, BOW_TIE + 200, SQUARE + 300])
    assert write_cell_parquet(path, [(table, assess(4))], provenance={}) == 4
    ((read, _),) = read_cell_parquet(path)
    shapes = read.polygons()
    assert shapely.is_valid(shapes).tolist() == [True, False, True, True]
    assert shapely.area(shapes[1]) < 0.01
    assert shapely.bounds(shapes[1]) == pytest.approx([100, 100, 140, 100])


def test_the_same_cells_give_the_same_bytes_however_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("slidetriage.workflows.cells.cell_parquet.ROWS_PER_GROUP", 128)
    cells = scatter(500)
    for name, lengths in (("a", ()), ("b", (1, 0, 300)), ("c", (128, 128))):
        write_cell_parquet(tmp_path / name, cut(cells, *lengths), provenance={"x": 1, "y": 2})
    write_cell_parquet(tmp_path / "d", [cells], provenance={"y": 2, "x": 1})
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1
    groups = pq.ParquetFile(tmp_path / "b").metadata
    rows = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    assert rows == [128, 128, 128, 116]
    assert_same(list(read_cell_parquet(tmp_path / "b")), cells)


def test_nothing_is_left_when_the_cells_end_in_an_error(tmp_path: Path):
    def failing() -> Iterator[CellChunk]:
        yield from cut(scatter(250), 120)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_cell_parquet(tmp_path / "cells.parquet", failing(), provenance={})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_cell_parquet(tmp_path / "no" / "cells.parquet", [scatter(3)], provenance={})


def test_names_that_are_taken_are_refused(tmp_path: Path):
    table, assessment = scatter(4)
    taken = replace(table, measurements={"bbox": table.scores})
    with pytest.raises(ModelError, match="cannot be called bbox"):
        write_cell_parquet(tmp_path / "cells.parquet", [(taken, assessment)], provenance={})
    unclear = replace(assessment, reason_names=("a; b", "c", "d"))
    with pytest.raises(ModelError, match="semicolon"):
        write_cell_parquet(tmp_path / "cells.parquet", [(table, unclear)], provenance={})


def test_tables_of_others_are_not_taken_for_ours(tmp_path: Path):
    pq.write_table(pa.table({"label": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UsageError, match="not a table of cells"):
        list(read_cell_parquet(tmp_path / "other.parquet"))


def test_memory_does_not_grow_with_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What Arrow holds; the row groups are made small to see it with few cells."""
    monkeypatch.setattr("slidetriage.workflows.cells.cell_parquet.ROWS_PER_GROUP", 2_000)
    chunk = scatter(1_000)
    peaks = []
    for times in (10, 100):
        held = []

        def watched(times: int = times, held: list[int] = held) -> Iterator[CellChunk]:
            for _ in range(times):
                held.append(pa.total_allocated_bytes())
                yield chunk

        write_cell_parquet(tmp_path / "cells.parquet", watched(), provenance={})
        peaks.append(max(held))
    assert peaks[1] < 1.5 * peaks[0] + 1e6


def test_chunks_larger_than_a_piece_keep_their_order(tmp_path: Path):
    table, _ = scatter(1_000)
    wanted = join_tables([table] * 17), assess(17_000)
    write_cell_parquet(tmp_path / "cells.parquet", [wanted], provenance={})
    assert_same(list(read_cell_parquet(tmp_path / "cells.parquet")), wanted)
