"""Do nuclei depend on the windows they were found in: whole slides at once against small windows.

    python benchmarks/cells_tiling.py SLIDE [SLIDE ...] [--windows 256 512 768] [--json]

All tissue of each slide is looked through by whole commands, once with windows of 4,096 px, of
which one holds a slide of up to 3,904 px at the detector's mpp, and once with each of the smaller
ones, whose seams run through the tissue. Nuclei are the same where their outlines overlap by more
than half (IoU 0.5). Lost are those of the large windows that the small ones have not, new those
that only the small ones have; half their sum over the nuclei of the large windows is the share
that differs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from slidetriage import Resources, Settings, triage
from slidetriage.models.nuclei import join_tables
from slidetriage.workflows.cells import read_cell_parquet
from slidetriage.workflows.settings import CellSettings
from slidetriage.workflows.steps import SlideResult

WHOLE_PX = 4096


def main() -> None:
    """Look through each slide with each window, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("slides", type=Path, nargs="+", metavar="SLIDE")
    parser.add_argument("--windows", type=int, nargs="+", default=[256, 512, 768])
    parser.add_argument("--detector", default=CellSettings().detector)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {}
    for slide in options.slides:
        whole = find_outlines(slide, WHOLE_PX, options.detector)
        figures[slide.name] = {
            "whole": len(whole),
            **{
                str(px): compare(whole, find_outlines(slide, px, options.detector))
                for px in options.windows
            },
        }
    print(json.dumps(figures) if options.json else json.dumps(figures, indent=2))


def find_outlines(slide: Path, window_px: int, detector: str) -> NDArray[np.object_]:
    """Polygons, in level-0 px, of the nuclei of all tissue."""
    cells = CellSettings("tissue", window_px=window_px, detector=detector)
    with tempfile.TemporaryDirectory() as out:
        settings = Settings(cells=cells)
        report = triage(slide, Path(out) / "out", settings=settings, resources=Resources("serial"))
        result = report.rows[0].outcome
        assert isinstance(result, SlideResult), result
        chunks = read_cell_parquet(report.out / result.directory / "cells.parquet")
        return join_tables([table for table, _ in chunks]).polygons()


def compare(whole: NDArray[np.object_], windowed: NDArray[np.object_]) -> dict[str, int | float]:
    """How many there are, are lost and are new."""
    first, second = shapely.STRtree(whole).query(windowed, predicate="intersects")
    common = shapely.area(shapely.intersection(windowed[first], whole[second]))
    union = shapely.area(windowed[first]) + shapely.area(whole[second]) - common
    same = common > 0.5 * union  # no nucleus has two such partners
    lost = len(whole) - len(np.unique(second[same]))
    new = len(windowed) - len(np.unique(first[same]))
    return {
        "nuclei": len(windowed),
        "lost": lost,
        "new": new,
        "differ_percent": round(50 * (lost + new) / max(1, len(whole)), 3),
    }


if __name__ == "__main__":
    main()
