"""Hundreds of thousands of nuclei in one region, from windows to files: seconds and memory.

    python benchmarks/cells_region.py [--nuclei 300000] [--ngff 0.5] [--json]

Nuclei are painted on a jittered lattice, 5,100 per mm2, one in ten of them large, dark and uneven;
their pixels and instances are given window by window in place of a slide and a detector. From
there on everything is the product's: each window is outlined and measured, nuclei at seams are
counted once, neighbours are measured, the slide's reference is fitted, figures are taken of slide
and region, and table, GeoJSON and label image are written, hashed and checked. All planted nuclei
must come out, in every file. The seconds of looking include those of painting, which are told at
the end. Memory is the largest resident size in each stage, above that of the process with
everything loaded and 400 nuclei put through.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import psutil
import shapely
from cells_output import MemoryWatch
from numpy.typing import NDArray
from planted_nuclei import EDGE_PX, MARGIN_PX, MPP, PITCH_PX, WINDOW_PX, Planted

from slidetriage.models.nuclei import Instances
from slidetriage.tiling import Tiles, grow_area, select_windows, window_grid
from slidetriage.tiling.reading import TilePixels
from slidetriage.tiling.selection import split_batches
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
from slidetriage.workflows.cells.areas import Area
from slidetriage.workflows.cells.gathering import GatheredCells
from slidetriage.workflows.cells.locating import write_areas
from slidetriage.workflows.cells.looking import look_through
from slidetriage.workflows.cells.output import CellFindings, find_cells
from slidetriage.workflows.cells.parts import PARTS
from slidetriage.workflows.cells.summaries import summarise_cells
from slidetriage.workflows.geojson import GeoJsonFrame
from slidetriage.workflows.jobs import WINDOWS_AT_ONCE
from slidetriage.workflows.ledger.stores import check_store
from slidetriage.workflows.manifest import hash_files
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import CellPlan, SlidePlan
from slidetriage.wsi import Box, Level, Mpp, Slide

LEVEL0_MPP = 0.25


class Known:
    """A detector that is told what to find, window after window."""

    name, identity, mpp, margin_px = "known", "known", MPP, MARGIN_PX

    def __init__(self) -> None:
        self.coming: deque[Instances] = deque()

    def detect(self, images: NDArray[np.uint8]) -> list[Instances]:
        """The nuclei of the next windows."""
        return [self.coming.popleft() for _ in images]


@dataclass
class Stages:
    """Seconds, CPU seconds and memory of what was done."""

    idle: int = 0
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def begin(self) -> None:
        """What is resident now is not counted."""
        self.idle = psutil.Process().memory_info().rss

    def run(self, name: str, work: Callable[[], object]) -> None:
        """Do something that is called without arguments."""
        watch = MemoryWatch()
        watch.start()
        seconds, used = time.perf_counter(), time.process_time()
        work()
        seconds, used = time.perf_counter() - seconds, time.process_time() - used
        watch.stop()
        watch.peak = max(watch.peak, psutil.Process().memory_info().rss)
        self.figures[name] = {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(used, 2),
            "peak_above_idle_mb": round((watch.peak - self.idle) / 1e6),
        }


class Region:
    """One region of a slide that is full of nuclei."""

    def __init__(self, nuclei: int, work: Path) -> None:
        columns = ceil(sqrt(1.2 * nuclei))
        self.planted = Planted(ceil(nuclei / columns), columns)
        self.work, self.staging, self.content = work, work / "staging", work / "content"
        self.content.mkdir(parents=True)
        (self.staging / PARTS).mkdir(parents=True)
        self.detector = Known()
        self.plan = _slide_plan(self.planted)
        shape = _staircase(self.planted)
        write_areas(self.staging, (Area("region 1", shape),))
        grid = window_grid(self.plan.slide, window_px=WINDOW_PX, margin_px=MARGIN_PX, mpp=MPP)
        whole = grow_area(shape, self.plan.slide, CellSettings().margin_um)
        mm2 = whole.area * (LEVEL0_MPP / 1000) ** 2
        self.cells = CellPlan(self.plan.slide_id, select_windows(grid, whole), mm2)
        self.found: CellFindings | None = None
        self.wrong: list[tuple[str, str]] = []
        self.painting = 0.0

    def look(self) -> None:
        """Outline and measure, window by window."""
        for batch in split_batches(self.plan.slide, self.cells.windows, WINDOWS_AT_ONCE):
            begin = time.process_time()
            painted = [self.planted.paint(*corner) for corner in _corners(batch.tiles)]
            self.painting += time.process_time() - begin
            self.detector.coming.extend(instances for _, instances in painted)
            images = np.stack([pixels for pixels, _ in painted])
            count = len(images)
            pixels = TilePixels(images, np.ones(count, np.float32), np.ones(count, np.bool_), "")
            look_through(batch, pixels, self.detector, self.staging)

    def gather(self) -> None:
        """Each once, with its neighbours, compared with the slide's own."""
        self.found = find_cells(
            self.plan, self.cells, self.staging, settings=CellSettings(), detector=self.detector
        )

    @property
    def gathered(self) -> CellFindings:
        """What `gather` found."""
        assert self.found is not None
        return self.found

    def steps(self, ngff: str) -> dict[str, Callable[[], object]]:
        """All that is measured, in order."""
        content, slide, image = self.content, self.plan.slide, self.content / "nuclei.zarr"
        size = LabelFrame(slide.width_px, slide.height_px, slide.mpp.x, slide.mpp.y, MPP)
        place = LabelPlace.alone(image, ngff)  # type: ignore[arg-type]  # one of the choices
        frame = GeoJsonFrame(self.plan.slide_id, "Nucleus")

        def cells() -> Iterator[CellChunk]:
            return self.gathered.cells.chunks()

        def summarise() -> object:
            found = self.gathered
            return summarise_cells(found.cells, found.areas, found.plan, self.plan)

        return {
            "look": self.look,
            "gather": self.gather,
            "summarise": summarise,
            "geojson": lambda: write_cell_geojson(content / "cells.geojson.gz", cells(), frame),
            "parquet": lambda: write_cell_parquet(
                content / "cells.parquet", cells(), provenance={}
            ),
            "labels": lambda: write_cell_labels(place, cells(), size, provenance={}),
            "hash": lambda: hash_files(content),
            "verify": lambda: self.wrong.extend(check_store(image)),
        }

    def check(self) -> dict[str, object]:
        """What must hold of all files."""
        files = (
            read_cell_parquet(self.content / "cells.parquet"),
            read_cell_geojson(self.content / "cells.geojson.gz"),
        )
        cells: GatheredCells = self.gathered.cells
        return {
            "planted": self.planted.rows * self.planted.columns,
            "gathered": len(cells),
            "flagged": int(cells.assessment.flagged.sum()),
            "in_files": [sum(len(table) for table, _ in chunks) for chunks in files],
            "labels": len(count_label_pixels(self.content / "nuclei.zarr")),
            "wrong_in_label_image": self.wrong,
            "windows": len(self.cells.windows),
            "painting_cpu_seconds": round(self.painting, 1),
            "mb": {
                path.name: round(_size(path) / 1e6, 1)
                for path in (*sorted(self.content.iterdir()), self.staging)
            },
        }


def _corners(tiles: Tiles) -> Iterator[tuple[int, int]]:
    for row, column in zip(tiles.rows.tolist(), tiles.columns.tolist(), strict=True):
        yield column * tiles.grid.stride_px, row * tiles.grid.stride_px


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def _slide_plan(planted: Planted) -> SlidePlan:
    width, height = (round(n * MPP / LEVEL0_MPP) for n in planted.size_px)
    slide = Slide(
        Path("planted.svs"), (), "openslide", "aperio", width, height,
        (Level(width, height, 1.0),), Mpp(LEVEL0_MPP, LEVEL0_MPP, "file"),
        Box(0, 0, width, height), 40.0, (255, 255, 255),
    )  # fmt: skip
    grid = window_grid(slide, window_px=WINDOW_PX, margin_px=MARGIN_PX, mpp=MPP)
    none = select_windows(grid, shapely.Polygon())
    return SlidePlan("planted", "0" * 64, "0" * 64, "planted", slide, none, 100.0, ())


def _staircase(planted: Planted) -> shapely.Polygon:
    """Around all nuclei, with an edge like that of tiles of 200 um; level-0 px."""
    scale, tile = MPP / LEVEL0_MPP, 200 / LEVEL0_MPP
    low = EDGE_PX * scale
    right, bottom = (low + n * PITCH_PX * scale for n in (planted.columns, planted.rows))
    rng = np.random.default_rng(0)
    x = np.arange(low, right, 2 * tile)
    y = np.arange(low, bottom, 2 * tile)
    teeth = [shapely.box(at, low - tile * rng.integers(1, 3), at + tile, low) for at in x]
    teeth += [shapely.box(right, at, right + tile * rng.integers(1, 3), at + tile) for at in y]
    return shapely.union_all([shapely.box(low, low, right, bottom), *teeth])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--nuclei", type=int, default=300_000)
    parser.add_argument("--ngff", choices=["0.5", "0.4"], default="0.5")
    parser.add_argument("--work", type=Path, help="an empty folder that keeps what is written")
    args = parser.parse_args()
    stages = Stages()
    with tempfile.TemporaryDirectory() as passing:
        for count, name in ((400, "warm"), (args.nuclei, "measured")):
            region = Region(count, (args.work or Path(passing)) / name)
            for step, work in region.steps(args.ngff).items():
                stages.run(step, work)
            checked = region.check()
            stages.begin()
    figures = {**stages.figures, "check": checked}
    if args.json:
        print(json.dumps(figures))
        return
    for name, part in figures.items():
        print(name)
        for key, value in part.items():
            print(f"  {key:24} {value}")


if __name__ == "__main__":
    main()
