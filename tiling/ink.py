"""Ink and opaque marks: pen of any colour, fiducial crosses, black borders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from .bands import choose_labels, cut_bands
from .regions import Bools, Um, grow

BLACK = 90
"""Grey level below which every channel of an opaque mark lies."""
STAIN_SHARE = 0.35
"""A colour on more of the tissue than this is the slide's stain, not ink (GMS, trichrome, CISH)."""
HALO_UM = 48.0
"""Ink bleeds and is out of focus: so much around it goes with it."""
RING_UM = 48.0
"""The ring around the halo that says whether a mark lies in tissue."""


def find_ink(
    rgb: NDArray[np.uint8],
    measure_density: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    tissue: Bools,
    um: Um,
) -> Bools:
    """Where ink or an opaque mark covers the glass.

    What has tissue on most sides stays: a clot, carbon, melanin or dense chromogen, not a mark.

    Parameters
    ----------
    rgb
        H x W x 3.
    measure_density
        Rows of `rgb` -> their optical density (natural log) above the glass.
    tissue
        H x W; what is taken for tissue as yet.
    um
        Micrometres per pixel along x and y.
    """
    marks = np.empty(tissue.shape, np.uint8)
    for band in cut_bands(rgb.shape, halo=1):
        part = rgb[band.wide]
        marks[band.rows] = _match_marks(part, measure_density(part))[band.core]
    found = _lonely((marks & 1) > 0, tissue, um)
    for bit in (2, 4, 8):
        ink = (marks & bit) > 0
        if np.count_nonzero(ink) <= STAIN_SHARE * np.count_nonzero(tissue):
            found |= _lonely(ink & ~found, tissue, um)
    return found


def _match_marks(rgb: NDArray[np.uint8], density: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bit 0 for what is black, and one for each kind of ink."""
    red, green, blue = (ndi.uniform_filter(density[..., k], 3) for k in range(3))
    strong = np.maximum(np.maximum(red, green), blue) > 0.5
    black = ndi.uniform_filter(rgb.max(-1).astype(np.float32), 3) < BLACK
    # Stains of pathology take up green most; blue and green ink take up red, red ink lets
    # all red through and nothing else.
    inks = (
        strong & (green < 0.85 * red) & (green < 0.9 * blue),
        strong & (red > 0.8) & (red > 1.15 * green) & (green > 1.1 * blue),
        (green > 1.2) & (red < 0.35) & (blue > 0.65 * green),
    )
    marks: NDArray[np.uint8] = black.astype(np.uint8)
    for bit, ink in zip((2, 4, 8), inks, strict=True):
        marks |= ink * np.uint8(bit)
    return marks


def _lonely(mark: Bools, tissue: Bools, um: Um) -> Bools:
    """The marks with their halo, less those that have tissue on most sides."""
    mark = ndi.binary_opening(mark)
    if not mark.any():
        return mark
    halo = grow(mark, HALO_UM, um)
    labels, count = ndi.label(halo)
    ring = grow(halo, RING_UM, um) & ~halo
    size, inside = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for band in cut_bands(mark.shape, halo=int(RING_UM / um[1]) + 1):
        here = ring[band.rows]
        if here.any():
            owner = _nearest(labels[band.wide], um)[band.core][here]
            size += np.bincount(owner, minlength=count + 1)
            inside += np.bincount(owner[tissue[band.rows][here]], minlength=count + 1)
    lonely = inside < 0.5 * size
    # A mark that fills the image has no ring, and no tissue.
    lonely |= size == 0
    lonely[0] = False
    return choose_labels(labels, lonely)


def _nearest(labels: NDArray[np.int32], um: Um) -> NDArray[np.int32]:
    """Each pixel's nearest label but 0."""
    rows, columns = ndi.distance_transform_edt(
        labels == 0, sampling=(um[1], um[0]), return_distances=False, return_indices=True
    )
    return np.asarray(labels[rows, columns])
