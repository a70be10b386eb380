"""Workers, sizes of slides, memory and what passes the scheduler, measured on whole runs.

    python benchmarks/scaling.py [--json] [--quick] [--only workers|sizes]

`workers`: tiles/s of the Dask engine with one worker on one core, two workers on one core each and
one worker on two cores, and of the serial engine on one and on two, from the first batch to the
last, where the network is the limit (ResNet-18 on tiles of 224 px at 0.5 um/px, one thread each);
bytes on the loopback device per tile meanwhile.
`sizes`: whole runs, cold, over slides of 0.6, 2.4 and 9.7 gigapixels with tissue everywhere and a
network that costs next to nothing, so that memory is that of everything else: the largest resident
size of a worker, above that of the same worker idle with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import psutil
from bundles import make_bundle
from mosaic import default_data, make_mosaic

from slidetriage.workflows.distribution import DaskEngine
from slidetriage.workflows.jobs import Run
from slidetriage.workflows.serial import Engine, SerialEngine
from slidetriage.workflows.settings import Settings
from slidetriage.workflows.sources import find_requests
from slidetriage.workflows.steps import BatchReceipt, CellPlan, SlidePlan, SlideResult
from slidetriage.workflows.worklist import Row

SIDES = (24_576, 49_152, 98_304)


@dataclass
class Clock:
    """A watcher that notes when the first slide was planned and each batch was done."""

    planned_at: float = 0.0
    read_at: list[float] = field(default_factory=list)
    tiles: int = 0
    rows: list[Row] = field(default_factory=list)
    loopback: list[int] = field(default_factory=list)
    receipt_bytes: int = 0

    def started(self, slides: int) -> None:
        """Nothing to note."""

    def planned(self, plan: SlidePlan) -> None:
        """The encoding begins."""
        self.planned_at = time.perf_counter()
        self.loopback.append(loopback_bytes())

    def located(self, cells: CellPlan) -> None:
        """Nothing to note."""

    def read(self, receipt: BatchReceipt) -> None:
        """A batch is done."""
        self.read_at.append(time.perf_counter())
        self.tiles += receipt.tiles
        self.loopback.append(loopback_bytes())
        self.receipt_bytes += len(pickle.dumps(receipt))

    def ended(self, row: Row) -> None:
        """The slide is done."""
        self.rows.append(row)

    @property
    def rate(self) -> float:
        """Tiles/s while batches were being encoded."""
        return self.tiles / (self.read_at[-1] - self.planned_at)


def loopback_bytes() -> int:
    """Sent on the loopback device since the machine started."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


class MemoryWatch(threading.Thread):
    """Samples the resident size of every worker process; the largest of one counts.

    And, more seldom, what a worker has together with the processes that read for it, where pages
    that several share count once in all.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.peak_with_readers = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        for number in count():
            if self._stopped.wait(0.02):
                return
            self.peak = max(self.peak, largest_worker())
            if number % 25 == 0:
                self.peak_with_readers = max(self.peak_with_readers, largest_with_readers())

    def stop(self) -> None:
        """Sample no more."""
        self._stopped.set()
        self.join()


def workers() -> Iterator[psutil.Process]:
    """The worker processes: those forked from the template."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, AttributeError):  # it or its parent has just ended
            if "forkserver" in " ".join(process.parent().cmdline()):
                yield process


def largest_worker() -> int:
    """Resident bytes of the largest worker process now."""
    sizes = [0]
    for process in workers():
        with suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return max(sizes)


def largest_with_readers() -> int:
    """Proportional set size of the largest worker and its children now, in bytes."""
    sizes = [0]
    for process in workers():
        with suppress(psutil.Error):
            family = [process, *process.children(recursive=True)]
            sizes.append(sum(each.memory_full_info().pss for each in family))
    return max(sizes)


def run_slide(engine: Engine, path: Path, settings: Settings, work: Path) -> Clock:
    """One slide through an engine that is ready."""
    clock = Clock()
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    (out / "staging").mkdir(parents=True)
    Run(find_requests([path]), out / "staging", clock, settings).drive(engine)
    outcome = clock.rows[0].outcome
    assert isinstance(outcome, SlideResult), outcome
    return clock


def measure_workers(args: argparse.Namespace, work: Path) -> dict[str, float]:
    """Rates with one and two workers, and without Dask."""
    side = 8_192 if args.quick else 20_480
    path = make_mosaic(work / f"mosaic-{side}-0.252.svs", width_px=side, mpp=0.252, data=args.data)
    bundle = make_bundle(work / f"bundle-{args.backbone}", args.backbone, mpp=0.5, tile_px=224)
    settings = Settings(model=str(bundle), threads=1)
    engines: dict[str, Callable[[], Engine]] = {
        "serial": lambda: SerialEngine(settings, work / "out", cores=1),
        "workers_1": lambda: DaskEngine(settings, work / "out", workers=1, cores=1),
        "workers_2": lambda: DaskEngine(settings, work / "out", workers=2, cores=2),
        "one_worker_of_two": lambda: DaskEngine(settings, work / "out", workers=1, cores=2),
        "serial_of_two": lambda: SerialEngine(settings, work / "out", cores=2),
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    per_tile: list[float] = []
    receipts: list[float] = []
    for _ in range(args.repeats or (3 if args.quick else 5)):
        for name in rates:
            engine = engines[name]()
            time.sleep(5)  # networks are compiled beside planning, and that is not measured
            try:
                clock = run_slide(engine, path, settings, work)
            finally:
                engine.close()
            rates[name].append(clock.rate)
            if name == "workers_2":
                per_tile.append((clock.loopback[-1] - clock.loopback[0]) / clock.tiles)
                receipts.append(clock.receipt_bytes / clock.tiles)
    figures = {name: round(median(each), 2) for name, each in rates.items()}
    figures["two_over_one"] = round(figures["workers_2"] / figures["workers_1"], 3)
    figures["together_over_one"] = round(figures["one_worker_of_two"] / figures["workers_1"], 3)
    figures["dask_over_serial"] = round(figures["workers_1"] / figures["serial"], 3)
    figures["loopback_bytes_per_tile"] = round(median(per_tile), 1)
    figures["receipt_bytes_per_tile"] = round(median(receipts), 2)
    return figures


def measure_sizes(args: argparse.Namespace, work: Path) -> dict[str, dict[str, float]]:
    """Whole runs over ever larger slides."""
    bundle = make_bundle(work / "bundle-test_resnet", "test_resnet", mpp=0.5, tile_px=224)
    settings = Settings(model=str(bundle), threads=1)
    figures = {}
    for side in SIDES[:1] if args.quick else SIDES:
        path = make_mosaic(work / f"mosaic-{side}-0.25.svs", width_px=side, data=args.data)
        begin = time.perf_counter()
        engine = DaskEngine(settings, work / "out", workers=2)
        try:
            idle, idle_with_readers = largest_worker(), largest_with_readers()
            watch = MemoryWatch()
            watch.start()
            clock = run_slide(engine, path, settings, work)
            watch.stop()
        finally:
            engine.close()
        figures[f"{side**2 / 1e9:.1f}"] = {
            "tiles": clock.tiles,
            "tiles_per_s": round(clock.rate, 1),
            "seconds": round(time.perf_counter() - begin, 1),
            "worker_idle_mib": round(idle / 2**20),
            "worker_peak_mib": round(watch.peak / 2**20),
            "with_readers_idle_mib": round(idle_with_readers / 2**20),
            "with_readers_peak_mib": round(watch.peak_with_readers / 2**20),
        }
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--quick", action="store_true", help="smaller slides and fewer repeats")
    parser.add_argument("--only", choices=["workers", "sizes"], default=None)
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--backbone", default="resnet18", help="for the comparison of workers")
    parser.add_argument("--work", type=Path, help="where mosaics are kept")
    parser.add_argument("--data", type=Path, default=default_data())
    args = parser.parse_args()
    work = args.work or Path(tempfile.gettempdir()) / "slidetriage-benchmarks"
    work.mkdir(parents=True, exist_ok=True)
    figures: dict[str, object] = {}
    if args.only != "sizes":
        figures["workers"] = measure_workers(args, work)
    if args.only != "workers":
        figures["sizes"] = measure_sizes(args, work)
    if args.json:
        print(json.dumps(figures))
        return
    for name, part in figures.items():
        print(name)
        assert isinstance(part, dict)
        for key, value in part.items():
            print(f"  {key:26} {value}")


if __name__ == "__main__":
    main()
