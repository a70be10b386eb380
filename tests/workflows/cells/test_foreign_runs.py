"""Whole runs with somebody else's detector: found, written, and named in what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slidetriage import Resources, Settings, triage
from slidetriage.errors import ModelError
from slidetriage.models.nuclei.foreign_card import identify_foreign
from slidetriage.workflows.cells import read_cell_geojson
from slidetriage.workflows.cells.detecting import identify_cells, open_detector
from slidetriage.workflows.ledger import verify_output
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import SlideResult
from slidetriage.wsi import PhantomSpec, paint_phantom
from tiny_detectors import stardist_onnx, stardist_settings, write_detector


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A StarDist network that takes dark discs of 4 um radius for nuclei."""
    scale = {"scale": [[110, 60, 130], [225, 190, 215]]}
    settings = stardist_settings(normalisation=scale, grid_px=2)
    data = stardist_onnx(radii=(8.0, 8.0), grid_px=2)
    return write_detector(tmp_path / "detector", "stardist", settings, data)


def test_nuclei_of_another_detector_are_written(folder: Path, tmp_path: Path) -> None:
    slide = tmp_path / "small.tif"
    paint_phantom(slide, PhantomSpec(width_mm=0.4, height_mm=0.4, mpp=0.5, seed=1, pen=False))
    cells = CellSettings("tissue", required=True, detector=str(folder))
    report = triage(
        slide, tmp_path / "out", settings=Settings(cells=cells), resources=Resources("serial")
    )
    (row,) = report.rows
    assert isinstance(row.outcome, SlideResult), row.outcome
    assert row.outcome.nuclei is not None
    assert row.outcome.nuclei > 20
    where = report.out / row.outcome.directory
    written = sum(len(table) for table, _ in read_cell_geojson(where / "cells.geojson.gz"))
    assert written == row.outcome.nuclei
    said = json.loads((where / "result.json").read_bytes())["cells"]
    assert said["detector"] == "tiny-stardist-0.1"
    assert said["identity"] == identify_foreign(folder)
    assert list(verify_output(report.out)) == []


def test_results_depend_on_detector_and_file(folder: Path) -> None:
    cells = CellSettings(detector=str(folder))
    before = identify_cells(cells)
    assert before == identify_cells(cells)
    card = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps({**card, "version": "0.2"}))
    assert identify_cells(cells) != before
    (folder / "weights.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="another file than was pinned"):
        identify_cells(cells)


def test_a_detector_that_cannot_be_used_is_said_before_a_run(tmp_path: Path) -> None:
    wrong = write_detector(
        tmp_path / "wrong", "stardist", stardist_settings(), stardist_onnx(rays=2)
    )
    with pytest.raises(ModelError, match="3 channels"):
        identify_cells(CellSettings(detector=str(wrong)))


def test_a_folder_without_detector_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no detector") as caught:
        open_detector(CellSettings(detector=str(tmp_path)), "cpu")
    assert "card.json" in caught.value.mend
    assert "detector.json" in caught.value.mend
    with pytest.raises(ModelError, match="no nucleus detector 'nowhere'"):
        open_detector(CellSettings(detector="nowhere"), "cpu")
    assert open_detector(CellSettings(), "cpu").name.startswith("nuclei-he")
