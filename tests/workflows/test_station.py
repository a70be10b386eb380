"""A station reads ahead, keeps one network, and says what computed the features."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from slidetriage.models.compiled import CompiledNetwork
from slidetriage.tiling import TileBatch, TilePixels, split_batches
from slidetriage.workflows.decoding import Decoder
from slidetriage.workflows.features import FEATURES, read_coverage
from slidetriage.workflows.jobs import Run
from slidetriage.workflows.observers import Silent
from slidetriage.workflows.serial import SerialEngine
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import SlideRequest, find_requests
from slidetriage.workflows.station import Station
from slidetriage.workflows.steps import (
    BatchReceipt,
    EncodeStep,
    FinishStep,
    PlanStep,
    SlidePlan,
    SlideResult,
    Step,
)


def encode_steps(station: Station, slide: Path, staging: Path, batch: int) -> list[EncodeStep]:
    plan = station.perform(PlanStep(SlideRequest(slide, "p"), staging))
    assert isinstance(plan, SlidePlan)
    return [
        EncodeStep(plan.slide_id, part, staging, plan.sha256)
        for part in split_batches(plan.slide, plan.tiles, batch)
    ]


def test_the_next_batch_is_read_while_the_network_has_the_last(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network waits in the first batch until the second has been read: in turn it never is."""
    settings = Settings(batch_tiles=16)
    engine = SerialEngine(settings, tmp_path, cores=1)
    with closing(Station(settings, tmp_path)) as station:
        steps = encode_steps(station, phantom, tmp_path / "s", 16)[:2]
    second_read, inside = threading.Event(), threading.Semaphore(1)
    plain, compute = Decoder.read, CompiledNetwork.__call__
    seen: list[int] = []

    def read(decoder: Decoder, batch: TileBatch, sha256: str | None) -> TilePixels:
        pixels = plain(decoder, batch, sha256)
        seen.append(len(pixels.images))
        if len(seen) == 2:
            second_read.set()
        return pixels

    def slow(network: CompiledNetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert inside.acquire(blocking=False), "one batch at a time has the network"
        assert second_read.wait(60)
        features = compute(network, images)
        inside.release()
        return features

    monkeypatch.setattr(Decoder, "read", read)
    engine.load()
    monkeypatch.setattr(CompiledNetwork, "__call__", slow)
    for step in steps:
        engine.submit(step)
    receipts = [engine.next_done()[1] for _ in steps]
    engine.close()
    assert all(isinstance(receipt, BatchReceipt) for receipt in receipts), receipts
    coverage = read_coverage(tmp_path / "s" / FEATURES)
    assert not np.isnan(coverage[:32]).any()


def test_results_say_what_computed_them(phantom: Path, tmp_path: Path) -> None:
    settings = Settings(precision="float32")
    station = Station(settings, tmp_path)
    staging = tmp_path / "s"
    plan = station.perform(PlanStep(SlideRequest(phantom, "p"), staging))
    assert isinstance(plan, SlidePlan)
    for part in split_batches(plan.slide, plan.tiles, settings.batch_tiles):
        receipt = station.perform(EncodeStep(plan.slide_id, part, staging, plan.sha256))
        assert isinstance(receipt, BatchReceipt)
        assert receipt.runtime.endswith(" float32")
    result = station.perform(FinishStep(plan, staging, "", ("openvino bfloat16", receipt.runtime)))
    assert isinstance(result, SlideResult)
    assert any("encoded in different ways" in warning for warning in result.warnings)
    manifest = orjson.loads((tmp_path / result.directory / "manifest.json").read_bytes())
    runtime = manifest["provenance"]["runtime"]
    assert runtime["encoded_by"] == ["openvino bfloat16", receipt.runtime]
    assert (runtime["precision"], runtime["threads"]) == ("float32", 1)
    assert manifest["provenance"]["slide"]["reader"] == "tiff"
    assert manifest["provenance"]["slide"]["reader_reason"]
    station.close()


def test_the_largest_file_goes_first_and_the_next_is_opened_in_time(
    make_sized: Callable[[str, int], Path], phantom: Path, tmp_path: Path
) -> None:
    small, large = make_sized("a.svs", 10), make_sized("b.svs", 1000)
    middle = make_sized("c.svs", 100)
    run = Run(find_requests([small, large, middle]), tmp_path, Silent(), Settings())
    order: list[Step] = []

    class Watching(SerialEngine):
        def submit(self, step: Step) -> None:
            order.append(step)
            super().submit(step)

    engine = Watching(Settings(), tmp_path)
    run.drive(engine)
    engine.close()
    names = [step.request.path.name for step in order if isinstance(step, PlanStep)]
    assert names == ["b.svs", "c.svs", "a.svs"]
    assert [row.request.path.name for row in run.rows()] == ["a.svs", "b.svs", "c.svs"]


@pytest.fixture
def make_sized(tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes files that are no slides, of a given size."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(b"x" * size)
        return path

    return make
