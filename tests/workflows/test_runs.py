"""Whole runs: the same bytes from every engine, a row for every slide, nothing half-written."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
import zarr
from shapely import union_all
from shapely.geometry import box, shape

from slidetriage import Resources, Settings, load_bundle, triage
from slidetriage.errors import OutputError, UsageError
from slidetriage.tiling import split_batches
from slidetriage.workflows.jobs import Run
from slidetriage.workflows.ledger import read_audit
from slidetriage.workflows.manifest import hash_files, verified_key
from slidetriage.workflows.observers import Silent
from slidetriage.workflows.serial import SerialEngine
from slidetriage.workflows.sources import SlideRequest, find_requests
from slidetriage.workflows.station import Station
from slidetriage.workflows.steps import (
    BatchReceipt,
    EncodeStep,
    PlanStep,
    Receipt,
    SlideFailure,
    SlidePlan,
    SlideResult,
    Step,
)
from slidetriage.wsi import open_slide
from tiny_slides import gradient, tile_offsets, write_tiff, zero_tiles
from trees import tree

Find = Callable[[str], Path]
SERIAL = Resources("serial")
FILES = ("annotations.geojson", "manifest.json", "overlay.png", "result.json", "tiles.geojson")


@pytest.fixture(scope="module")
def slides(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A tumour slide, one without tissue, and one that is no slide."""
    folder = tmp_path_factory.mktemp("slides")
    shutil.copy(phantom, folder / "tumour.tif")
    write_tiff(folder / "glass.tif", np.full((1500, 1500, 3), 244, np.uint8), mpp=1.0)
    (folder / "text.svs").write_text("no slide")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def published(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The serial engine's results: the reference."""
    out = tmp_path_factory.mktemp("serial")
    report = triage(slides, out, resources=SERIAL)
    assert report.counts["planned"] == 3
    return out


def folder_of(out: Path, name: str) -> Path:
    (found,) = out.glob(f"{name}-*")
    return found


def test_a_slides_folder_holds_everything(published: Path) -> None:
    folder = folder_of(published, "tumour")
    assert tuple(sorted(p.name for p in folder.iterdir() if p.is_file())) == FILES
    assert (folder / "heatmap.zarr" / "zarr.json").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == hash_files(folder)
    assert verified_key(folder) == manifest["key"]
    assert manifest["provenance"]["model"]["identity"] == load_bundle("breast-idc-scout").identity
    assert sorted(p.name for p in published.iterdir() if p.is_file()) == [
        "worklist.csv",
        "worklist.json",
    ]


def test_the_result_agrees_with_heatmap_and_geojson(published: Path) -> None:
    folder = folder_of(published, "tumour")
    result = json.loads((folder / "result.json").read_text())
    tiles = orjson.loads((folder / "tiles.geojson").read_bytes())["features"]
    heat = np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])
    assert result["tiles"]["planned"] == len(tiles) == int((~np.isnan(heat[0])).sum())
    assert result["coverage"] == pytest.approx(1.0, abs=0.02)
    assert np.nansum(heat[1]) == pytest.approx(1.0, abs=1e-4)
    regions = orjson.loads((folder / "annotations.geojson").read_bytes())["features"]
    assert len(regions) == len(result["regions"]) > 0
    mm2 = sum(shape(f["geometry"]).area for f in regions) * (2e-3) ** 2
    assert result["flagged_mm2"] == pytest.approx(mm2, rel=1e-4)
    threshold = result["model"]["tile_threshold"]
    assert result["tiles"]["above_threshold"] == int((heat[0] >= threshold).sum())
    assert "Research Use Only" in result["notice"]


def test_glass_is_done_with_no_tissue_and_no_score(published: Path) -> None:
    folder = folder_of(published, "glass")
    result = json.loads((folder / "result.json").read_text())
    assert (result["state"], result["verdict"], result["score"]) == ("DONE", "needs eyes", None)
    assert orjson.loads((folder / "annotations.geojson").read_bytes())["features"] == []
    assert np.isnan(np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])).all()
    assert any("no tissue" in reason for reason in result["reasons"])


def test_every_slide_has_its_row(published: Path) -> None:
    rows = json.loads((published / "worklist.json").read_text())["slides"]
    assert [row["state"] for row in rows] == ["DONE", "DONE", "REJECTED"]
    assert rows[0]["slide_id"].startswith("tumour-")
    assert rows[2]["code"] == "E_NOT_SLIDE"
    assert "text.svs" in rows[2]["reason"]


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))])
def test_dask_gives_the_same_bytes(
    slides: list[Path], published: Path, tmp_path: Path, workers: int
) -> None:
    shuffled = slides.copy()
    random.Random(workers).shuffle(shuffled)
    triage(shuffled, tmp_path, resources=Resources("dask", workers))
    assert tree(tmp_path) == tree(published)


def test_a_second_run_redoes_nothing(slides: list[Path], published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(published, out)

    def written() -> dict[Path, int]:
        results = (p for p in out.rglob("*/*") if p.relative_to(out).parts[0] != "run")
        return {path: path.stat().st_mtime_ns for path in results}

    before = written()
    assert before
    triage(slides, out, resources=SERIAL)
    assert written() == before
    ended = [e for e in read_audit(out / "run" / "audit.jsonl") if e["event"] == "slide_ended"]
    assert len(ended) == len(slides), "the second run ended nothing"
    assert tree(out) == tree(published)


def test_other_settings_stand_beside_the_old_result(
    slides: list[Path], published: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(published, out)
    tumour = slides[-1]
    triage(tumour, out, resources=SERIAL, settings=Settings(overlap=0.5))
    old, new = sorted(out.glob("tumour-*"), key=lambda p: len(p.name))
    assert tree(old) == tree(folder_of(published, "tumour"))
    assert verified_key(new) not in (None, verified_key(old))


def test_options_change_what_is_written(slides: list[Path], tmp_path: Path) -> None:
    settings = Settings(ngff="0.4", compress_geojson=True, keep_features=True, overlap=0.5)
    triage(slides[-1], tmp_path, resources=SERIAL, settings=settings)
    folder = folder_of(tmp_path, "tumour")
    assert (folder / "heatmap.zarr" / ".zattrs").exists()
    assert (folder / "annotations.geojson.gz").exists()
    assert (folder / "tiles.geojson.gz").exists()
    features = np.asarray(zarr.open_group(folder / "features.zarr", mode="r")["features"])
    assert len(features) == json.loads((folder / "result.json").read_text())["tiles"]["planned"]


def test_the_same_content_twice_is_computed_once_and_has_two_rows(
    slides: list[Path], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(slides[-1], tmp_path / name / "case.tif")
    report = triage([tmp_path / "one", tmp_path / "two"], tmp_path / "out", resources=SERIAL)
    assert report.counts == {
        "planned": 2, "done": 2, "gaps": 0, "rejected": 0, "failed": 0, "pending": 0,
    }  # fmt: skip
    assert len(list((tmp_path / "out").glob("case-*"))) == 1


def test_the_same_name_with_other_content_gives_two_results(
    slides: list[Path], tmp_path: Path
) -> None:
    for name, source in (("one", slides[0]), ("two", slides[-1])):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "case.tif")
    triage([tmp_path / "one", tmp_path / "two"], tmp_path / "out", resources=SERIAL)
    assert len(list((tmp_path / "out").glob("case-*"))) == 2


def middle_third(path: Path) -> range:
    """Indices of the tiles in the middle of the file."""
    count = len(tile_offsets(path)[0])
    return range(count // 3, 2 * count // 3)


class Backwards(SerialEngine):
    """Takes many steps and does the last one first: the worst order an engine can have."""

    slots = 50

    def next_done(self) -> tuple[Step, Receipt]:
        self._waiting.rotate(1)
        return super().next_done()


@pytest.mark.slow
def test_what_comes_out_does_not_depend_on_the_order_of_receipts(
    slides: list[Path], phantom: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tif"
    shutil.copy(phantom, bad)
    zero_tiles(bad, middle_third(bad))
    settings = Settings(batch_tiles=8)
    outcomes = []
    for kind in (SerialEngine, Backwards):
        out = tmp_path / kind.__name__
        (out / "staging").mkdir(parents=True)
        run = Run(find_requests([*slides, bad]), out / "staging", Silent(), settings)
        engine = kind(settings, out)
        run.drive(engine)
        engine.close()
        shutil.rmtree(out / "staging")
        outcomes.append(([row.outcome for row in run.rows()], tree(out)))
    assert outcomes[0] == outcomes[1]


def station_for(out: Path) -> Station:
    out.mkdir(parents=True, exist_ok=True)
    return Station(Settings(), out)


def test_no_pixels_and_no_features_come_back(
    phantom: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What a worker returns for a batch is at most 10 kB, and what goes out is boxes."""
    station = station_for(tmp_path)
    request.addfinalizer(station.close)
    staging = tmp_path / "staging" / "0"
    plan = station.perform(PlanStep(SlideRequest(phantom, "p"), staging))
    assert isinstance(plan, SlidePlan)
    assert len(pickle.dumps(plan)) <= 4096 + 24 * len(plan.tiles)
    for batch in split_batches(plan.slide, plan.tiles, 64):
        step = EncodeStep(plan.slide_id, batch, staging, plan.sha256)
        receipt = station.perform(step)
        assert isinstance(receipt, BatchReceipt)
        assert len(pickle.dumps(receipt)) <= 10_000
        assert len(pickle.dumps(step)) <= 10_000


def test_a_bad_tile_is_a_gap_and_every_other_cell_is_the_same(
    tmp_path: Path, phantom: Path
) -> None:
    """One tile of the file is zeroed: its cells are NaN, the state says so, the rest is equal."""
    bad = tmp_path / "bad.tif"
    shutil.copy(phantom, bad)
    columns, rows = (
        -(-side // 256) for side in (open_slide(bad).width_px, open_slide(bad).height_px)
    )
    zero_tiles(bad, [rows // 2 * columns + columns // 2])
    settings = Settings(max_unreadable=0.2)
    triage([phantom, bad], tmp_path / "out", resources=SERIAL, settings=settings)
    whole, gaps = (
        np.asarray(zarr.open_group(folder_of(tmp_path / "out", n) / "heatmap.zarr", mode="r")["s0"])
        for n in ("phantom", "bad")
    )
    result = json.loads((folder_of(tmp_path / "out", "bad") / "result.json").read_text())
    lost = np.isnan(gaps[0]) & ~np.isnan(whole[0])
    assert result["state"] == "DONE_WITH_GAPS"
    assert 0 < lost.sum() == result["tiles"]["unreadable"] <= 16
    assert np.isnan(gaps[:, lost]).all(), "a gap has no value in any channel"
    both = ~np.isnan(gaps[0])
    np.testing.assert_array_equal(gaps[0][both], whole[0][both])


def test_too_many_bad_tiles_fail_the_slide_and_leave_nothing(tmp_path: Path, phantom: Path) -> None:
    bad = tmp_path / "bad.tif"
    shutil.copy(phantom, bad)
    zero_tiles(bad, middle_third(bad))
    report = triage(bad, tmp_path / "out", resources=SERIAL)
    (row,) = report.rows
    assert isinstance(row.outcome, SlideFailure)
    assert (row.state, row.outcome.code) == ("FAILED", "E_TOO_MANY_GAPS")
    assert "bad.tif" in row.outcome.message
    assert not report.complete
    left = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert left == ["run", "worklist.csv", "worklist.json"]


def test_regions_land_where_qupath_shows_them(tmp_path: Path, phantom: Path) -> None:
    """The phantom without its outer tiles has bounds; QuPath's image begins at their corner."""
    from tiny_slides import patch_table

    bounded = tmp_path / "bounded.tif"
    shutil.copy(phantom, bounded)
    for level in range(len(open_slide(phantom).levels)):
        offsets, _, offset_table, count_table = tile_offsets(bounded, level)
        columns = -(-open_slide(phantom).levels[level].width_px // 256)
        for index in range(len(offsets)):
            # Level 0 loses its first row and column of tiles; coarser levels cannot lose a part.
            if level == 0 and (index % columns == 0 or index < columns):
                patch_table(bounded, offset_table, index, 0)
                patch_table(bounded, count_table, index, 0)
    slide = open_slide(bounded)
    assert (slide.bounds.x, slide.bounds.y) == (256, 256)
    for name, crop in (("cropped", True), ("whole", False)):
        triage(
            bounded,
            tmp_path / name,
            resources=SERIAL,
            settings=Settings(crop_to_bounds=crop),
        )
    cropped, whole = (
        union_all(
            [
                shape(f["geometry"])
                for f in orjson.loads(
                    (folder_of(tmp_path / n, "bounded") / "annotations.geojson").read_bytes()
                )["features"]
            ]
        )
        for n in ("cropped", "whole")
    )
    assert not cropped.is_empty
    x, y, _, _ = whole.bounds
    assert (cropped.bounds[0], cropped.bounds[1]) == (x - 256, y - 256)
    assert box(256, 256, slide.width_px, slide.height_px).covers(whole)
    heat = zarr.open_group(folder_of(tmp_path / "cropped", "bounded") / "heatmap.zarr", mode="r")
    first = heat.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert first[1]["translation"][1:] == pytest.approx([256 * 2.0 + 100 - 1] * 2)


def test_a_slide_too_coarse_for_the_model_is_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "coarse.tif", gradient(400, 400), mpp=16.0)
    report = triage(path, tmp_path / "out", resources=SERIAL)
    assert isinstance(report.rows[0].outcome, SlideFailure)
    assert report.rows[0].outcome.code == "E_MPP_TOO_COARSE"
    assert report.rows[0].state == "REJECTED"


def test_a_file_that_changes_while_it_is_read_is_not_published(
    phantom: Path, tmp_path: Path
) -> None:
    path = tmp_path / "growing.tif"
    shutil.copy(phantom, path)

    class Growing:
        def started(self, slides: int) -> None: ...

        def planned(self, plan: SlidePlan) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        def located(self, cells: object) -> None: ...

        def read(self, receipt: BatchReceipt) -> None: ...

        def ended(self, row: object) -> None: ...

    report = triage(path, tmp_path / "out", resources=SERIAL, watcher=Growing())
    assert isinstance(report.rows[0].outcome, SlideFailure)
    assert report.rows[0].outcome.code == "E_UNSTABLE"
    assert list((tmp_path / "out").glob("growing-*")) == []


def test_a_file_that_is_in_the_way_is_said(tmp_path: Path, phantom: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out"):
        triage(phantom, tmp_path / "out", resources=SERIAL)


@pytest.mark.parametrize(
    "settings",
    [{"min_tissue": -1.0}, {"overlap": 1.0}, {"batch_tiles": 0}, {"ngff": "0.3"}],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Settings(**settings)  # type: ignore[arg-type]


def test_an_unknown_masker_is_refused_before_anything_runs(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="slidetriage"):
        triage(phantom, tmp_path / "out", resources=SERIAL, settings=Settings(masker="best"))
    assert not (tmp_path / "out").exists()


def test_the_serial_engine_does_steps_in_order(tmp_path: Path) -> None:
    engine = SerialEngine(Settings(), tmp_path)
    steps = [
        PlanStep(SlideRequest(tmp_path / f"{n}.svs", str(n)), tmp_path / str(n)) for n in range(3)
    ]
    for step in steps:
        engine.submit(step)
    outcomes = [engine.next_done() for _ in steps]
    assert [step for step, _ in outcomes] == steps
    assert all(isinstance(receipt, SlideFailure) for _, receipt in outcomes)
    engine.close()


def test_real_breast_section(data: Find, tmp_path: Path) -> None:
    """The whole section of a patient in no training set, against the pathologist's labels."""
    from PIL import Image
    from sklearn.metrics import roc_auc_score

    report = triage(data("slides/idc_14082.tif"), tmp_path, resources=SERIAL)
    outcome = report.rows[0].outcome
    assert isinstance(outcome, SlideResult)
    assert outcome.verdict == "flag"
    labels = np.asarray(Image.open(data("slides/idc_14082_labels.png")))
    folder = folder_of(tmp_path, "idc_14082")
    heat = np.asarray(zarr.open_group(folder / "heatmap.zarr", mode="r")["s0"])[0]
    score, truth = [], []
    for row, column in zip(*np.nonzero(~np.isnan(heat)), strict=True):
        part = labels[row * 50 : row * 50 + 50, column * 50 : column * 50 + 50]
        if (part > 0).mean() > 0.5:
            score.append(heat[row, column])
            truth.append((part == 2).sum() > (part == 1).sum())
    assert len(score) > 450
    assert roc_auc_score(truth, score) >= 0.95
    flagged = np.array(score) >= load_bundle("breast-idc-scout").card.tile_threshold.value
    dice = 2 * (flagged & truth).sum() / (flagged.sum() + np.sum(truth))
    assert dice >= 0.85


def test_svs_and_dicom_of_one_region_agree(data: Find, tmp_path: Path) -> None:
    report = triage(
        [data("slides/CMU-1-Small-Region.svs"), data("slides/cmu1-dicom")],
        tmp_path,
        resources=SERIAL,
    )
    scores = [row.score for row in report.rows]
    assert len(scores) == 2
    assert scores[0] is not None
    assert scores[1] is not None
    assert abs(scores[0] - scores[1]) <= 0.02
    one, other = (
        [f["geometry"] for f in orjson.loads((p / "tiles.geojson").read_bytes())["features"]]
        for p in tmp_path.iterdir()
        if p.is_dir() and p.name != "run"
    )
    assert one == other
