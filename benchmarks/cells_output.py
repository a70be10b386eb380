"""A million cells written as GeoJSON, Parquet and labels: seconds, memory, sizes, read back.

    python benchmarks/cells_output.py [--cells 1000000] [--json] [--ngff 0.5]

The cells are made up: 20 to 40 corners, 20 measurements, 5,100 per mm2 at 0.25 um/px, in windows
of 8,192 that come in no order of place. Seconds are those of writing, without those of making the
cells; CPU seconds are those of all threads. Memory is the largest resident size while each file
was written, above that of the process with everything loaded and a few cells written. Afterwards
all three are read back: every value and corner of both tables must be equal to what was made
(rounded to 0.01 px), every outline valid, every identifier there once; the share of cells given by
`--check` goes through the schema of QuPath's GeoJSON (all would take hours), and labels must cover
what the outlines do.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import ome_zarr_models
import psutil
import shapely
import zarr

from slidetriage.models.nuclei import Assessment, NucleusTable
from slidetriage.workflows.cells import (
    CellChunk,
    LabelFrame,
    LabelPlace,
    count_label_pixels,
    read_cell_geojson,
    read_cell_parquet,
    write_cell_geojson,
    write_cell_labels,
    write_cell_parquet,
)
from slidetriage.workflows.geojson import GeoJsonFrame
from slidetriage.workflows.qupath_schema import check_geojson

WINDOW = (64, 128)  # rows and columns of cells
PITCH_PX = 56
MPP = 0.25
MEASUREMENTS = (
    "Area um^2", "Perimeter um", "Circularity", "Eccentricity", "Solidity", "Max diameter um",
    "Min diameter um", "Hematoxylin OD mean", "Hematoxylin OD sd", "Eosin OD mean", "Eosin OD sd",
    "Chromatin contrast", "Chromatin homogeneity", "Chromatin energy", "Chromatin correlation",
    "Chromatin entropy", "Nearest neighbour um", "5 nearest neighbours um", "Neighbours in 50 um",
    "Density per mm^2",
)  # fmt: skip
FRAME = GeoJsonFrame("benchmark", "Nucleus", bounds_px=(1_000, 2_000))


@dataclass
class CellMaker:
    """The same cells every time, and the seconds and CPU seconds that making them took."""

    cells: int
    seconds: float = 0.0
    used: float = 0.0

    @property
    def side(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        windows = math.ceil(self.cells / math.prod(WINDOW))
        rows = math.ceil(math.sqrt(2 * windows))
        return rows, math.ceil(windows / rows)

    def frame(self) -> LabelFrame:
        """A slide around all of them."""
        rows, columns = (n * w * PITCH_PX for n, w in zip(self.side, WINDOW, strict=True))
        return LabelFrame(columns + 5_000, rows + 5_000, MPP, MPP, MPP)

    def chunks(self) -> Iterator[CellChunk]:
        """Window after window."""
        rows, columns = self.side
        places = np.random.default_rng(1).permutation(rows * columns)
        left = self.cells
        for number in range(math.ceil(self.cells / math.prod(WINDOW))):
            begin, used = time.perf_counter(), time.process_time()
            count = min(left, math.prod(WINDOW))
            made = make_cells(count, divmod(int(places[number]), columns))
            self.seconds += time.perf_counter() - begin
            self.used += time.process_time() - used
            yield made
            left -= count


def make_cells(count: int, window: tuple[int, int]) -> CellChunk:
    """Ellipses with an uneven outline on a jittered grid."""
    rng = np.random.default_rng(window)
    corners = rng.integers(20, 41, count)
    offsets = np.concatenate([[0], np.cumsum(corners)]).astype(np.int64)
    cell = np.repeat(np.arange(count), corners)
    angle = (np.arange(offsets[-1]) - offsets[cell]) / corners[cell] * 2 * np.pi
    row, column = np.divmod(np.arange(count), WINDOW[1])
    x = 2_500 + (window[1] * WINDOW[1] + column) * PITCH_PX + rng.normal(0, 4, count)
    y = 2_500 + (window[0] * WINDOW[0] + row) * PITCH_PX + rng.normal(0, 4, count)
    radius = rng.lognormal(np.log(14), 0.15, count)[cell]
    radius = radius * (1 + 0.04 * rng.standard_normal(len(cell)))
    flat, turn = rng.uniform(0.7, 1, count)[cell], rng.uniform(0, np.pi, count)[cell]
    along, across = radius * np.cos(angle), flat * radius * np.sin(angle)
    points = np.column_stack(
        [
            x[cell] + along * np.cos(turn) - across * np.sin(turn),
            y[cell] + along * np.sin(turn) + across * np.cos(turn),
        ]
    )
    values = {name: rng.lognormal(1, 0.5, count).astype(np.float32) for name in MEASUREMENTS}
    values["Nearest neighbour um"][rng.random(count) < 0.001] = np.nan
    table = NucleusTable(points, offsets, rng.random(count, np.float32), values)
    flagged = rng.random(count) < 0.1
    reasons = rng.permuted(np.tile(np.arange(5, dtype=np.int8), (count, 1)), axis=1)[:, :3]
    assessment = Assessment(
        rng.lognormal(0, 1, count).astype(np.float32),
        flagged.astype(np.uint8),
        ("Nucleus", "Abnormal nucleus"),
        ((120, 140, 220), (220, 0, 0)),
        flagged,
        np.where(flagged[:, None], reasons, np.int8(-1)),
        ("enlarged", "hyperchromatic", "irregular outline", "crowded", "pleomorphic"),
    )
    return table, assessment


class MemoryWatch(threading.Thread):
    """Samples the resident size of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        process = psutil.Process()
        while not self._stopped.wait(0.005):
            self.peak = max(self.peak, process.memory_info().rss)

    def stop(self) -> None:
        """Sample no more."""
        self._stopped.set()
        self.join()


@dataclass
class Digest:
    """A hash per column, the same however the rows are cut into chunks."""

    columns: dict[str, hashlib.blake2b] = field(default_factory=dict)

    def add(self, chunk: CellChunk) -> None:
        """Take the next rows."""
        table, assessment = chunk
        names = np.array([name.encode() for name in assessment.class_names])
        parts = {
            "points": np.round(table.points, 2) + 0.0,
            "corners": np.diff(table.offsets),
            "score": table.scores,
            "abnormality": assessment.abnormality,
            "class": names[assessment.classes],
            "flagged": assessment.flagged,
            "reasons": assessment.reasons,
            **table.measurements,
        }
        for name, values in parts.items():
            plain = np.array(values)
            if plain.dtype.kind == "f":
                plain[np.isnan(plain)] = np.nan  # one pattern of bits, whatever made it
            self.columns.setdefault(name, hashlib.blake2b()).update(plain.tobytes())

    def value(self) -> dict[str, str]:
        """What can be compared."""
        return {name: each.hexdigest() for name, each in self.columns.items()}


def write_all(maker: CellMaker, work: Path, ngff: str) -> dict[str, Callable[[], object]]:
    """The three writers."""
    image = work / "heatmap.zarr"
    zarr.open_group(image, mode="w-", zarr_format=3 if ngff == "0.5" else 2)
    made = {"cells": maker.cells}
    return {
        "parquet": lambda: write_cell_parquet(
            work / "cells.parquet", maker.chunks(), provenance=made
        ),
        "geojson": lambda: write_cell_geojson(work / "cells.geojson.gz", maker.chunks(), FRAME),
        "labels": lambda: write_cell_labels(
            LabelPlace.beside(image), maker.chunks(), maker.frame(), provenance=made
        ),
    }


def measure_writing(cells: int, work: Path, ngff: str) -> dict[str, dict[str, float]]:
    """Seconds, memory and sizes of each."""
    with tempfile.TemporaryDirectory() as warm:  # what is compiled and loaded once
        for write in write_all(CellMaker(100), Path(warm), ngff).values():
            write()
    idle = psutil.Process().memory_info().rss
    figures = {}
    targets = {"geojson": "cells.geojson.gz", "parquet": "cells.parquet", "labels": "heatmap.zarr"}
    maker = CellMaker(cells)
    for name, write in write_all(maker, work, ngff).items():
        maker.seconds = maker.used = 0.0
        watch = MemoryWatch()
        watch.start()
        begin, used = time.perf_counter(), time.process_time()
        write()
        seconds = time.perf_counter() - begin - maker.seconds
        used = time.process_time() - used - maker.used
        watch.stop()
        target = work / targets[name]
        files = [target] if target.is_file() else [f for f in target.rglob("*") if f.is_file()]
        figures[name] = {
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used, 1),
            "cells_per_s": round(cells / seconds),
            "peak_above_idle_mb": round((watch.peak - idle) / 1e6),
            "size_mb": round(sum(file.stat().st_size for file in files) / 1e6, 1),
            "files": len(files),
        }
    return figures


def check_all(cells: int, work: Path, ngff: str, share: float) -> dict[str, object]:
    """Everything that must hold of what was written."""
    wanted, areas = Digest(), []
    for table, assessment in CellMaker(cells).chunks():
        wanted.add((table, assessment))
        areas.append(shapely.area(table.polygons()))
    found: dict[str, object] = {}
    for name, chunks in (
        ("parquet", read_cell_parquet(work / "cells.parquet")),
        ("geojson", read_cell_geojson(work / "cells.geojson.gz")),
    ):
        digest, valid, count = Digest(), True, 0
        for chunk in chunks:
            digest.add(chunk)
            valid &= bool(shapely.is_valid(chunk[0].polygons()).all())
            count += len(chunk[0])
        found[f"{name}_read_back_equal"] = digest.value() == wanted.value() and count == cells
        found[f"{name}_outlines_valid"] = valid
    found |= check_schema(work, cells, share)
    ome_zarr_models.open_ome_zarr(work / "heatmap.zarr" / "labels", version=ngff)
    found["labels_valid_ngff"] = ngff
    counts = count_label_pixels(work / "heatmap.zarr" / "labels" / "nuclei")
    pixels = np.array([counts.get(row + 1, 0) for row in range(cells)])
    ratio = pixels / np.concatenate(areas)
    found["labels_present"] = int((pixels > 0).sum())
    found["labels_strange"] = len(counts) - int((pixels > 0).sum())
    found["label_area_over_outline_mean"] = round(float(ratio.mean()), 5)
    found["label_area_over_outline_1_99_percent"] = np.percentile(ratio, [1, 99]).round(4).tolist()
    return found


def check_schema(work: Path, cells: int, share: float) -> dict[str, object]:
    """Identifiers of all, and the schema for a share, spread evenly over the file."""
    step = max(1, round(1 / share))
    sample = work / "sample.geojson"
    identifiers: set[bytes] = set()
    with gzip.open(work / "cells.geojson.gz", "rb") as file, sample.open("wb") as out:
        out.write(next(file))
        some = []
        for number, line in enumerate(islice(file, cells)):
            identifiers.add(line[24:60])
            if number % step == 0:
                some.append(line.rstrip(b",\n"))
        out.write(b",\n".join(some) + b"\n]}\n")
    return {
        "geojson_identifiers": len(identifiers),
        "geojson_schema_checked": len(some),
        "geojson_schema_problems": check_geojson(sample)[:3],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--ngff", choices=["0.5", "0.4"], default="0.5")
    parser.add_argument("--check", type=float, default=0.02, help="share for the schema, above 0")
    parser.add_argument("--work", type=Path, help="an empty folder that keeps what is written")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        work = args.work or Path(passing)
        work.mkdir(parents=True, exist_ok=True)
        figures: dict[str, dict[str, object]] = {**measure_writing(args.cells, work, args.ngff)}
        figures["check"] = check_all(args.cells, work, args.ngff, args.check)
    if args.json:
        print(json.dumps(figures))
        return
    for name, part in figures.items():
        print(name)
        for key, value in part.items():
            print(f"  {key:38} {value}")


if __name__ == "__main__":
    main()
