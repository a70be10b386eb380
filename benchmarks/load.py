"""Thousands of small slides in one run: rate, memory, handles, resuming, and a huge manifest.

    python benchmarks/load.py [--json] [--slides 60] [--seed 1] [--rows 100000] [--few-pictures]
        [--only PART ...]

`batch`: that many distinct slides of 768 x 512 px at 4 um/px through the serial engine of this
process with a network that costs next to nothing; slides per hour, the slope of memory over the
last two thirds, handles gained since the first third, seconds for the first and the last 200 (or
third, of fewer), then the same run again, which must read no tile.
`manifest`: a table of so many rows read and registered, in a process of its own.
`overhead`: a slide of 12,288 x 8,192 px whose tiles are all read, by the pipeline with a model that
takes the mean colour, and by bare threads; tiles/s and their ratio.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from threading import local

import numpy as np
import psutil
import tifffile
from numpy.typing import NDArray
from reading import choose_tiles
from torture.slide_worker import few_pictures, make_work, tiny_model
from torture.watching import Watch, slope

from faults.painted import paint
from faults.tiff_parts import as_jpeg
from slidetriage import Resources, Settings, triage
from slidetriage.models import Device, RuntimeChoice
from slidetriage.tiling import TileBatch, read_tiles
from slidetriage.workflows.features import FEATURES, create_features
from slidetriage.workflows.ledger import Registry
from slidetriage.workflows.serial import SerialEngine
from slidetriage.workflows.sources import find_requests
from slidetriage.workflows.station import EncodingStation
from slidetriage.workflows.steps import (
    BatchReceipt,
    EncodeStep,
    FinishStep,
    PlanStep,
    SlidePlan,
    SlideResult,
)
from slidetriage.workflows.stored import StoredBatches
from slidetriage.wsi import open_reader, open_slide
from tiny_slides import write_tiff

PARTS = ("batch", "manifest", "overhead")
SIZE_PX, MPP = (768, 512), 4.0
WIDE_PX, TALL_PX, TILE_PX = 12_288, 8_192, 256
REPEATS = 3


def make_slides(folder: Path, count: int, seed: int) -> list[Path]:
    """Distinct slides: one painted picture, shifted and with noise of its own."""
    folder.mkdir()
    random, found = np.random.default_rng(seed), []
    picture = paint()
    for number in range(count):
        shift = tuple(int(part) for part in random.integers(0, 200, 2))
        moved = np.roll(picture, shift, (0, 1))[: SIZE_PX[1], : SIZE_PX[0]].astype(np.int16)
        noise = random.integers(-8, 9, (SIZE_PX[1], SIZE_PX[0], 1), dtype=np.int16)
        image = np.clip(moved + noise, 0, 255).astype(np.uint8)
        path = folder / f"slide-{number:05d}.tif"
        found.append(write_tiff(path, image, mpp=MPP, tile=256, compression="jpeg"))
    return found


def measure_batch(work: Path, slides: int, seed: int) -> dict[str, object]:
    """The batch, and the batch again."""
    folder, out = work / "slides", work / "results"
    paths = make_slides(folder, slides, seed)
    settings = Settings(model=str(tiny_model(work / "model")))
    watch = Watch(every=max(1, slides // 40))
    begin = time.monotonic()
    report = triage(paths, out, settings=settings, resources=Resources("serial"), watcher=watch)
    seconds = time.monotonic() - begin
    again = Watch(every=slides + 1)
    begin = time.monotonic()
    triage(paths, out, settings=settings, resources=Resources("serial"), watcher=again)
    scan = time.monotonic() - begin
    settled = [(n, held) for n, held in watch.samples if n >= slides / 3]
    part = min(200, slides // 3)
    rate = (slides - 1) / (watch.ended_at[-1] - watch.ended_at[0])
    return {
        "slides": slides,
        "states": dict(Counter(row.state for row in report.rows)),
        "slides_per_hour": round(rate * 3600),
        "seconds": round(seconds, 1),
        "rss_slope_mb_per_100": round(100 * slope([(n, held.rss_mb) for n, held in settled]), 2),
        "in_use_slope_mb_per_100": round(
            100 * slope([(n, held.in_use_mb) for n, held in settled]), 2
        ),
        "children_slope_mb_per_100": round(
            100 * slope([(n, held.children_mb) for n, held in settled]), 2
        ),
        "fd_delta": settled[-1][1].handles - settled[0][1].handles,
        "thread_delta": settled[-1][1].threads - settled[0][1].threads,
        "first_200_s": round(watch.ended_at[part] - watch.ended_at[0], 2),
        "last_200_s": round(watch.ended_at[-1] - watch.ended_at[-1 - part], 2),
        "resume_scan_s": round(scan, 2),
        "resume_opened": again.plans + again.batches,
    }


def measure_manifest(work: Path, rows: int) -> dict[str, float]:
    """A table of slides, read and registered in a process of its own."""
    table = work / "manifest.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "slide_id", "mpp", "patient_id"))
        for number in range(rows):
            writer.writerow((f"/data/{number % 97}/{number}.svs", f"s{number}", 0.5, number // 3))
    command = [sys.executable, __file__, "--register", str(table), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {"rows": rows, **found}


def register(table: Path) -> dict[str, float]:
    """Read a manifest and give each of its slides a row."""
    process, begin = psutil.Process(), time.monotonic()
    before = process.memory_info().rss
    requests = find_requests([table])
    with Registry.open(table.parent / "run") as registry:
        for request in requests:
            registry.add(request)
    seconds = time.monotonic() - begin
    begin = time.monotonic()
    with Registry.open(table.parent / "run") as registry:
        assert len(registry) == len(requests)
    return {
        "seconds": round(seconds, 2),
        "again_s": round(time.monotonic() - begin, 2),
        "rss_mb": round((process.memory_info().rss - before) / 2**20),
    }


@dataclass(frozen=True, slots=True)
class _Size:
    feature_size: int = 3


class MeanColour:
    """A model that costs nothing: a tile's features are its mean colour."""

    encoder = _Size()

    def prepare(self) -> RuntimeChoice:
        """Nothing to compile."""
        return RuntimeChoice("torch", "float32", 64, 1, "a mean", 0.0)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The means."""
        means: NDArray[np.float32] = images[:, ::16, ::16].mean((1, 2), dtype=np.float32)
        return means


class MeanStation(EncodingStation[MeanColour]):
    """Reads and encodes; plans and finishes nothing."""

    def _load(self, device: Device) -> MeanColour:
        return MeanColour()

    def _plan_slide(self, step: PlanStep) -> SlidePlan | SlideResult:
        raise NotImplementedError

    def _finish_slide(self, step: FinishStep) -> SlideResult:
        raise NotImplementedError


def make_large(path: Path) -> Path:
    """Painted tissue side by side, as a slide of JPEG tiles."""
    blocks = [
        as_jpeg(np.ascontiguousarray(paint(seed)[top : top + TILE_PX, left : left + TILE_PX]))
        for seed in range(2)
        for top in range(0, 512, TILE_PX)
        for left in range(0, 768, TILE_PX)
    ]

    def tiles() -> Iterator[bytes]:
        for number in range(WIDE_PX // TILE_PX * (TALL_PX // TILE_PX)):
            yield blocks[number * 7 % len(blocks)]

    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tiles(), shape=(TALL_PX, WIDE_PX, 3), dtype=np.uint8, tile=(TILE_PX, TILE_PX),
            photometric="ycbcr", subsampling=(2, 2), compression="jpeg", metadata=None,
            resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
        )  # fmt: skip
    return path


def measure_overhead(work: Path) -> dict[str, float]:
    """Tiles per second of bare threads and of the pipeline, in turns."""
    slide = open_slide(make_large(work / "large.tif"))
    batches = choose_tiles(slide, mpp=1.0, tile_px=TILE_PX)
    count = sum(len(batch.tiles) for batch in batches)
    settings, cores = Settings(), os.cpu_count() or 1
    engine = SerialEngine(settings, work / "large", cores=cores, station=MeanStation)
    times: dict[str, list[float]] = {"raw": [], "pipeline": []}
    with closing(engine), ThreadPoolExecutor(cores) as pool:
        engine.load()
        for _ in range(REPEATS + 1):
            times["raw"].append(read_bare(pool, batches))
            times["pipeline"].append(run_pipeline(engine, batches, work / "staging"))
    raw, pipeline = (count / median(times[name][1:]) for name in ("raw", "pipeline"))
    return {
        "tiles": count,
        "raw_tiles_s": round(raw),
        "pipeline_tiles_s": round(pipeline),
        "ratio": round(pipeline / raw, 3),
    }


def read_bare(pool: ThreadPoolExecutor, batches: list[TileBatch]) -> float:
    """Seconds in which the threads read all tiles, each with a reader of its own."""
    own = local()

    def read(batch: TileBatch) -> None:
        if not hasattr(own, "reader"):
            own.reader = open_reader(batch.slide)
        assert read_tiles(own.reader, batch).readable.all()

    begin = time.perf_counter()
    list(pool.map(read, batches))
    return time.perf_counter() - begin


def run_pipeline(engine: SerialEngine, batches: list[TileBatch], staging: Path) -> float:
    """Seconds in which the engine reads and encodes all tiles."""
    tiles = sum(len(batch.tiles) for batch in batches)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    store, size = staging / FEATURES, len(batches[0].tiles)
    make = partial(create_features, store, tiles=tiles, dimension=3, batch=size)
    StoredBatches(store).keep("bench", make)
    waiting = [EncodeStep("large", batch, staging, "") for batch in batches]
    begin, under_way = time.perf_counter(), 0
    while waiting or under_way:
        while waiting and under_way < engine.slots:
            engine.submit(waiting.pop(0))
            under_way += 1
        _, receipt = engine.next_done()
        under_way -= 1
        assert isinstance(receipt, BatchReceipt), receipt
        assert receipt.unreadable == 0
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--slides", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=100_000, help="of the manifest")
    parser.add_argument("--few-pictures", action="store_true", help="draw one in twenty")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--register", type=Path, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.register:
        print(json.dumps(register(args.register)))
        return
    print(f"seed {args.seed}", file=sys.stderr)
    figures: dict[str, object] = {}
    with make_work() as work:
        if "batch" in args.only:
            with few_pictures() if args.few_pictures else nullcontext():
                figures |= measure_batch(work.root, args.slides, args.seed)
        if "manifest" in args.only:
            figures["manifest_100k"] = measure_manifest(work.root, args.rows)
        if "overhead" in args.only:
            figures["overhead"] = measure_overhead(work.root)
    figures["seed"] = args.seed
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
