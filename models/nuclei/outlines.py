"""Outlines of all labels of an image in one pass: where a mask's value crosses one half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from slidetriage.errors import ModelError

from .table import NucleusTable

TOLERANCE_PX = 0.3
"""A simplified outline stays this close to the traced one: within the pixel's own blur."""

_POLYGON = int(shapely.GeometryType.POLYGON)


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """N simple closed polygons in pixels; pixel i covers [i, i + 1)."""

    points: NDArray[np.float64]
    """M x 2; x, y of the corners, outline after outline, clockwise on a screen, none repeated."""
    offsets: NDArray[np.int64]
    """N + 1; outline i has `points[offsets[i] : offsets[i + 1]]`, at least three."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def polygons(self) -> NDArray[np.object_]:
        """N shapely polygons."""
        unknown = np.zeros(len(self), np.float32)
        return NucleusTable(self.points, self.offsets, unknown, {}).polygons()


def trace_outlines(labels: NDArray[np.int32]) -> Outlines:
    """Outline each label 1 to N of an H x W image along the middles of its pixels' sides.

    This is the contour at 0.5 of the label's mask (marching squares; Lorensen and Cline 1987), of
    its largest 4-connected part, holes filled. It never touches itself; its area is that of the
    pixels within, less half a pixel for its cut corners. A single pixel becomes a rhombus.

    >>> trace_outlines(np.array([[0, 1, 1]], np.int32)).points.tolist()
    [[1.5, 0.0], [2.5, 0.0], [3.0, 0.5], [2.5, 1.0], [1.5, 1.0], [1.0, 0.5]]

    Raises `ModelError` where a number up to the largest has no pixel.
    """
    from .outline_kernel import count_cracks, walk_cracks

    padded = np.pad(np.asarray(labels, np.int32), 1)
    cracks, corners = count_cracks(padded)
    doubled, parts = np.empty((cracks, 2), np.int32), np.empty((corners, 4), np.int64)
    parts = parts[: walk_cracks(padded, doubled, parts)]
    # Of each label the largest part; of equal ones the first.
    order = np.lexsort((parts[:, 1], -parts[:, 3], parts[:, 0]))
    names, at = np.unique(parts[order, 0], return_index=True)
    _check_names(names)
    _, first, length, _ = parts[order][at].T
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], length)
    return Outlines(doubled[np.repeat(first, length) + within] / 2, offsets)


def simplify_outlines(outlines: Outlines, tolerance_px: float = TOLERANCE_PX) -> Outlines:
    """Drop corners that matter less than `tolerance_px` (Douglas and Peucker 1973).

    Every outline stays a valid polygon; two that touch may overlap afterwards by slivers of at most
    twice the tolerance.
    """
    if not len(outlines):
        return outlines
    traced = outlines.polygons()
    simpler = shapely.simplify(traced, tolerance_px, preserve_topology=False)
    # The form that keeps rings simple takes ten times as long, and few outlines need it.
    torn = ~_faithful(simpler, traced, tolerance_px)
    simpler[torn] = shapely.simplify(traced[torn], tolerance_px, preserve_topology=True)
    torn[torn] = ~_faithful(simpler[torn], traced[torn], tolerance_px)
    simpler[torn] = traced[torn]
    points, ring = shapely.get_coordinates(simpler, return_index=True)
    last = np.append(ring[1:] != ring[:-1], True)
    corners = np.bincount(ring, minlength=len(outlines)) - 1
    return Outlines(points[~last], np.concatenate([[0], np.cumsum(corners)]).astype(np.int64))


def _faithful(
    simpler: NDArray[np.object_], traced: NDArray[np.object_], tolerance_px: float
) -> NDArray[np.bool_]:
    """Whether each is one valid polygon without holes that has lost no lobe."""
    whole = shapely.is_valid(simpler) & (shapely.get_type_id(simpler) == _POLYGON)
    whole &= ~shapely.is_empty(simpler) & (shapely.get_num_interior_rings(simpler) == 0)
    change = np.abs(shapely.area(simpler) - shapely.area(traced))
    return np.asarray(whole & (change <= tolerance_px * shapely.length(traced)))


def _check_names(names: NDArray[np.int64]) -> None:
    missing = np.flatnonzero(names != np.arange(1, len(names) + 1))
    if len(missing):
        raise ModelError(
            f"The label image numbers nuclei up to {names[-1]}, but none is {missing[0] + 1}.",
            mend="Number them from 1 without a gap.",
        )
