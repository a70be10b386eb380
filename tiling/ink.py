"""Ink and opaque marks: pen of any colour, fiducial crosses, black borders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from .regions import Bools, Um, grow

BLACK = 90
"""Grey level below which every channel of an opaque mark lies."""
STAIN_SHARE = 0.35
"""A colour on more of the tissue than this is the slide's stain, not ink (GMS, trichrome, CISH)."""
HALO_UM = 48.0
"""Ink bleeds and is out of focus: so much around it goes with it."""
RING_UM = 48.0
"""The ring around the halo that says whether a mark lies in tissue."""


def find_ink(rgb: NDArray[np.uint8], density: NDArray[np.float32], tissue: Bools, um: Um) -> Bools:
    """Where ink or an opaque mark covers the glass.

    What has tissue on most sides stays: a clot, carbon, melanin or dense chromogen, not a mark.

    Parameters
    ----------
    rgb, density
        H x W x 3; colours, and optical density (natural log) above the glass.
    tissue
        H x W; what is taken for tissue as yet.
    um
        Micrometres per pixel along x and y.
    """
    red, green, blue = (ndi.uniform_filter(density[..., k], 3) for k in range(3))
    strong = np.maximum(np.maximum(red, green), blue) > 0.5
    black = ndi.uniform_filter(rgb.max(-1).astype(np.float32), 3) < BLACK
    inks = (
        # Stains of pathology take up green most; blue and green ink take up red, red ink lets
        # all red through and nothing else.
        strong & (green < 0.85 * red) & (green < 0.9 * blue),
        strong & (red > 0.8) & (red > 1.15 * green) & (green > 1.1 * blue),
        (green > 1.2) & (red < 0.35) & (blue > 0.65 * green),
    )
    found = _lonely(black, tissue, um)
    for ink in inks:
        if np.count_nonzero(ink) <= STAIN_SHARE * np.count_nonzero(tissue):
            found |= _lonely(ink & ~found, tissue, um)
    return found


def _lonely(mark: Bools, tissue: Bools, um: Um) -> Bools:
    """The marks with their halo, less those that have tissue on most sides."""
    mark = ndi.binary_opening(mark)
    if not mark.any():
        return mark
    halo = grow(mark, HALO_UM, um)
    labels, count = ndi.label(halo)
    far, nearest = ndi.distance_transform_edt(~halo, sampling=(um[1], um[0]), return_indices=True)
    ring = (far > 0) & (far <= RING_UM)
    owner = labels[nearest[0][ring], nearest[1][ring]]
    size = np.bincount(owner, minlength=count + 1)
    inside = np.bincount(owner[tissue[ring]], minlength=count + 1)
    lonely = inside < 0.5 * size
    # A mark that fills the image has no ring, and no tissue.
    lonely |= size == 0
    lonely[0] = False
    return np.asarray(lonely[labels], np.bool_)
