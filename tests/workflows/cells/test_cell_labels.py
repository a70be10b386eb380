"""Label images: valid NGFF, every pixel that of the cell over it, in whatever order they come."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import shapely
import zarr

from made_cells import (
    BOW_TIE,
    SLIVER,
    SQUARE,
    assess,
    cut,
    drawn_by_others,
    scatter,
    table_of,
)
from slidetriage.errors import OutputError, PixelsUnreadable
from slidetriage.workflows.cells import (
    CellChunk,
    CellLabels,
    LabelFrame,
    LabelPlace,
    count_label_pixels,
    write_cell_labels,
)
from slidetriage.workflows.heatmap import write_heatmap

beside = LabelPlace.beside
both = pytest.mark.parametrize("ngff", ["0.5", "0.4"])
FRAME = LabelFrame(2_400, 2_200, 0.25, 0.25, 0.25)


def make_group(path: Path, ngff: str = "0.5") -> Path:
    zarr.open_group(path, mode="w-", zarr_format=3 if ngff == "0.5" else 2)
    return path


def level(group: Path, number: int = 0) -> np.ndarray:
    return zarr.open_array(group / "labels" / "nuclei" / f"s{number}", mode="r")[...]


def metadata(group: Path, ngff: str, path: str = "labels/nuclei") -> dict[str, Any]:
    attributes = dict(zarr.open_group(group / path, mode="r").attrs)
    return attributes["ome"] if ngff == "0.5" else attributes


@both
def test_every_pixel_is_that_of_the_cell_over_it(tmp_path: Path, ngff: str):
    """Over the seams of four chunks, at a scale that is not the slide's and differs in x and y."""
    frame = LabelFrame(2_400, 2_500, 0.2527, 0.24, 0.5)
    table, assessment = scatter(300, origin=(1_700, 1_800))
    table = replace(table, points=np.round(table.points, 2))
    group = make_group(tmp_path / "h.zarr", ngff)
    chunks = cut((table, assessment), 100, 1)
    assert write_cell_labels(beside(group), chunks, frame, provenance={"model": "m"}) == 300
    found, wanted = level(group), drawn_by_others(table, frame)
    assert found.dtype == np.uint32
    assert found.shape == frame.shape == (1_200, 1_213)
    assert found.max() == 300
    np.testing.assert_array_equal(found, wanted)


def test_cells_at_the_seams_of_chunks_are_whole(tmp_path: Path):
    places = [(1_014, 1_014), (1_014, 500), (500, 1_014), (2_038, 1_014)]
    table = table_of([SQUARE + place for place in places])
    group = make_group(tmp_path / "h.zarr")
    write_cell_labels(beside(group), [(table, assess(4))], FRAME, provenance={})
    found = level(group)
    for row, (x, y) in enumerate(places):
        assert (found[y : y + 20, x : x + 20] == row + 1).all()
    assert count_label_pixels(group / "labels" / "nuclei") == {1: 400, 2: 400, 3: 400, 4: 400}


def test_a_cell_larger_than_a_chunk_and_one_beyond_the_slide(tmp_path: Path):
    table = table_of(
        [SQUARE * 100 + 30, SQUARE - 10, SQUARE + 5_000, SQUARE + np.array([2_390, 50])]
    )
    group = make_group(tmp_path / "h.zarr")
    write_cell_labels(beside(group), [(table, assess(4))], FRAME, provenance={})
    assert count_label_pixels(group / "labels" / "nuclei") == {1: 2_000**2, 2: 100, 4: 200}


def test_what_is_mended_is_drawn_and_slivers_are_not(tmp_path: Path):
    table = table_of([BOW_TIE * 5, SLIVER + 300, SQUARE + 500])
    group = make_group(tmp_path / "h.zarr")
    write_cell_labels(beside(group), [(table, assess(3))], FRAME, provenance={})
    halves = shapely.get_parts(shapely.make_valid(shapely.Polygon(BOW_TIE * 5)))
    counts = count_label_pixels(group / "labels" / "nuclei")
    assert counts[1] == pytest.approx(max(half.area for half in halves), rel=0.02)
    assert sorted(counts) == [1, 3]


@pytest.mark.parametrize("chunks", [[], [scatter(0)]])
def test_no_cells_are_an_image_of_zeros_in_no_file(tmp_path: Path, chunks: list[CellChunk]):
    group = make_group(tmp_path / "h.zarr")
    assert write_cell_labels(beside(group), chunks, FRAME, provenance={}) == 0
    ome_zarr_models.open_ome_zarr(group / "labels", version="0.5")
    assert not level(group).any()
    assert not list((group / "labels" / "nuclei").glob("s0/c/**/*"))


@both
def test_the_format_is_as_specified(tmp_path: Path, scored, ngff: str):
    group = tmp_path / "heatmap.zarr"
    write_heatmap(group, scored(np.full((3, 3), 0.5)), ngff=ngff, name="n", provenance={})
    write_cell_labels(beside(group), [scatter(100)], FRAME, provenance={"model": "m"})
    ome_zarr_models.open_ome_zarr(group, version=ngff)
    ome_zarr_models.open_ome_zarr(group / "labels", version=ngff)
    ome_zarr_models.open_ome_zarr(group / "labels" / "nuclei", version=ngff)
    assert metadata(group, ngff, "labels")["labels"] == ["nuclei"]
    image = metadata(group, ngff)
    assert image["image-label"]["source"] == {"image": "../../"}
    scales = image["multiscales"][0]
    assert [(axis["name"], axis["unit"]) for axis in scales["axes"]] == [
        ("y", "micrometer"), ("x", "micrometer"),
    ]  # fmt: skip
    assert scales["type"] == "nearest"
    made = zarr.open_group(group / "labels" / "nuclei", mode="r")
    assert made.attrs["slidetriage"] == {"model": "m"}
    assert made.metadata.zarr_format == (3 if ngff == "0.5" else 2)
    shapes = [made[dataset["path"]].shape for dataset in scales["datasets"]]
    assert shapes == [(2_200, 2_400), (550, 600)]  # two levels, for the heatmap has two
    scale = scales["datasets"][1]["coordinateTransformations"][0]["scale"]
    assert scale == [1.0, 1.0]
    finest = made["s0"]
    assert finest.chunks == (1_024, 1_024)
    if ngff == "0.5":
        assert finest.shards == (4_096, 4_096)
        assert finest.metadata.dimension_names == ("y", "x")
    else:
        assert finest.metadata.dimension_separator == "/"
        assert finest.metadata.compressor.codec_id == "zlib"
    assert not list(group.glob(".writing*"))


@both
def test_each_level_has_the_labels_that_stand_at_its_places(tmp_path: Path, ngff: str):
    """And the heatmap's origin: the centre of the slide's first pixel."""
    frame = LabelFrame(5_000, 2_301, 0.25, 0.26, 0.25)
    group = make_group(tmp_path / "h.zarr", ngff)
    # More than one shard, so that levels are put together from several.
    table, assessment = scatter(400, origin=(3_800, 1_800), pitch=25)
    write_cell_labels(beside(group), [(table, assessment)], frame, provenance={})
    datasets = metadata(group, ngff)["multiscales"][0]["datasets"]
    assert [dataset["path"] for dataset in datasets] == ["s0", "s1", "s2", "s3"]
    finest = level(group)
    for number, dataset in enumerate(datasets):
        scale, translation = (t[t["type"]] for t in dataset["coordinateTransformations"])
        found = level(group, number)
        np.testing.assert_array_equal(found, finest[:: 2**number, :: 2**number])
        assert (found > 0).any()
        y, x = np.nonzero(found)
        um = np.column_stack([y, x]) * scale + translation
        # In level-0 px: the origin is the centre of the first one.
        level0 = um[:, ::-1] / (0.25, 0.26) + 0.5
        shapes = table.polygons()[found[y, x] - 1]
        inside = shapely.distance(shapely.points(level0), shapes)
        assert inside.max() < 0.02


@both
def test_only_chunks_with_nuclei_are_files(tmp_path: Path, ngff: str):
    group = make_group(tmp_path / "h.zarr", ngff)
    frame = LabelFrame(30_000, 20_000, 0.25, 0.25, 0.25)
    table = table_of([SQUARE + np.array([25_000, 9_000])])
    write_cell_labels(beside(group), [(table, assess(1))], frame, provenance={})
    made = group / "labels" / "nuclei"
    files = [f.relative_to(made) for f in made.rglob("*") if f.is_file()]
    data = [str(f) for f in files if f.name[0] not in ".z"]
    finest = [f for f in data if f.startswith("s0/")]
    assert finest == (["s0/c/2/6"] if ngff == "0.5" else ["s0/8/24"])
    assert len(data) <= 6
    # A shard holds the one chunk, not the zeros around it.
    assert (made / finest[0]).stat().st_size < 30_000


def digests(group: Path) -> dict[str, str]:
    files = sorted(f for f in (group / "labels").rglob("*") if f.is_file())
    return {str(f.relative_to(group)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@both
def test_windows_in_any_order_give_the_same_bytes(tmp_path: Path, ngff: str):
    """Also where nuclei overlap: the higher label is seen."""
    table, _ = scatter(300, pitch=15, origin=(900, 900))
    windows = [(start, table.choose(np.arange(start, start + 100))) for start in (0, 100, 200)]
    groups = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        groups.append(make_group(tmp_path / name, ngff))
        with CellLabels(beside(groups[-1]), FRAME, provenance={"x": 1}) as labels:
            for index in order:
                start, window = windows[index]
                labels.draw(window, start)
    assert digests(groups[0]) == digests(groups[1])


def failing() -> Iterator[CellChunk]:
    yield scatter(50)
    raise PixelsUnreadable("The disk is gone.")


def test_nothing_is_left_when_the_cells_end_in_an_error(tmp_path: Path):
    group = make_group(tmp_path / "h.zarr")
    with pytest.raises(PixelsUnreadable, match="disk is gone"):
        write_cell_labels(beside(group), failing(), FRAME, provenance={})
    assert [f.name for f in group.iterdir()] == ["zarr.json"]


@both
def test_other_labels_stay_and_nothing_is_overwritten(tmp_path: Path, ngff: str):
    group = make_group(tmp_path / "h.zarr", ngff)
    other = {"ome": {"version": "0.5", "labels": ["tissue"]}} if ngff == "0.5" else {
        "labels": ["tissue"]
    }  # fmt: skip
    zarr.create_group(group / "labels", zarr_format=3 if ngff == "0.5" else 2, attributes=other)
    write_cell_labels(beside(group), [scatter(5)], FRAME, provenance={})
    assert metadata(group, ngff, "labels")["labels"] == ["nuclei", "tissue"]
    before = digests(group)
    with pytest.raises(OutputError, match="already"):
        write_cell_labels(beside(group), [scatter(9)], FRAME, provenance={})
    assert digests(group) == before


def test_labels_need_an_image_to_lie_beside(tmp_path: Path):
    with pytest.raises(OutputError, match="no OME-Zarr"):
        write_cell_labels(beside(tmp_path / "none.zarr"), [scatter(5)], FRAME, provenance={})


def test_a_label_past_32_bits_is_refused(tmp_path: Path):
    group = make_group(tmp_path / "h.zarr")
    labels = CellLabels(beside(group), FRAME, provenance={})
    with pytest.raises(OutputError, match="at most"), labels:
        labels.draw(scatter(5)[0], 2**32 - 3)
    assert [f.name for f in group.iterdir()] == ["zarr.json"]


def test_memory_does_not_grow_with_cells_or_slide(tmp_path: Path):
    table, _ = scatter(1_000)
    peaks = []
    for name, times, side in (("a", 3, 5_000), ("b", 15, 50_000)):
        frame = LabelFrame(side, side, 0.25, 0.25, 0.25)
        group = make_group(tmp_path / name)
        tracemalloc.start()
        with CellLabels(beside(group), frame, provenance={}) as labels:
            for number in range(times):
                labels.draw(table, number * len(table))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 1e6
