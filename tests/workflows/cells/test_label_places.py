"""A label image by itself is one of NGFF, and that which would lie beside a heatmap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr

from made_cells import SQUARE, assess, drawn_by_others, scatter, table_of
from slidetriage.errors import OutputError, PixelsUnreadable
from slidetriage.workflows.cells import CellChunk, LabelFrame, LabelPlace, write_cell_labels
from slidetriage.workflows.heatmap import write_heatmap
from slidetriage.workflows.ledger.stores import check_store

both = pytest.mark.parametrize("ngff", ["0.5", "0.4"])
FRAME = LabelFrame(9_000, 4_100, 0.25, 0.26, 0.5)


def write_alone(path: Path, ngff: Any, chunks: list[CellChunk]) -> dict[str, Any]:
    """The image's NGFF metadata."""
    write_cell_labels(LabelPlace.alone(path, ngff), chunks, FRAME, provenance={"slide": "s"})
    attributes: dict[str, Any] = dict(zarr.open_group(path, mode="r").attrs)
    assert attributes["slidetriage"] == {"slide": "s"}
    return attributes["ome"] if ngff == "0.5" else attributes


def files(folder: Path) -> dict[str, bytes]:
    """Every file but the metadata of the image itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and len(path.relative_to(folder).parts) > 1
    }


@both
def test_by_itself_it_is_a_label_image_of_no_other(tmp_path: Path, ngff: str):
    path, chunk = tmp_path / "nuclei.zarr", scatter(300, origin=(7_000, 1_900))
    image = write_alone(path, ngff, [chunk])
    version = ome_zarr_models.v05 if ngff == "0.5" else ome_zarr_models.v04
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (3 if ngff == "0.5" else 2)
    read = version.ImageLabel.from_zarr(group)
    label = (read.attributes.ome if ngff == "0.5" else read.attributes).image_label
    # Of an image without OME-Zarr: with a source that names none, "../../" would be meant.
    assert label.source is None
    assert image["image-label"] == ({} if ngff == "0.5" else {"version": "0.4"})
    assert [p.name for p in tmp_path.iterdir()] == ["nuclei.zarr"]
    np.testing.assert_array_equal(group["s0"][...], drawn_by_others(chunk[0], FRAME))


def test_it_has_as_many_levels_as_the_slide_asks_for(tmp_path: Path):
    image = write_alone(tmp_path / "a", "0.5", [scatter(9)])
    group = zarr.open_group(tmp_path / "a", mode="r")
    shapes = [group[each["path"]].shape for each in image["multiscales"][0]["datasets"]]
    assert shapes == [(2_132, 4_500), (1_066, 2_250), (533, 1_125), (267, 563)]


@both
def test_it_is_what_would_lie_beside_a_heatmap(tmp_path: Path, scored, ngff: Any):
    """Pixels, and where they lie, level for level as far as the heatmap has levels."""
    chunks = [scatter(300, origin=(7_000, 1_900))]
    heatmap = tmp_path / "heatmap.zarr"
    write_heatmap(heatmap, scored(np.full((70, 70), 0.5)), ngff=ngff, name="n", provenance={})
    write_cell_labels(LabelPlace.beside(heatmap), chunks, FRAME, provenance={})
    beside = heatmap / "labels" / "nuclei"
    attributes: Any = dict(zarr.open_group(beside, mode="r").attrs)
    there = (attributes["ome"] if ngff == "0.5" else attributes)["multiscales"][0]
    alone = write_alone(tmp_path / "nuclei.zarr", ngff, chunks)["multiscales"][0]
    by_scale = [
        {d["coordinateTransformations"][0]["scale"][0]: d for d in each["datasets"]}
        for each in (there, alone)
    ]
    common = by_scale[0].keys() & by_scale[1].keys()
    assert len(common) >= 2
    for scale in common:
        one, other = by_scale[0][scale], by_scale[1][scale]
        assert one["coordinateTransformations"] == other["coordinateTransformations"]
        np.testing.assert_array_equal(
            zarr.open_array(beside / one["path"], mode="r")[...],
            zarr.open_array(tmp_path / "nuclei.zarr" / other["path"], mode="r")[...],
        )
    rest = lambda each: {key: each[key] for key in ("name", "axes", "type", "metadata")}  # noqa: E731
    assert rest(there) == rest(alone)
    first = [name for name in files(beside) if name.startswith("s0/")]
    assert first
    for name in first:
        assert files(beside)[name] == files(tmp_path / "nuclei.zarr")[name]


@both
def test_a_file_that_is_lost_is_told_from_a_place_without_nuclei(tmp_path: Path, ngff: Any):
    """By the image itself; most of it was never written."""
    path = tmp_path / "nuclei.zarr"
    table = table_of([SQUARE + place for place in ((100, 100), (8_900, 4_000), (4_096, 2_048))])
    write_alone(path, ngff, [(table, assess(3))])
    assert list(check_store(path)) == []
    chunks = [path / name for name in files(path) if name.rpartition("/")[2].isdigit()]
    assert len(chunks) == (5 if ngff == "0.5" else 3 + 3 + 2 + 1)
    for chunk in chunks:
        sound = chunk.read_bytes()
        level = chunk.relative_to(path).parts[0]
        chunk.unlink()
        ((name, what),) = check_store(path)
        assert name == level
        assert what.startswith("1 of ")
        assert what.endswith("chunks are missing")
        chunk.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        assert list(check_store(path)) == [(level, "a chunk cannot be decoded (ValueError)")] or (
            ngff == "0.4" and "decoded" in next(check_store(path))[1]
        )
        chunk.write_bytes(sound)
    chunks[0].with_name("77").write_bytes(chunks[0].read_bytes())
    assert list(check_store(path)) == [("s0", "1 chunks are there that were not written")]


def failing() -> Iterator[CellChunk]:
    yield scatter(50)
    raise PixelsUnreadable("The disk is gone.")


def test_nothing_is_left_when_the_cells_end_in_an_error(tmp_path: Path):
    place = LabelPlace.alone(tmp_path / "nuclei.zarr", "0.5")
    with pytest.raises(PixelsUnreadable, match="disk is gone"):
        write_cell_labels(place, failing(), FRAME, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path):
    write_alone(tmp_path / "nuclei.zarr", "0.5", [scatter(3)])
    before = files(tmp_path)
    with pytest.raises(OutputError, match=r"nuclei\.zarr in .* already"):
        write_alone(tmp_path / "nuclei.zarr", "0.5", [scatter(9)])
    assert files(tmp_path) == before


def test_without_cells_it_is_an_image_of_zeros_in_no_file(tmp_path: Path):
    write_alone(tmp_path / "nuclei.zarr", "0.5", [])
    assert list(check_store(tmp_path / "nuclei.zarr")) == []
    assert {name.rpartition("/")[2] for name in files(tmp_path / "nuclei.zarr")} == {"zarr.json"}
    assert not zarr.open_array(tmp_path / "nuclei.zarr" / "s0", mode="r")[...].any()
