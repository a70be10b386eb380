"""Cells made up on the spot."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import shapely
from skimage.draw import polygon2mask

from slidetriage.models.nuclei import Assessment, NucleusTable
from slidetriage.workflows.cells import CellChunk, LabelFrame

CLASSES = ("Nucleus", "Abnormal nucleus")
COLORS = ((120, 140, 220), (220, 0, 0))
REASONS = ("enlarged", "hyperchromatic", "irregular outline")


def table_of(rings: list[np.ndarray], seed: int = 0) -> NucleusTable:
    """A table of outlines (each n x 2, not closed) with three measurements, some of them NaN."""
    rng = np.random.default_rng([seed, len(rings)])
    offsets = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64)
    points = np.concatenate(rings) if rings else np.empty((0, 2))
    values = {
        name: rng.lognormal(1, 0.5, len(rings)).astype(np.float32)
        for name in ("Area um^2", "Circularity", "100 % nearest um")
    }
    values["Circularity"][rng.random(len(rings)) < 0.2] = np.nan
    return NucleusTable(points, offsets, rng.random(len(rings), np.float32), values)


def assess(count: int, seed: int = 0, names: tuple[str, str] = CLASSES) -> Assessment:
    """One in five flagged, for one to three reasons."""
    rng = np.random.default_rng([seed, count, 1])
    flagged = rng.random(count) < 0.2
    reasons = rng.permuted(np.tile(np.arange(3, dtype=np.int8), (count, 1)), axis=1)
    reasons[np.arange(3) >= rng.integers(1, 4, (count, 1))] = -1
    abnormality = rng.lognormal(0, 1, count).astype(np.float32)
    abnormality[rng.random(count) < 0.1] = np.nan
    return Assessment(
        abnormality,
        flagged.astype(np.uint8),
        names,
        COLORS,
        flagged,
        np.where(flagged[:, None], reasons, np.int8(-1)),
        REASONS,
    )


def scatter(
    count: int, *, seed: int = 0, pitch: float = 40.0, origin: tuple[float, float] = (500, 300)
) -> CellChunk:
    """Uneven ellipses on a jittered grid, level-0 px, none touching another."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(max(count, 1))))
    rings = []
    for index in range(count):
        corners = int(rng.integers(12, 30))
        angle = np.arange(corners) / corners * 2 * np.pi
        radius = rng.uniform(8, 14) * (1 + 0.04 * rng.standard_normal(corners))
        centre = np.array([index % side, index // side]) * pitch + rng.uniform(-2, 2, 2) + origin
        ring = np.column_stack([radius * np.cos(angle), 0.8 * radius * np.sin(angle)])
        rings.append(centre + ring)
    return table_of(rings, seed), assess(count, seed)


def cut(chunk: CellChunk, *lengths: int) -> list[CellChunk]:
    """The same cells in chunks of those lengths, and the rest in one more."""
    table, assessment = chunk
    edges = [*np.cumsum([0, *lengths]), len(table)]
    ranges = [np.arange(a, b) for a, b in pairwise(edges)]
    return [(table.choose(rows), assessment.choose(rows)) for rows in ranges]


def assert_same(found: list[CellChunk], wanted: CellChunk) -> None:
    """Every value is equal, and every outline once rounded to 0.01 px."""
    table, assessment = wanted
    assert sum(len(part) for part, _ in found) == len(table)
    if not found:
        return
    points = np.concatenate([part.points for part, _ in found])
    np.testing.assert_array_equal(points, np.round(table.points, 2))
    corners = np.concatenate([np.diff(part.offsets) for part, _ in found])
    np.testing.assert_array_equal(corners, np.diff(table.offsets))
    np.testing.assert_array_equal(np.concatenate([t.scores for t, _ in found]), table.scores)
    for name, values in table.measurements.items():
        read = np.concatenate([part.measurements[name] for part, _ in found])
        np.testing.assert_array_equal(read, values)
        assert read.dtype == np.float32
    for name in ("abnormality", "classes", "flagged", "reasons"):
        read = np.concatenate([getattr(part, name) for _, part in found])
        np.testing.assert_array_equal(read, getattr(assessment, name))
        assert read.dtype == getattr(assessment, name).dtype
    for _, part in found:
        assert part.class_names == assessment.class_names
        assert part.class_colors == assessment.class_colors
        assert part.reason_names == assessment.reason_names


def drawn_by_others(table: NucleusTable, frame: LabelFrame) -> np.ndarray:
    """The labels as scikit-image draws them, one after the other, on the files' grid of 0.01 px."""
    raster = np.zeros(frame.shape, np.uint32)
    for row, shape in enumerate(table.polygons()):
        corners = np.round(shape.exterior.coords, 2)[:, ::-1] * frame.scale[::-1]
        first = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        beyond = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, frame.shape)
        part = raster[first[0] : beyond[0], first[1] : beyond[1]]
        # scikit-image has pixel centres at whole numbers.
        part[polygon2mask(part.shape, corners - first - 0.5)] = row + 1
    return raster


BOW_TIE = np.array([[0, 0], [20, 20], [20, 0], [0, 12.0]])
"""Crosses itself; its larger half is on the right."""
SLIVER = np.array([[0, 0], [20, 0.001], [40, 0.0]])
"""Nothing is left of it on a grid of 0.01 px."""
SQUARE = np.array([[0, 0], [20, 0], [20, 20], [0, 20.0]])


def shapes_of(chunks: list[CellChunk]) -> list[shapely.Polygon]:
    """All outlines."""
    return [shape for table, _ in chunks for shape in table.polygons()]
