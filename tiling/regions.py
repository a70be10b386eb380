"""Regions of a mask by physical size: gaps closed, holes filled, crumbs dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Bools = NDArray[np.bool_]
Um = tuple[float, float]
"""Micrometres per pixel along x and y."""

_CROSS = ndi.generate_binary_structure(2, 1)


def grow(mask: Bools, radius_um: float, um: Um) -> Bools:
    """Everything within `radius_um` of the mask."""
    if not mask.any():
        return mask
    far = ndi.distance_transform_edt(~mask, sampling=(um[1], um[0]))
    return np.asarray(far <= radius_um, np.bool_)


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
    around = ndi.grey_dilation(holes, footprint=_CROSS)
    tissue = np.bincount(around[wide_mask], minlength=count + 1)
    unseen = np.bincount(around[~wide_seen], minlength=count + 1)
    largest = np.where(unseen > 0, rim_mm2, largest_mm2)
    fill = (measure_areas(holes, count, um) <= largest) & (tissue >= 0.2 * (tissue + unseen))
    fill[0] = False
    return np.asarray(mask | fill[holes][1:-1, 1:-1], np.bool_)


def touching(parts: Bools, mask: Bools, least_mm2: float, um: Um) -> Bools:
    """Those connected parts that touch a piece of `mask` of at least `least_mm2`."""
    pieces, count = ndi.label(mask)
    large = measure_areas(pieces, count, um) >= least_mm2
    large[0] = False
    labels, count = ndi.label(parts)
    keep = np.zeros(count + 1, np.bool_)
    # Two steps, because parts and mask were smoothed apart from each other.
    keep[labels[ndi.binary_dilation(large[pieces], iterations=2)]] = True
    keep[0] = False
    return np.asarray(keep[labels], np.bool_)


def measure_areas(labels: NDArray[np.int32], count: int, um: Um) -> NDArray[np.float64]:
    """Area in mm2 of every label from 0 to `count`."""
    pixels = np.bincount(labels.ravel(), minlength=count + 1)
    return np.asarray(pixels * (um[0] * um[1] / 1e6), np.float64)
