"""Cells for QuPath: a file it opens, values that come back, nothing half written."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from made_cells import BOW_TIE, SLIVER, SQUARE, assert_same, assess, cut, scatter, table_of
from slidetriage.errors import ModelError, OutputError, PixelsUnreadable, UsageError
from slidetriage.models.nuclei import join_tables
from slidetriage.workflows.cells import CellChunk, read_cell_geojson, write_cell_geojson
from slidetriage.workflows.geojson import GeoJsonFrame, write_tiles
from slidetriage.workflows.qupath_schema import check_geojson

FRAME = GeoJsonFrame("slide-1", "IDC", metadata={"model": "nuclei 1.0"})


def load(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.mark.parametrize("count", [0, 1, 300])
def test_cells_come_back_as_they_were(tmp_path: Path, count: int):
    path, wanted = tmp_path / "cells.geojson.gz", scatter(count)
    files = write_cell_geojson(path, [wanted], FRAME)
    assert (files.paths, files.written, files.vanished) == ((path,), count, 0)
    assert check_geojson(path) == []
    assert_same(list(read_cell_geojson(path)), wanted)


def test_a_detection_says_what_is_known_of_the_nucleus(tmp_path: Path):
    table, assessment = scatter(200)
    write_cell_geojson(tmp_path / "cells.geojson.gz", [(table, assessment)], FRAME)
    document = load(tmp_path / "cells.geojson.gz")
    assert document["metadata"]["model"] == "nuclei 1.0"
    assert "Research Use Only" in document["metadata"]["note"]
    for row, feature in enumerate(document["features"]):
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["name"] == f"Nucleus {row + 1}"
        name = assessment.class_names[assessment.classes[row]]
        color = list(assessment.class_colors[assessment.classes[row]])
        assert properties["classification"] == {"name": name, "color": color}
        measured = properties["measurements"]
        wanted = {
            "Detection score": table.scores[row],
            "Abnormality": assessment.abnormality[row],
            "Flagged": float(assessment.flagged[row]),
            **{name: values[row] for name, values in table.measurements.items()},
        }
        known = {name: value for name, value in wanted.items() if not np.isnan(value)}
        assert {name: np.float32(value) for name, value in measured.items()} == known
        reasons = [assessment.reason_names[code] for code in assessment.reasons[row] if code >= 0]
        said = properties.get("metadata", {}).get("reasons", "")
        assert said == "; ".join(reasons)
    assert np.isnan(table.measurements["Circularity"]).any()
    assert assessment.flagged.any()


def test_outlines_are_in_the_frame_of_qupath(tmp_path: Path):
    wanted = scatter(50, origin=(5_000, 7_000))
    boxes = {}
    for crop in (True, False):
        frame = replace(FRAME, bounds_px=(4_900.0, 6_800.0), crop_to_bounds=crop)
        path = tmp_path / f"{crop}.geojson.gz"
        write_cell_geojson(path, [wanted], frame)
        shapes = [shapely.geometry.shape(f["geometry"]) for f in load(path)["features"]]
        boxes[crop] = shapely.total_bounds(shapes)
        assert_same(list(read_cell_geojson(path)), wanted)
    np.testing.assert_allclose(boxes[False] - boxes[True], [4_900, 6_800] * 2, atol=1e-9)


def test_no_chunk_at_all_is_an_empty_collection(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    assert write_cell_geojson(path, [], FRAME).written == 0
    assert check_geojson(path) == []
    assert list(read_cell_geojson(path)) == []


def test_outlines_are_mended_or_left_out_and_names_stay_those_of_the_rows(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    table = table_of([SQUARE, SLIVER + 100, BOW_TIE + 200, SQUARE + 300])
    files = write_cell_geojson(path, [(table, assess(4))], FRAME)
    assert (files.written, files.vanished) == (3, 1)
    assert check_geojson(path) == []
    features = load(path)["features"]
    assert [f["properties"]["name"] for f in features] == ["Nucleus 1", "Nucleus 3", "Nucleus 4"]
    halves = shapely.get_parts(shapely.make_valid(shapely.Polygon(BOW_TIE + 200)))
    largest = max(halves, key=lambda half: half.area)
    assert shapely.geometry.shape(features[1]["geometry"]).equals_exact(
        largest, tolerance=0.01, normalize=True
    )
    assert sum(len(part) for part, _ in read_cell_geojson(path)) == 3


def test_only_vanishing_cells_are_an_empty_collection(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    files = write_cell_geojson(path, [(table_of([SLIVER]), assess(1))], FRAME)
    assert (files.written, files.vanished) == (0, 1)
    assert check_geojson(path) == []


def test_class_names_with_a_colon_are_made_safe(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    names = ("Nucleus: plain", "Nucleus: abnormal\nlarge")
    table, _ = scatter(100)
    write_cell_geojson(path, [(table, assess(100, names=names))], FRAME)
    assert check_geojson(path) == []
    written = {f["properties"]["classification"]["name"] for f in load(path)["features"]}
    assert written == {"Nucleus plain", "Nucleus abnormal large"}
    ((_, read),) = read_cell_geojson(path)
    assert read.class_names == names


def test_values_that_are_not_finite_are_left_out(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    table, assessment = scatter(3)
    table.measurements["Area um^2"][:] = [np.inf, -np.inf, np.nan]
    write_cell_geojson(path, [(table, assessment)], FRAME)
    assert check_geojson(path) == []
    assert all("Area um^2" not in f["properties"]["measurements"] for f in load(path)["features"])


def test_the_same_cells_give_the_same_bytes_however_they_are_cut(tmp_path: Path):
    cells = scatter(500)
    for name, lengths in (("a", ()), ("b", (1, 0, 300))):
        (tmp_path / name).mkdir()
        write_cell_geojson(tmp_path / name / "c.geojson.gz", cut(cells, *lengths), FRAME)
    a, b = ((tmp_path / name / "c.geojson.gz").read_bytes() for name in "ab")
    assert a == b


def test_identifiers_differ_even_where_outlines_are_equal(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    found = {}
    for slide in ("one", "two"):
        frame = GeoJsonFrame(slide, "IDC")
        write_cell_geojson(path, [(table_of([SQUARE, SQUARE]), assess(2))], frame)
        assert check_geojson(path) == []
        found[slide] = {f["id"] for f in load(path)["features"]}
    assert len(found["one"] | found["two"]) == 4


def test_many_cells_are_split_when_asked(tmp_path: Path):
    path, wanted = tmp_path / "cells.geojson.gz", scatter(250)
    files = write_cell_geojson(path, cut(wanted, 90, 90), FRAME, most=100)
    assert [each.name for each in files.paths] == [
        "cells.geojson.gz", "cells-2.geojson.gz", "cells-3.geojson.gz",
    ]  # fmt: skip
    assert all(check_geojson(each) == [] for each in files.paths)
    assert [len(load(each)["features"]) for each in files.paths] == [100, 100, 50]
    assert_same([part for each in files.paths for part in read_cell_geojson(each)], wanted)
    with pytest.raises(UsageError, match="none"):
        write_cell_geojson(path, [wanted], FRAME, most=0)


def failing(chunks: list[CellChunk]) -> Iterator[CellChunk]:
    yield from chunks
    raise PixelsUnreadable("The disk is gone.")


@pytest.mark.parametrize("most", [None, 100])
def test_nothing_is_left_when_the_cells_end_in_an_error(tmp_path: Path, most: int | None):
    with pytest.raises(PixelsUnreadable, match="disk is gone"):
        write_cell_geojson(
            tmp_path / "cells.geojson.gz", failing(cut(scatter(250), 120)), FRAME, most=most
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_cell_geojson(tmp_path / "no" / "cells.geojson.gz", [scatter(3)], FRAME)


def test_chunks_of_another_kind_are_refused(tmp_path: Path):
    path = tmp_path / "cells.geojson.gz"
    table, assessment = scatter(4)
    other = replace(table, measurements={"Solidity": table.scores})
    with pytest.raises(ModelError, match="different ways"):
        write_cell_geojson(path, [(table, assessment), (other, assessment)], FRAME)
    with pytest.raises(ModelError, match="assessed as 3"):
        write_cell_geojson(path, [(table, assess(3))], FRAME)
    with pytest.raises(ModelError, match="cannot be called Flagged"):
        write_cell_geojson(
            path, [(replace(table, measurements={"Flagged": table.scores}), assessment)], FRAME
        )
    wrong = replace(assessment, classes=np.full(4, 2, np.uint8))
    with pytest.raises(ModelError, match="without a name"):
        write_cell_geojson(path, [(table, wrong)], FRAME)
    nowhere = replace(table, points=np.full_like(table.points, np.nan))
    with pytest.raises(ModelError, match="nowhere"):
        write_cell_geojson(path, [(nowhere, assessment)], FRAME)
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_are_not_taken_for_ours(tmp_path: Path, scored):
    write_tiles(tmp_path / "tiles.geojson", scored(np.full((2, 2), 0.5)), FRAME)
    (tmp_path / "junk.geojson").write_text("[1, 2]\n")
    for name in ("tiles.geojson", "junk.geojson"):
        with pytest.raises(UsageError, match="not a file of cells"):
            list(read_cell_geojson(tmp_path / name))


def many(chunk: CellChunk, times: int) -> Iterator[CellChunk]:
    for number in range(times):
        table, assessment = chunk
        yield replace(table, points=table.points + number * 10), assessment


def test_memory_does_not_grow_with_the_cells(tmp_path: Path):
    chunk = scatter(1_000)
    peaks = []
    for times in (3, 30):
        tracemalloc.start()
        write_cell_geojson(tmp_path / "cells.geojson.gz", many(chunk, times), FRAME)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 1e6


def test_chunks_larger_than_a_piece_are_numbered_on(tmp_path: Path):
    table, _ = scatter(1_000)
    wanted = join_tables([table] * 17)  # more than 16,384
    path = tmp_path / "cells.geojson.gz"
    write_cell_geojson(path, [(wanted, assess(17_000))], FRAME)
    names = [f["properties"]["name"] for f in load(path)["features"]]
    assert names == [f"Nucleus {row + 1}" for row in range(17_000)]
    assert_same(list(read_cell_geojson(path)), (wanted, assess(17_000)))
