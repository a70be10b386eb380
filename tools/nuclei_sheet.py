"""Draws the nuclei of a slide's result over its pixels, at three magnifications, to be looked at.

    python tools/nuclei_sheet.py slide.svs results/SLIDE sheet.png [--at X Y]

Abnormal nuclei are red, others green. X and Y are level-0 px of the middle; without them it is the
place with the most nuclei.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from slidetriage.models.nuclei import NucleusTable, join_tables
from slidetriage.models.nuclei.measuring import centroids
from slidetriage.workflows.cells import read_cell_parquet
from slidetriage.wsi import Box, SlideReader, open_reader, open_slide

VIEWS_UM = (800.0, 320.0, 110.0)
SIDE_PX = 900
FINE = 4
"""Bits of fractions of a pixel in which lines are drawn."""


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("slide", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--at", type=float, nargs=2)
    parser.add_argument("--mpp", type=float)
    arguments = parser.parse_args()
    chunks = list(read_cell_parquet(arguments.folder / "cells.parquet"))
    table = join_tables([table for table, _ in chunks])
    flagged = np.concatenate([assessment.flagged for _, assessment in chunks])
    reader = open_reader(open_slide(arguments.slide, mpp=arguments.mpp))
    middle = arguments.at or densest(table, reader)
    views = [draw(reader, table, flagged, middle, side) for side in VIEWS_UM]
    cv2.imwrite(str(arguments.sheet), cv2.cvtColor(np.hstack(views), cv2.COLOR_RGB2BGR))


def densest(table: NucleusTable, reader: SlideReader) -> tuple[float, float]:
    """The nucleus with the most others within 100 um."""
    mpp = reader.slide.mpp
    centres = centroids(table.points, table.offsets)
    tree = cKDTree(centres * (mpp.x, mpp.y))
    most = int(np.argmax(tree.query_ball_point(tree.data, 100.0, return_length=True)))
    return float(centres[most, 0]), float(centres[most, 1])


def draw(
    reader: SlideReader,
    table: NucleusTable,
    flagged: NDArray[np.bool_],
    middle: tuple[float, float],
    side_um: float,
) -> NDArray[np.uint8]:
    """One view of `side_um` around the middle."""
    mpp = reader.slide.mpp
    size = np.array([side_um / mpp.x, side_um / mpp.y])
    corner = np.array(middle) - size / 2
    box = Box(float(corner[0]), float(corner[1]), float(size[0]), float(size[1]))
    image = np.ascontiguousarray(reader.read(box, SIDE_PX, SIDE_PX).rgb)
    scale = SIDE_PX / size
    for index in range(len(table)):
        ring = table.points[table.offsets[index] : table.offsets[index + 1]]
        if (ring.max(0) < corner).any() or (ring.min(0) > corner + size).any():
            continue
        # OpenCV counts from pixel centres.
        drawn = np.round(((ring - corner) * scale - 0.5) * 2**FINE).astype(np.int32)
        color = (220, 0, 0) if flagged[index] else (0, 150, 0)
        cv2.polylines(image, [drawn], True, color, 2 if side_um < 400 else 1, cv2.LINE_AA, FINE)
    bar = round(20 / side_um * SIDE_PX) if side_um < 400 else round(100 / side_um * SIDE_PX)
    cv2.rectangle(image, (20, SIDE_PX - 30), (20 + bar, SIDE_PX - 22), (0, 0, 0), -1)
    words = "20 um" if side_um < 400 else "100 um"
    cv2.putText(image, words, (20, SIDE_PX - 36), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    return image


if __name__ == "__main__":
    main()
