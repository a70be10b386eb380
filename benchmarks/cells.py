"""Nuclei on a painted slide: what is found of the truth, how fast, and what looking closer spares.

    python benchmarks/cells.py [--width-mm 6 --height-mm 5] [--mpp 0.5] [--seed 3] [--json]

The slide is triaged without nuclei, with those of its flagged regions, and looked through whole,
one after the other on a serial engine. Detection and flags are compared with what was painted;
stages are timed on one thread over some windows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import shapely
from numpy.typing import NDArray

from slidetriage import Resources, Settings, triage
from slidetriage.models import Device
from slidetriage.models.nuclei import NucleusTable, join_tables
from slidetriage.models.nuclei.learned import LearnedDetector, load_detector
from slidetriage.models.nuclei.measuring import Window, measure_nuclei
from slidetriage.tiling import TileBatch, Tiles, read_tiles, select_windows, window_grid
from slidetriage.workflows.cells import read_cell_parquet
from slidetriage.workflows.cells.detecting import Sight
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import SlideResult
from slidetriage.wsi import (
    PhantomSpec,
    PhantomTruth,
    open_reader,
    open_slide,
    paint_phantom,
    plan_phantom,
)
from slidetriage.wsi.phantom_nuclei import NucleusKind

Found = TypeVar("Found")
SAMPLED_WINDOWS = 24
CORNERS = 24


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width-mm", type=float, default=6.0)
    parser.add_argument("--height-mm", type=float, default=5.0)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--slide", type=Path, help="the phantom of these options, painted before")
    parser.add_argument("--keep", type=Path, help="folder for slide and results")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spec = PhantomSpec(options.width_mm, options.height_mm, options.mpp, options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        here = options.keep or Path(temporary)
        here.mkdir(parents=True, exist_ok=True)
        slide = options.slide or here / "phantom.tif"
        truth = plan_phantom(spec).truth if slide.exists() else paint_phantom(slide, spec)
        figures = {
            "gigapixels": round(np.prod(spec.size_px) / 1e9, 3),
            "stages": time_stages(slide, load_detector(device=Device("cpu", threads=1))),
            **compare_ways(slide, here, truth),
        }
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


def time_stages(slide: Path, detector: LearnedDetector) -> dict[str, float]:
    """Seconds per window on one thread, and their shares; windows are dense with tissue."""
    opened = open_slide(slide)
    reader, sight = open_reader(opened), Sight.of(detector, CellSettings())
    grid = window_grid(opened, window_px=sight.window_px, margin_px=sight.margin_px, mpp=sight.mpp)
    x, y, width, height = (getattr(opened.bounds, n) for n in ("x", "y", "width", "height"))
    middle = shapely.Point(x + width / 2, y + height / 2).buffer(min(width, height) / 3)
    windows = select_windows(grid, middle)[:SAMPLED_WINDOWS]
    detector.detect(np.full((1, 256, 256, 3), 220, np.uint8))  # compiles
    read_s, pixels = timed(lambda: read_tiles(reader, TileBatch(opened, windows, 0)))
    totals = dict.fromkeys(("network", "outlining", "measuring"), 0.0)
    nuclei = 0
    for image in pixels.images:
        network_s, _ = timed(lambda image=image: detector.compute_maps(image))
        all_s, (instances,) = timed(lambda image=image: detector.detect(image[None]))
        window = Window(0, 0, (grid.scale_x, grid.scale_y), (grid.mpp_x, grid.mpp_y))
        measure_s, table = timed(
            lambda image=image, found=instances, at=window: measure_nuclei(image, found, at)
        )
        totals["network"] += network_s
        totals["outlining"] += max(0.0, all_s - network_s)
        totals["measuring"] += measure_s
        nuclei += len(table)
    totals["reading"] = read_s
    whole = sum(totals.values())
    core_mm2 = (grid.stride_px * grid.mpp / 1000) ** 2 * len(windows)
    return {
        **{f"{name}_share": round(value / whole, 3) for name, value in totals.items()},
        "windows": len(windows),
        "seconds": round(whole, 2),
        "mm2_per_minute_one_thread": round(60 * core_mm2 / whole, 1),
        "nuclei_per_second_one_thread": round(nuclei * core_mm2 / window_mm2(windows) / whole),
    }


def window_mm2(windows: Tiles) -> float:
    """Area of windows with their rims: neighbours see the same nuclei there."""
    grid = windows.grid
    return float((grid.tile_px * grid.mpp / 1000) ** 2 * len(windows))


def timed(call: Callable[[], Found]) -> tuple[float, Found]:
    """Seconds that a call takes, and what it gives."""
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found


def compare_ways(slide: Path, here: Path, truth: PhantomTruth) -> dict[str, object]:
    """Triage alone, with nuclei of regions, and all tissue: time, area, and what is found."""
    figures: dict[str, object] = {}
    planted = outlines_of(truth)
    ways = {"scout": None, "regions": CellSettings(), "tissue": CellSettings("tissue")}
    for name, cells in ways.items():
        settings = Settings(cells=cells)
        seconds, report = timed(
            lambda name=name, settings=settings: triage(
                slide, here / name, settings=settings, resources=Resources("serial")
            )
        )
        result = report.rows[0].outcome
        assert isinstance(result, SlideResult), result
        figures[name] = {"seconds": round(seconds, 1)}
        if cells is None:
            continue
        said = json.loads((report.out / result.directory / "result.json").read_bytes())["cells"]
        chunks = list(read_cell_parquet(report.out / result.directory / "cells.parquet"))
        table = join_tables([table for table, _ in chunks])
        flagged = np.concatenate([assessment.flagged for _, assessment in chunks])
        figures[name] = {
            "seconds": round(seconds, 1),
            "looked_at_mm2": round(said["looked_at_mm2"], 3),
            "tissue_share": round(said["tissue_share"], 3),
            "nuclei": len(table),
            "mm2_per_minute": round(60 * said["looked_at_mm2"] / seconds, 1),
            "nuclei_per_second": round(len(table) / seconds),
            **score(table, flagged, planted, truth, everywhere=name == "tissue"),
        }
    return figures


def outlines_of(truth: PhantomTruth) -> NDArray[np.object_]:
    """The painted nuclei as ellipses in level-0 px; their perturbed outlines have the same area."""
    nuclei = truth.nuclei
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    # A polygon in an ellipse is smaller: its corners are moved out until the areas are equal.
    swell = np.sqrt(2 * np.pi / (CORNERS * np.sin(2 * np.pi / CORNERS)))
    along = nuclei.semi_axes_um[:, :1] * np.cos(angle) * swell
    across = nuclei.semi_axes_um[:, 1:] * np.sin(angle) * swell
    cos, sin = np.cos(nuclei.angle)[:, None], np.sin(nuclei.angle)[:, None]
    x = nuclei.centres_um[:, :1] + along * cos - across * sin
    y = nuclei.centres_um[:, 1:] + along * sin + across * cos
    return np.asarray(shapely.polygons(np.stack([x, y], 2) / truth.mpp), object)


def score(
    table: NucleusTable,
    flagged: NDArray[np.bool_],
    planted: NDArray[np.object_],
    truth: PhantomTruth,
    *,
    everywhere: bool,
) -> dict[str, float]:
    """F1 at IoU 0.5 and of the flags, where nuclei were looked for; and abnormal ones elsewhere.

    What is out of focus or under ink is left out of it.
    """
    found = table.polygons()
    hidden = shapely.union_all([truth.pen, truth.blurred])
    spoilt = [shapely.intersects(hidden, each) for each in (found, planted)]
    abnormal = truth.nuclei.kind == NucleusKind.ABNORMAL
    seen = ~spoilt[1]
    if not everywhere:
        # Where nuclei were found, grown by more than their distance: an estimate of the area.
        area = shapely.union_all(shapely.buffer(shapely.centroid(found), 60))
        seen &= shapely.contains(shapely.buffer(area, -45), shapely.centroid(planted))
    first, second = shapely.STRtree(planted).query(found, predicate="intersects")
    common = shapely.area(shapely.intersection(found[first], planted[second]))
    union = shapely.area(found[first]) + shapely.area(planted[second]) - common
    same = common > 0.5 * union  # no nucleus has two such partners
    partner = np.full(len(found), -1)
    partner[first[same]] = second[same]
    matched = np.zeros(len(planted), np.bool_)
    matched[second[same]] = True
    own = ~spoilt[0]
    true = int((matched & seen).sum())
    precision = (partner[own] >= 0).mean() if own.any() else np.nan
    recall = true / max(1, int(seen.sum()))
    right = flagged & (partner >= 0) & abnormal[partner]
    flagged_truth = np.zeros(len(planted), np.bool_)
    flagged_truth[partner[right]] = True
    return {
        "precision": round(float(precision), 3),
        "recall": round(float(recall), 3),
        "f1": round(float(2 * precision * recall / (precision + recall)), 3),
        "flagged": int(flagged.sum()),
        "flagged_precision": round(float(right[own].sum() / max(1, (flagged & own).sum())), 3),
        "flagged_recall": round(
            float((flagged_truth & seen).sum() / max(1, (abnormal & seen).sum())), 3
        ),
        "planted_abnormal": int((abnormal & ~spoilt[1]).sum()),
        "planted_abnormal_looked_at": int((abnormal & seen).sum()),
    }


if __name__ == "__main__":
    main()
