"""Filler: the plain white, black or grey that scanners write where they scanned nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

STRAIGHT_UM = 64.0
"""An edge counts as straight from this length on."""
STRAIGHT_SHARE = 0.7
"""Filler consists of rectangles: at least this share of its outline is straight."""
SMALLEST_UM2 = 1e4
"""Smaller patches of one colour are left alone."""
COLOURS = 4
"""So many of the commonest colours are looked at."""

ALMOST_WHITE = 252
"""Lossy compression leaves filler this white beside what was scanned."""

_WHITE, _BLACK = 0xFFFFFF, 0


def find_filler(rgb: NDArray[np.uint8], mpp: tuple[float, float]) -> NDArray[np.bool_]:
    """Where one exact neutral colour fills rectangles: nothing was scanned there.

    Glass that is saturated to the same white has a ragged outline along the tissue, and is kept.
    """
    red, green, blue = (rgb[..., k].astype(np.int32) for k in range(3))
    packed = red << 16 | green << 8 | blue
    filler = np.zeros(packed.shape, np.bool_)
    for colour in _flat_colours(packed, SMALLEST_UM2 / (mpp[0] * mpp[1])):
        filler |= _rectangles(packed == colour, mpp, pure=colour in (_WHITE, _BLACK))
        if colour == _WHITE:
            filler |= _rectangles(rgb.min(-1) >= ALMOST_WHITE, mpp, pure=True)
    return filler


def _flat_colours(packed: NDArray[np.int32], smallest_px: float) -> list[int]:
    """The commonest neutral colours among pixels that equal their neighbours right and below."""
    inner = packed[:-1, :-1]
    flat = inner[(inner == packed[1:, :-1]) & (inner == packed[:-1, 1:])]
    colours, counts = np.unique(flat, return_counts=True)
    commonest = np.argsort(-counts, kind="stable")[:COLOURS]
    return [int(colours[i]) for i in commonest if counts[i] >= smallest_px and _neutral(colours[i])]


def _neutral(colour: int) -> bool:
    channels = [int(colour) >> shift & 255 for shift in (16, 8, 0)]
    return max(channels) - min(channels) <= 2


def _rectangles(
    same: NDArray[np.bool_], mpp: tuple[float, float], *, pure: bool
) -> NDArray[np.bool_]:
    """Connected parts of `same` whose outline is mostly straight."""
    labels, count = ndi.label(same)
    # JPEG makes 8 px blocks of one grey, which are straight too: only longer edges tell.
    least_px = 10 if pure else 24
    outline = np.zeros(count + 1)
    straight = np.zeros(count + 1)
    for axis in (0, 1):
        # Edges between neighbours along `axis` run along the other axis.
        here, there = np.swapaxes(same, 0, axis), np.swapaxes(labels, 0, axis)
        row, column = np.nonzero(here[:-1] != here[1:])
        owner = np.maximum(there[row, column], there[row + 1, column])
        run = np.cumsum(np.diff(row, prepend=-1).astype(bool) | (np.diff(column, prepend=-2) != 1))
        long = np.bincount(run)[run] >= max(least_px, round(STRAIGHT_UM / mpp[axis]))
        outline += np.bincount(owner, minlength=count + 1)
        straight += np.bincount(owner[long], minlength=count + 1)
    area_um2 = np.bincount(labels.ravel(), minlength=count + 1) * mpp[0] * mpp[1]
    found = (straight >= STRAIGHT_SHARE * outline) & (area_um2 >= SMALLEST_UM2)
    found[0] = False
    return np.asarray(found[labels], np.bool_)
