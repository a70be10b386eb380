"""Neighbouring tiles at or above the threshold, merged into polygons with holes."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from slidetriage.errors import UsageError

from .results import Region, ScoredTiles


def find_regions(scored: ScoredTiles, threshold: float) -> tuple[Region, ...]:
    """Merge the tiles with probability >= `threshold` into regions, most suspicious first.

    Each tile stands for its cell (see `ScoredTiles.column_edges_px`): the tile itself where the
    stride equals the tile, the stride-sized square in its middle where tiles overlap. Cells that
    share an edge belong to one region; cells that only touch at a corner do not. Shapes are exact
    unions of cells: nothing is smoothed, a tile below the threshold or not read leaves a hole,
    and no shape reaches past the slide's bounds.

    Parameters
    ----------
    threshold
        0 to 1; compared in single precision, the precision of the probabilities.

    Returns
    -------
    Ordered by maximum probability, then area, both descending, then reading order.

    Raises
    ------
    UsageError
        If the threshold is not a number from 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(
            f"The threshold for regions is {threshold}.", mend="Give a number from 0 to 1."
        )
    probability = scored.on_grid(scored.probability)
    above = probability >= np.float32(threshold)
    labels, count = ndimage.label(above)  # the default structure joins the four neighbours
    shapes = _union_runs(labels, count, scored)
    parts = enumerate(ndimage.find_objects(labels), start=1)
    members = [probability[part][labels[part] == label] for label, part in parts]
    mm2_per_px = scored.tiles.grid.mpp_x * scored.tiles.grid.mpp_y / 1e6
    regions = [
        Region(
            shape=shape,
            area_mm2=float(shape.area) * mm2_per_px,
            mean_probability=float(values.mean(dtype=np.float64)),
            max_probability=float(values.max()),
            tile_count=len(values),
        )
        for shape, values in zip(shapes, members, strict=True)
        if shape.area > 0
    ]
    # Sorting is stable, so equals keep the reading order of the labels.
    return tuple(sorted(regions, key=lambda region: (-region.max_probability, -region.area_mm2)))


def _union_runs(
    labels: NDArray[np.int32], count: int, scored: ScoredTiles
) -> list[shapely.Polygon | shapely.MultiPolygon]:
    """One shape per label: the union of its row runs, exact because runs share their edges."""
    bounded = np.pad(labels, ((0, 0), (1, 1)))
    changes = bounded[:, 1:] != bounded[:, :-1]
    # Between two changes of a row lies one run; runs of label 0 are what is not in a region.
    rows, edges = np.nonzero(changes)
    inside = bounded[rows, edges + 1] > 0
    starts = np.flatnonzero(inside)
    left, right, row = edges[starts], edges[starts + 1], rows[starts]
    owner = bounded[row, left + 1]
    x, y = scored.column_edges_px, scored.row_edges_px
    runs = shapely.box(x[left], y[row], x[right], y[row + 1])
    order = np.argsort(owner, kind="stable")
    groups = np.split(runs[order], np.searchsorted(owner[order], np.arange(2, count + 1)))
    # Without tolerance, simplifying drops only vertices in the middle of a straight edge; where a
    # ring starts is normalised because it would else depend on the version of GEOS.
    return [
        shapely.normalize(shapely.simplify(shapely.union_all(group), 0)) for group in groups[:count]
    ]
