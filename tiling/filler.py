"""Filler: the plain white, black or grey that scanners write where they scanned nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from .bands import choose_labels, count_labels, cut_bands

STRAIGHT_UM = 64.0
"""An edge counts as straight from this length on."""
STRAIGHT_SHARE = 0.7
"""Filler consists of rectangles: at least this share of its outline is straight."""
SMALLEST_UM2 = 1e4
"""Smaller patches of one colour are left alone."""
COLOURS = 4
"""So many of the commonest colours are looked at."""

WHITE_LESS = 3
"""Lossy compression leaves white filler so much darker beside what was scanned."""

_WHITE, _BLACK = 0xFFFFFF, 0
_SHIFTS = (16, 8, 0)


def find_filler(rgb: NDArray[np.uint8], mpp: tuple[float, float]) -> NDArray[np.bool_]:
    """Where one exact neutral colour fills rectangles: nothing was scanned there.

    Glass that is saturated to the same white has a ragged outline along the tissue, and is kept.
    """
    filler = np.zeros(rgb.shape[:2], np.bool_)
    for colour in _flat_colours(rgb, SMALLEST_UM2 / (mpp[0] * mpp[1])):
        channels = tuple(colour >> shift & 255 for shift in _SHIFTS)
        filler |= _rectangles(_equal(rgb, channels), mpp, pure=colour in (_WHITE, _BLACK))
        if colour == _WHITE:
            filler |= _rectangles(_equal(rgb, channels, but=WHITE_LESS), mpp, pure=True)
    return filler


def _equal(rgb: NDArray[np.uint8], channels: tuple[int, ...], *, but: int = 0) -> NDArray[np.bool_]:
    """Where no channel is more than `but` below the one given, nor above it."""
    equal = np.ones(rgb.shape[:2], np.bool_)
    for k, value in enumerate(channels):
        equal &= rgb[..., k] >= max(0, value - but)
        equal &= rgb[..., k] <= value
    return equal


def _flat_colours(rgb: NDArray[np.uint8], smallest_px: float) -> list[int]:
    """The commonest neutral colours among pixels that equal their neighbours right and below."""
    colours, counts = np.zeros(0, np.int32), np.zeros(0, np.int64)
    for band in cut_bands(rgb.shape):
        # One row more, for the neighbours below.
        part = rgb[band.rows.start : band.rows.stop + 1]
        packed = np.zeros(part.shape[:2], np.int32)
        for k, shift in enumerate(_SHIFTS):
            packed |= part[..., k].astype(np.int32) << shift
        inner = packed[:-1, :-1]
        flat = inner[(inner == packed[1:, :-1]) & (inner == packed[:-1, 1:])]
        found, times = np.unique(flat, return_counts=True)
        colours, where = np.unique(np.concatenate([colours, found]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([counts, times])).astype(np.int64)
    commonest = np.argsort(-counts, kind="stable")[:COLOURS]
    return [int(colours[i]) for i in commonest if counts[i] >= smallest_px and _neutral(colours[i])]


def _neutral(colour: int) -> bool:
    channels = [int(colour) >> shift & 255 for shift in _SHIFTS]
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
        least = max(least_px, round(STRAIGHT_UM / mpp[axis]))
        for band in cut_bands(here.shape):
            part = slice(band.rows.start, band.rows.stop + 1)
            owner, long = _edges(here[part], there[part], least)
            outline += np.bincount(owner, minlength=count + 1)
            straight += np.bincount(owner[long], minlength=count + 1)
    area_um2 = count_labels(labels, count) * mpp[0] * mpp[1]
    found = (straight >= STRAIGHT_SHARE * outline) & (area_um2 >= SMALLEST_UM2)
    found[0] = False
    return choose_labels(labels, found)


def _edges(
    same: NDArray[np.bool_], labels: NDArray[np.int32], least: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Whose each edge between a row and the next is, and whether it is part of a long one."""
    row, column = np.nonzero(same[:-1] != same[1:])
    owner = np.maximum(labels[row, column], labels[row + 1, column])
    run = np.cumsum(np.diff(row, prepend=-1).astype(bool) | (np.diff(column, prepend=-2) != 1))
    return owner, np.bincount(run)[run] >= least
