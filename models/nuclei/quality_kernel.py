"""Sums over the pixels of blocks, compiled by numba; imported where they are first needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.kernels import compiled

TISSUE, FINEST, FINE, MIDDLE, STRONG, BROWN, PINK, BLUE = range(8)
"""What each column of `sum_blocks` holds: pixels of tissue; the energy of detail in them, finest
(what pixels differ by from means of 3 x 3), fine (these from 5 x 5) and middle (these from 9 x 9);
of every second pixel along both axes those strongly stained, and of these the brown, the pink and
the blue or green ones."""

SCALES = 9, 225, 2025
"""By what these differences are multiplied, so that they are whole numbers."""

STEPS_PER_OD = 2048
"""Optical density as a whole number: sums do not depend on their order."""

_RIM = 4


@compiled
def sum_blocks(
    pixels: NDArray[np.uint8],
    density: NDArray[np.int64],
    limits: tuple[int, int, int],
    out: NDArray[np.int64],
) -> None:
    """Fill `out` (rows x columns x 8) with the sums of as many blocks, which divide the image.

    `pixels` is H x W x 3 RGB; `density` the optical density of each value. The limits are the
    density that a pixel of tissue has over 9 x 9 pixels, what red, green and blue of a strongly
    stained one have together, and what none of them may exceed.
    """
    height, width = pixels.shape[:2]
    grey = _grey(pixels, density)
    above_3, above_5, above_9 = np.zeros((3, width + 2 * _RIM), np.int64)
    for x in range(width + 2 * _RIM):
        for row in range(9):
            above_9[x] += grey[row, x]
        for row in range(2, 7):
            above_5[x] += grey[row, x]
        for row in range(3, 6):
            above_3[x] += grey[row, x]
    rows, columns = out.shape[:2]
    out[:] = 0
    for y in range(height):
        if y:
            for x in range(width + 2 * _RIM):
                above_9[x] += grey[y + 8, x] - grey[y - 1, x]
                above_5[x] += grey[y + 6, x] - grey[y + 1, x]
                above_3[x] += grey[y + 5, x] - grey[y + 2, x]
        row = out[y * rows // height]
        sum_9, sum_5, sum_3 = above_9[:9].sum(), above_5[2:7].sum(), above_3[3:6].sum()
        for column in range(columns):
            first, last = -(-column * width // columns), -(-(column + 1) * width // columns)
            tissue, finest, fine, middle = 0, 0, 0, 0
            for x in range(first, last):
                if x:
                    sum_9 += above_9[x + 8] - above_9[x - 1]
                    sum_5 += above_5[x + 6] - above_5[x + 1]
                    sum_3 += above_3[x + 5] - above_3[x + 2]
                if sum_9 > 81 * limits[0]:
                    tissue += 1
                    finest += (9 * grey[y + _RIM, x + _RIM] - sum_3) ** 2
                    fine += (25 * sum_3 - 9 * sum_5) ** 2
                    middle += (81 * sum_5 - 25 * sum_9) ** 2
            row[column, TISSUE] += tissue
            row[column, FINEST] += finest
            row[column, FINE] += fine
            row[column, MIDDLE] += middle
            if y % 2 == 0:
                _count_stains(pixels[y, first:last], density, limits, row[column])


@compiled
def _grey(pixels: NDArray[np.uint8], density: NDArray[np.int64]) -> NDArray[np.int64]:
    """Optical density of the luminance, with a rim of 4 pixels that repeats the edge."""
    height, width = pixels.shape[:2]
    grey = np.empty((height + 2 * _RIM, width + 2 * _RIM), np.int64)
    for y in range(height):
        for x in range(width):
            red, green, blue = pixels[y, x]
            # ITU-R BT.601: 0.299 red, 0.587 green, 0.114 blue.
            grey[y + _RIM, x + _RIM] = density[(77 * red + 150 * green + 29 * blue + 128) >> 8]
    grey[:, :_RIM] = grey[:, _RIM : _RIM + 1]
    grey[:, width + _RIM :] = grey[:, width + _RIM - 1 : width + _RIM]
    grey[:_RIM] = grey[_RIM]
    grey[height + _RIM :] = grey[height + _RIM - 1]
    return grey


@compiled
def _count_stains(
    line: NDArray[np.uint8],
    density: NDArray[np.int64],
    limits: tuple[int, int, int],
    out: NDArray[np.int64],
) -> None:
    """Add to `out` what every second pixel of a line is stained with."""
    for x in range(0, len(line), 2):
        red, green, blue = density[line[x, 0]], density[line[x, 1]], density[line[x, 2]]
        if red + green + blue <= limits[1] or max(red, green, blue) > limits[2]:
            continue
        out[STRONG] += 1
        out[BROWN] += blue > green and blue > red and 10 * red > 3 * green
        out[PINK] += 10 * red < 6 * green and blue < green
        out[BLUE] += 10 * red > 9 * green and red >= blue
