"""Regions of a mask by physical size: gaps closed, holes filled, crumbs dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from .bands import choose_labels, count_labels, cut_bands

Bools = NDArray[np.bool_]
Um = tuple[float, float]
"""Micrometres per pixel along x and y."""


def grow(mask: Bools, radius_um: float, um: Um) -> Bools:
    """Everything within `radius_um` of the mask."""
    height, width = mask.shape
    # Farther up or down less is reached sideways, so the mask widens from the far rows to its own.
    grown, wide, wider = np.zeros_like(mask), mask.copy(), 1
    for down in range(min(height - 1, int(radius_um / um[1])), -1, -1):
        while wider < width and np.hypot(down * um[1], wider * um[0]) <= radius_um:
            wide[:, wider:] |= mask[:, :-wider]
            wide[:, :-wider] |= mask[:, wider:]
            wider += 1
        grown[down:] |= wide[: height - down]
        grown[: height - down] |= wide[down:]
    return grown


def close_gaps(mask: Bools, radius_um: float, um: Um) -> Bools:
    """Morphological closing by a disk; the mask goes on unchanged past the image's edge."""
    rows, columns = (int(radius_um / um[1]) + 1, int(radius_um / um[0]) + 1)
    wide = np.pad(mask, ((rows, rows), (columns, columns)), mode="edge")
    closed = ~grow(~grow(wide, radius_um, um), radius_um, um)
    return closed[rows : rows + mask.shape[0], columns : columns + mask.shape[1]] | mask


def open_necks(mask: Bools, radius_um: float, um: Um) -> Bools:
    """Morphological opening by a disk: what is thinner than twice the radius goes."""
    return ~close_gaps(~mask, radius_um, um)


def fill_holes(mask: Bools, seen: Bools, largest_mm2: float, um: Um, *, rim_mm2: float) -> Bools:
    """Fill holes up to `largest_mm2`, and up to `rim_mm2` what lies between mask and the unseen.

    The latter only if the mask holds at least a fifth of its rim.
    """
    wide_mask, wide_seen = np.pad(mask, 1), np.pad(seen, 1)
    holes, count = ndi.label(wide_seen & ~wide_mask)
    tissue, unseen = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for band in cut_bands(holes.shape, halo=1):
        around = _highest_around(holes[band.wide])[band.core]
        tissue += np.bincount(around[wide_mask[band.rows]], minlength=count + 1)
        unseen += np.bincount(around[~wide_seen[band.rows]], minlength=count + 1)
    largest = np.where(unseen > 0, rim_mm2, largest_mm2)
    fill = (measure_areas(holes, count, um) <= largest) & (tissue >= 0.2 * (tissue + unseen))
    fill[0] = False
    return np.asarray(mask | choose_labels(holes, fill)[1:-1, 1:-1], np.bool_)


def touching(parts: Bools, mask: Bools, least_mm2: float, um: Um) -> Bools:
    """Those connected parts that touch a piece of `mask` of at least `least_mm2`."""
    pieces, count = ndi.label(mask)
    large = measure_areas(pieces, count, um) >= least_mm2
    large[0] = False
    # Two steps, because parts and mask were smoothed apart from each other.
    reached = ndi.binary_dilation(choose_labels(pieces, large), iterations=2)
    del pieces  # as large as what follows
    labels, count = ndi.label(parts)
    keep = count_labels(labels, count, reached) > 0
    keep[0] = False
    return choose_labels(labels, keep)


def measure_areas(
    labels: NDArray[np.int32], count: int, um: Um, where: Bools | None = None
) -> NDArray[np.float64]:
    """Area in mm2 of every label from 0 to `count`, as far as it lies in `where`."""
    pixels = count_labels(labels, count, where)
    return np.asarray(pixels * (um[0] * um[1] / 1e6), np.float64)


def _highest_around(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The highest label of each pixel and its four neighbours."""
    highest = labels.copy()
    for one, other in ((highest[1:], labels[:-1]), (highest[:-1], labels[1:])):
        np.maximum(one, other, out=one)
    for one, other in ((highest[:, 1:], labels[:, :-1]), (highest[:, :-1], labels[:, 1:])):
        np.maximum(one, other, out=one)
    return highest
