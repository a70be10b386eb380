"""What nuclei will take, against what they took: how much is read is known, the rest is near."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely
from typer.testing import CliRunner

from slidetriage import Resources, Settings, triage
from slidetriage.workflows.cell_estimate import CellEstimate
from slidetriage.workflows.cli import app
from slidetriage.workflows.measuring import estimate_run
from slidetriage.workflows.settings import CellSettings
from slidetriage.wsi import PhantomSpec, paint_phantom

SERIAL = Resources("serial")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A painted slide of 1.6 x 1.2 mm at 0.5 um/px with tumour."""
    path = tmp_path_factory.mktemp("nuclei") / "tumour.tif"
    paint_phantom(path, PhantomSpec(width_mm=1.6, height_mm=1.2, mpp=0.5, seed=1))
    return path


@pytest.fixture(scope="module")
def regions(slide: Path) -> Path:
    """A file of one square, called as the slide."""
    file = slide.parent / "drawn" / "tumour.geojson"
    file.parent.mkdir()
    file.write_text(shapely.to_geojson(shapely.box(900, 900, 1700, 1500)))
    return file


def estimated(slide: Path, cells: CellSettings) -> CellEstimate:
    (row,) = estimate_run([slide], Settings(cells=cells)).planned
    assert row.cells is not None
    return row.cells


def said_by_a_run(slide: Path, out: Path, cells: CellSettings) -> dict[str, float]:
    triage(slide, out, settings=Settings(cells=cells), resources=SERIAL)
    (file,) = out.glob("*/result.json")
    said: dict[str, float] = json.loads(file.read_bytes())["cells"]
    return said


def test_of_given_regions_the_share_is_that_of_the_run(
    slide: Path, regions: Path, tmp_path: Path
) -> None:
    for given in (regions, regions.parent):
        cells = CellSettings("given", str(given), detector="classical", margin_um=20.0)
        found = estimated(slide, cells)
        assert not found.at_most
        assert 0 < found.tissue_share < 1
        assert found.seconds > 0
    said = said_by_a_run(slide, tmp_path, cells)
    assert found.windows == said["windows"]
    assert found.looked_at_mm2 == said["looked_at_mm2"]
    assert found.tissue_share == said["tissue_share"]


def test_of_all_tissue_it_is_that_of_the_run_too(slide: Path, tmp_path: Path) -> None:
    cells = CellSettings("tissue", detector="classical")
    found, said = estimated(slide, cells), said_by_a_run(slide, tmp_path, cells)
    assert (found.windows, found.looked_at_mm2) == (said["windows"], said["looked_at_mm2"])
    files = tmp_path.glob("*/cells*")
    assert found.result_bytes > sum(path.stat().st_size for path in files) / 4


def test_before_the_first_look_it_is_the_most_that_can_be(slide: Path, tmp_path: Path) -> None:
    cells = CellSettings(detector="classical")
    found, said = estimated(slide, cells), said_by_a_run(slide, tmp_path, cells)
    assert found.at_most
    assert found.looked_at_mm2 >= said["looked_at_mm2"]
    assert found.windows >= said["windows"]


def test_regions_of_a_finished_run_are_found_by_its_ids(slide: Path, tmp_path: Path) -> None:
    triage(slide, tmp_path, settings=Settings(), resources=SERIAL)
    found = estimated(slide, CellSettings("given", str(tmp_path), detector="classical"))
    (file,) = tmp_path.glob("*/result.json")
    flagged = json.loads(file.read_bytes())["flagged_mm2"]
    assert found.looked_at_mm2 > flagged > 0  # the margin is looked at as well


def test_a_slide_too_coarse_takes_nothing_and_without_regions_cannot_be_done(
    slide: Path, phantom: Path, tmp_path: Path
) -> None:
    assert estimated(phantom, CellSettings(detector="classical")).windows == 0
    (refused,) = estimate_run([phantom], Settings(cells=CellSettings("tissue"))).refused
    assert refused.failure.code == "E_MPP_TOO_COARSE"
    (tmp_path / "other.geojson").write_text(shapely.to_geojson(shapely.box(0, 0, 9, 9)))
    cells = CellSettings("given", str(tmp_path), detector="classical")
    (refused,) = estimate_run([slide], Settings(cells=cells)).refused
    assert refused.failure.code == "E_REGIONS"


def test_the_command_prints_it(slide: Path, regions: Path) -> None:
    runner = CliRunner()
    common = ["plan", str(slide), "--detector", "classical"]
    shown = runner.invoke(app, [*common, "--cells"], catch_exceptions=False).stdout
    assert "Nuclei   in flagged regions only, a part of the tissue" in shown
    assert "windows at 0.5 um/px" in shown
    given = [*common, "--regions", str(regions), "--json"]
    record = json.loads(runner.invoke(app, given, catch_exceptions=False).stdout)
    (row,) = record["slides"]
    assert row["tiles"] == 0
    assert row["cells"] == record["total"]["cells"]
    assert row["cells"]["at_most"] is False
    assert 0 < row["cells"]["tissue_share"] < 1
