"""A region full of nuclei: none is lost on the way to any file, and memory stays in proportion."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely

from slidetriage.models.nuclei import NucleusTable
from slidetriage.models.nuclei.measuring import OWN_NAMES
from slidetriage.workflows.cells import (
    LabelFrame,
    LabelPlace,
    count_label_pixels,
    read_cell_geojson,
    read_cell_parquet,
    write_cell_geojson,
    write_cell_labels,
    write_cell_parquet,
)
from slidetriage.workflows.cells.gathering import GatheredCells, gather_cells
from slidetriage.workflows.cells.parts import ACROSS, BEYOND, PARTS, WITHIN, Part, write_part
from slidetriage.workflows.geojson import GeoJsonFrame
from slidetriage.wsi import Mpp

SIDE, STRIP, PITCH = 96, 8, 24
"""Nuclei along each side of the region, columns of them in a part, and px between them."""
COUNT = SIDE**2
FRAME = LabelFrame(SIDE * PITCH, SIDE * PITCH, 0.5, 0.5, 0.5)
REGION = shapely.box(0, 0, SIDE * PITCH, SIDE * PITCH)


def make_table(columns: np.ndarray) -> NucleusTable:
    """All nuclei of these columns, 16 corners each, in micrometres like those of a slide."""
    column, row = (each.ravel() for each in np.meshgrid(columns, np.arange(SIDE)))
    rng = np.random.default_rng(columns)
    centre = np.column_stack([column, row]) * PITCH + PITCH / 2
    angle = np.arange(16) / 16 * 2 * np.pi
    radius = rng.uniform(7, 10, (len(centre), 1, 1))
    rings = centre[:, None] + radius * np.column_stack([np.cos(angle), np.sin(angle)])
    values = {name: rng.lognormal(1, 0.3, len(centre)).astype(np.float32) for name in OWN_NAMES}
    return NucleusTable(
        rings.reshape(-1, 2),
        np.arange(len(centre) + 1) * 16,
        np.full(len(centre), 0.9, np.float32),
        values,
    )


def fill(staging: Path, sides: int) -> Path:
    """Parts of some strips of the region; of each seam the next strip has the nuclei as well."""
    (staging / PARTS).mkdir(parents=True)
    for number in range(sides // STRIP):
        columns = np.arange(number * STRIP, (number + 1) * STRIP + 1)
        table = make_table(columns[columns < sides])
        at = np.floor(table.points[::16, 0] / PITCH).astype(int) - columns[0]
        place = np.select([at == STRIP, (at == 0) | (at == STRIP - 1)], [BEYOND, ACROSS], WITHIN)
        part = Part(table, place.astype(np.uint8), np.empty(0, np.int32))
        write_part(staging, number, part)
    return staging


def gather(staging: Path) -> GatheredCells:
    return gather_cells(staging, REGION, Mpp(0.5, 0.5, "file"))


def peak(work: Callable[[], object]) -> int:
    """Bytes allocated at once, at most."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("many"), SIDE)


def test_every_nucleus_is_in_every_file_once(staging: Path, tmp_path: Path):
    cells = gather(staging)
    assert len(cells) == COUNT
    places = {tuple(place) for place in np.floor(cells.centres_px / PITCH).astype(int).tolist()}
    assert len(places) == COUNT
    assert np.isfinite(cells.measurements["Nearest nucleus um"]).all()
    frame = GeoJsonFrame("many", "Nucleus")
    write_cell_geojson(tmp_path / "cells.geojson.gz", cells.chunks(), frame)
    write_cell_parquet(tmp_path / "cells.parquet", cells.chunks(), provenance={})
    image = tmp_path / "nuclei.zarr"
    write_cell_labels(LabelPlace.alone(image, "0.5"), cells.chunks(), FRAME, provenance={})
    areas = []
    for chunks in (
        read_cell_geojson(tmp_path / "cells.geojson.gz"),
        read_cell_parquet(tmp_path / "cells.parquet"),
    ):
        areas.append(np.concatenate([shapely.area(table.polygons()) for table, _ in chunks]))
        assert len(areas[-1]) == COUNT
    np.testing.assert_array_equal(*areas)
    pixels = count_label_pixels(image)
    assert sorted(pixels) == list(range(1, COUNT + 1))
    drawn = np.array([pixels[label] for label in range(1, COUNT + 1)])
    np.testing.assert_allclose(drawn, areas[0], rtol=0.1)


def test_gathering_takes_memory_in_proportion_to_the_nuclei(staging: Path, tmp_path: Path):
    """A distance of each to each would be 16 times as much for four times as many."""
    few = fill(tmp_path / "few", SIDE // 4)
    gather(few)  # what is loaded once
    peaks = [peak(lambda each=each: gather(each)) for each in (few, staging)]
    assert peaks[1] < 5 * peaks[0]
    assert peaks[1] < 2_000 * COUNT


def test_files_take_no_more_memory_for_more_nuclei(staging: Path, tmp_path: Path):
    few, many = gather(fill(tmp_path / "few", SIDE // 4)), gather(staging)
    frame = GeoJsonFrame("many", "Nucleus")
    writers: list[Callable[[GatheredCells], object]] = [
        lambda cells: write_cell_geojson(tmp_path / "a.geojson.gz", cells.chunks(), frame),
        lambda cells: write_cell_parquet(tmp_path / "a.parquet", cells.chunks(), provenance={}),
    ]
    for write in writers:
        write(few)
        peaks = [peak(lambda each=each, write=write: write(each)) for each in (few, many)]
        assert peaks[1] < 1.5 * peaks[0] + 2e6
