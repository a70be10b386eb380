"""The estimate against runs: what can be known beforehand is right, the rest near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from slidetriage import Resources, Settings, triage
from slidetriage.errors import ModelError, UsageError
from slidetriage.workflows.estimate import Machine, RunEstimate, SlideEstimate
from slidetriage.workflows.measuring import estimate_run, picture_entropy, process_age_s
from slidetriage.wsi import open_slide
from tiny_slides import gradient, write_tiff

Find = Callable[[str], Path]

ALONE = Machine(
    workers=1,
    steps_at_once=2,
    encodings_at_once=1,
    cores=4,
    network_tiles_s=100.0,
    threads=1,
    start_s=5.0,
    worker_bytes=10**9,
    driver_bytes=10**8,
)


def files_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("phantom", Settings(), marks=pytest.mark.slow),
        ("phantom", Settings(overlap=0.5, keep_features=True)),
        pytest.param("slides/CMU-1-Small-Region.svs", Settings(), marks=pytest.mark.slow),
    ],
)
def test_tiles_are_those_of_a_run_and_its_disk_is_near(
    phantom: Path, data: Find, tmp_path: Path, name: str, settings: Settings
) -> None:
    path = phantom if name == "phantom" else data(name)
    (row,) = estimate_run([path], settings).planned
    triage(path, tmp_path, settings=settings, resources=Resources("serial"))
    (file,) = tmp_path.glob("*/result.json")
    result = orjson.loads(file.read_bytes())
    assert row.tiles == result["tiles"]["planned"] > 0
    assert row.tissue_mm2 == result["tissue_mm2"]
    assert row.slide.reader == result["slide"]["reader"]
    assert row.slide.reader_reason == result["slide"]["reader_reason"] != ""
    found = files_bytes(file.parent)
    assert found / 2 < row.result_bytes < found * 2


def test_glass_needs_no_reading(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "glass.tif", gradient(600, 600) * 0 + 244, mpp=1.0)
    (row,) = estimate_run([path], Settings()).planned
    assert (row.tiles, row.reading_tiles_s, row.encode_s) == (0, None, 0.0)


def test_a_slide_that_cannot_be_planned_has_its_row(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("no slide")
    manifest = tmp_path / "night.csv"
    manifest.write_text(f"path,mpp\n{phantom},\ntext.svs,\nmissing.svs,\n{phantom.name},minus\n")
    estimate = estimate_run([manifest], Settings())
    assert [row.request.name for row in estimate.planned] == ["phantom"]
    assert {row.request.path.name: row.failure.code for row in estimate.refused} == {
        "text.svs": "E_NOT_SLIDE",
        "missing.svs": "E_NOT_FOUND",
        phantom.name: "E_BAD_MPP",
    }


def test_what_makes_no_sense_is_said_before_anything(phantom: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        estimate_run([phantom], Settings(model="no-such-model"))
    with pytest.raises(UsageError, match="magic"):
        estimate_run([phantom], Settings(masker="magic"))


def test_workers_share_cores() -> None:
    # One thread reads while the other has the network, and two are never faster than it.
    assert ALONE.tiles_s(1e9, 9) == pytest.approx(100)
    assert ALONE.tiles_s(100, 9) == pytest.approx(100)
    assert ALONE.tiles_s(25, 9) == pytest.approx(40)
    # Two workers do twice as much, but a slide of one batch has one worker.
    two = replace(ALONE, workers=2)
    assert two.tiles_s(25, 9) == pytest.approx(80)
    assert two.tiles_s(25, 1) == pytest.approx(40)
    # One core reads and computes by turns, whoever asks.
    assert replace(ALONE, workers=8, cores=1).tiles_s(25, 9) == pytest.approx(20)
    # A GPU takes no core; eight threads that read are what four cores can do.
    gpu = replace(ALONE, steps_at_once=9, threads=0)
    assert gpu.tiles_s(25, 9) == pytest.approx(100)
    assert gpu.tiles_s(10, 9) == pytest.approx(40)


def test_totals_follow_from_the_slides(phantom: Path) -> None:
    estimate = replace(estimate_run([phantom], Settings()), machine=ALONE)
    (slide,) = estimate.planned

    def seconds(*rows: SlideEstimate) -> float:
        return RunEstimate(estimate.card, estimate.settings, ALONE, rows).seconds

    one = replace(slide, plan_s=1.0, encode_s=10.0, finish_s=2.0)
    assert seconds() == 5
    assert seconds(one) == 5 + 13
    assert seconds(one, one) == 5 + 26
    assert estimate.memory_bytes == 10**8 + estimate.worker_bytes
    large = replace(estimate, rows=(replace(slide, thumbnail_px=slide.thumbnail_px + 1000),))
    assert large.worker_bytes > estimate.worker_bytes


def test_entropy_is_that_of_neighbours() -> None:
    flat = gradient(64, 64) * 0 + 7
    assert picture_entropy(flat) == 0
    step = flat.copy()
    step[:, ::2] += 1  # differences of +1 and -1: 63 of them, as good as one bit
    assert picture_entropy(step) == pytest.approx(step.size / 8, rel=0.001)


def test_a_process_is_older_than_what_it_just_did() -> None:
    before = process_age_s()
    assert before > 0
    assert process_age_s() >= before


def test_nothing_is_written(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(phantom.parent.iterdir())
    estimate_run([phantom], Settings())
    assert list(tmp_path.iterdir()) == []
    assert sorted(phantom.parent.iterdir()) == before
    assert open_slide(phantom).reader == "tiff"
