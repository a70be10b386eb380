"""Nuclei in whole runs: found where regions are, the same by every engine, and no slide lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import shapely
import zarr

from made_cells import drawn_by_others
from slidetriage import Resources, Settings, triage
from slidetriage.errors import UsageError
from slidetriage.models.nuclei import join_tables
from slidetriage.models.nuclei.measuring import centroids
from slidetriage.tiling import grow_area
from slidetriage.workflows.cells import LabelFrame, read_cell_geojson, read_cell_parquet
from slidetriage.workflows.driver import TriageReport, look_closer
from slidetriage.workflows.ledger import verify_output
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import SlideFailure, SlideResult
from slidetriage.wsi import PhantomSpec, open_slide, paint_phantom
from tiny_slides import write_tiff
from trees import tree

SERIAL = Resources("serial")
CELLS = CellSettings()
FILES = (
    "annotations.geojson",
    "cells.geojson.gz",
    "cells.parquet",
    "manifest.json",
    "overlay.png",
    "result.json",
    "tiles.geojson",
)


def manifest_of(folder: Path) -> dict[str, Any]:
    """What the slide's folder says of itself."""
    record: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return record


def only(report: TriageReport) -> tuple[Path, SlideResult]:
    """The folder and the result of the one slide of a run."""
    (row,) = report.rows
    assert isinstance(row.outcome, SlideResult), row.outcome
    return report.out / row.outcome.directory, row.outcome


def failure(report: TriageReport) -> SlideFailure:
    """Of the one slide of a run."""
    (row,) = report.rows
    assert isinstance(row.outcome, SlideFailure), row.outcome
    return row.outcome


def check_labels(folder: Path, image: Path) -> np.ndarray:
    """The finest level of a label image, which must be the outlines of the table."""
    found = np.asarray(zarr.open_array(image / "s0", mode="r")[...])
    table = join_tables([table for table, _ in read_cell_parquet(folder / "cells.parquet")])
    wanted = drawn_by_others(table, LabelFrame(found.shape[1], found.shape[0], 0.5, 0.5, 0.5))
    assert found.max() == len(table)
    # Outlines are made of pixel corners and can run through the very middle of a pixel.
    y, x = np.nonzero(found != wanted)
    edges = shapely.STRtree(shapely.get_exterior_ring(table.polygons()))
    centres = shapely.points(x + 0.5, y + 0.5)
    near = edges.query(centres, predicate="dwithin", distance=0.01)[0]
    assert len(np.unique(near)) == len(y)
    assert len(y) < 0.01 * (found > 0).sum()
    return found


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A painted slide of 1.6 x 1.2 mm at 0.5 um/px with tumour."""
    path = tmp_path_factory.mktemp("nuclei") / "tumour.tif"
    paint_phantom(path, PhantomSpec(width_mm=1.6, height_mm=1.2, mpp=0.5, seed=1))
    return path


@pytest.fixture(scope="module")
def scouted(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> TriageReport:
    """The slide's regions, and the nuclei in them."""
    out = tmp_path_factory.mktemp("scouted") / "out"
    return triage(slide, out, settings=Settings(cells=CELLS), resources=SERIAL)


def test_all_files_tell_of_the_same_nuclei(scouted: TriageReport) -> None:
    folder, result = only(scouted)
    assert tuple(sorted(p.name for p in folder.iterdir() if p.is_file())) == FILES
    assert list(verify_output(scouted.out)) == []
    said = json.loads((folder / "result.json").read_bytes())["cells"]
    assert said["slide"]["nuclei"] == result.nuclei
    assert said["slide"]["abnormal"] == result.abnormal_nuclei
    assert result.nuclei is not None
    assert result.nuclei > 50
    assert result.warnings == (), "a detector is no other way to encode tiles"
    (runtime,) = manifest_of(folder)["provenance"]["runtime"]["encoded_by"]
    assert runtime.startswith("openvino")
    written = (
        read_cell_parquet(folder / "cells.parquet"),
        read_cell_geojson(folder / "cells.geojson.gz"),
    )
    for chunks in map(list, written):
        assert sum(len(table) for table, _ in chunks) == result.nuclei
        assert sum(int(a.flagged.sum()) for _, a in chunks) == result.abnormal_nuclei
    drawn = check_labels(folder, folder / "heatmap.zarr" / "labels" / "nuclei")
    assert len(np.unique(drawn)) > 0.99 * result.nuclei
    assert not (folder / "nuclei.zarr").exists()


def test_nuclei_lie_where_regions_are_and_are_counted_there(
    slide: Path, scouted: TriageReport
) -> None:
    folder, _ = only(scouted)
    regions = shapely.from_geojson((folder / "annotations.geojson").read_bytes())
    area = grow_area(shapely.union_all(shapely.get_parts(regions)), open_slide(slide), 50.0)
    table = join_tables([table for table, _ in read_cell_parquet(folder / "cells.parquet")])
    centres = centroids(table.points, table.offsets)
    assert shapely.contains_xy(area.buffer(0.1), centres[:, 0], centres[:, 1]).all()
    said = json.loads((folder / "result.json").read_bytes())
    mm2 = area.area * 0.25e-6
    assert said["cells"]["looked_at_mm2"] == pytest.approx(mm2, rel=1e-3)
    assert said["cells"]["slide"]["nuclei_per_mm2"] == pytest.approx(len(table) / mm2, rel=1e-3)
    for region, drawn in zip(said["cells"]["regions"], shapely.get_parts(regions), strict=True):
        inside = shapely.contains_xy(drawn, centres[:, 0], centres[:, 1]).sum()
        assert abs(region["nuclei"] - inside) <= 1
    assert any("abnormal" in reason for reason in said["reasons"])


def test_dask_gives_the_same_bytes(slide: Path, scouted: TriageReport, tmp_path: Path) -> None:
    settings = Settings(cells=CELLS)
    report = triage(slide, tmp_path, settings=settings, resources=Resources("dask", 2))
    assert tree(report.out) == tree(scouted.out)


def test_a_finished_run_can_be_looked_at_more_closely(
    slide: Path, scouted: TriageReport, tmp_path: Path
) -> None:
    settings = Settings(cells=CELLS)
    plain = triage(slide, tmp_path / "plain", resources=SERIAL)
    with pytest.raises(UsageError, match="stay as they are"):
        look_closer(plain.out, plain.out, settings=settings)
    before = tree(plain.out)
    closer = look_closer(plain.out, tmp_path / "closer", settings=settings, resources=SERIAL)
    assert tree(plain.out) == before
    folder, result = only(closer)
    assert (result.verdict, result.score) == ("not scored", None)
    assert list(verify_output(closer.out)) == []
    first, second = (
        join_tables([t for t, _ in read_cell_parquet(place / "cells.parquet")])
        for place in (only(scouted)[0], folder)
    )
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(
        check_labels(folder, folder / "nuclei.zarr"),
        zarr.open_array(only(scouted)[0] / "heatmap.zarr/labels/nuclei/s0", mode="r")[...],
    )
    assert not (folder / "heatmap.zarr").exists()
    np.testing.assert_array_equal(
        *(t.measurements["Nuclei within 50 um per mm^2"] for t in (first, second))
    )


@pytest.mark.parametrize("where", [pytest.param("given", marks=pytest.mark.slow), "tissue"])
def test_without_the_scout_there_is_a_label_image_by_itself(
    slide: Path, tmp_path: Path, where: str
) -> None:
    """The same on both engines where it is not all tissue; told of by the manifest, unnamed."""
    given = tmp_path / "regions.geojson"
    given.write_text(shapely.to_geojson(shapely.box(1000, 1000, 1500, 1400)))
    asked = CellSettings(where, str(given) if where == "given" else "", required=True)  # type: ignore[arg-type]
    ngff = "0.4" if where == "given" else "0.5"
    settings = Settings(cells=asked, ngff=ngff, deidentify=True)  # type: ignore[arg-type]
    serial = triage(slide, tmp_path / "a", settings=settings, resources=SERIAL)
    if where == "given":
        dask = triage(slide, tmp_path / "b", settings=settings, resources=Resources("dask", 2))
        assert tree(serial.out) == tree(dask.out)
    folder, result = only(serial)
    image = folder / "nuclei.zarr"
    ome_zarr_models.open_ome_zarr(image, version=ngff)
    drawn = check_labels(folder, image)
    assert (drawn.shape, drawn.max()) == ((2400, 3200), result.nuclei)
    stored = {path for path in tree(folder) if path.startswith("nuclei.zarr/")}
    assert stored == {p for p in manifest_of(folder)["files"] if p.startswith("nuclei.zarr/")}
    assert zarr.open_group(image).attrs["slidetriage"] == manifest_of(folder)["provenance"]
    assert not any(b"tumour" in (folder / path).read_bytes() for path in stored)
    assert list(verify_output(serial.out)) == []
    lost = max(path for path in stored if path.rpartition("/")[2].isdigit())
    (folder / lost).unlink()
    level = "/".join(lost.split("/")[:2])
    assert {(f.file, f.what.partition(" ")[2]) for f in verify_output(serial.out)} >= {
        (lost, "file is missing"),
        (level, "of 1 chunks are missing"),
    }


def test_given_regions_are_part_of_the_result(slide: Path, tmp_path: Path) -> None:
    given = tmp_path / "tumour.geojson"

    def draw(side: float) -> None:
        square = shapely.box(1000, 1000, 1000 + side, 1000 + side)
        given.write_text(shapely.to_geojson(square))

    asked = CellSettings("given", str(given), margin_um=10.0, required=True)
    run = lambda: triage(  # noqa: E731 - the same three times
        slide, tmp_path / "out", settings=Settings(cells=asked), resources=SERIAL
    )
    draw(400)
    first, result = only(run())
    before = tree(first)
    assert only(run())[0] == first
    draw(600)
    second, more = only(run())
    assert second != first
    assert tree(first) == before
    assert result.nuclei is not None
    assert more.nuclei is not None
    assert result.nuclei < more.nuclei
    given.write_text("no GeoJSON")
    assert failure(run()).code == "E_REGIONS"


def test_a_slide_too_coarse_for_nuclei_says_what_would_be_needed(
    phantom: Path, tmp_path: Path
) -> None:
    required = Settings(cells=CellSettings("tissue", required=True))
    refused = failure(triage(phantom, tmp_path / "a", settings=required, resources=SERIAL))
    assert refused.code == "E_MPP_TOO_COARSE"
    assert refused.rejected
    assert "needs 0.5 um/px" in refused.message
    wished = Settings(cells=CELLS)
    folder, result = only(triage(phantom, tmp_path / "b", settings=wished, resources=SERIAL))
    assert result.score is not None
    assert any("nuclei were not looked for" in warning for warning in result.warnings)
    assert not (folder / "cells.parquet").exists()


def test_a_slide_without_regions_has_no_nuclei_and_says_so(tmp_path: Path) -> None:
    glass = write_tiff(tmp_path / "glass.tif", np.full((1200, 1600, 3), 240, np.uint8), mpp=0.5)
    report = triage(glass, tmp_path / "out", settings=Settings(cells=CELLS), resources=SERIAL)
    folder, result = only(report)
    said = json.loads((folder / "result.json").read_bytes())["cells"]
    assert (result.regions, result.nuclei, result.verdict) == (0, 0, "needs eyes")
    assert said["words"].startswith("Nuclei were not looked for")
    assert not (folder / "cells.parquet").exists()
    assert list(verify_output(report.out)) == []
