"""The inner loops of the area filter, compiled by numba; imported where they are first needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.kernels import compiled


@compiled
def weigh_rows(
    flat: NDArray[np.uint8], top: int, weights: NDArray[np.float32], line: NDArray[np.float32]
) -> None:
    """One output row before its columns are joined: the weighted sum of source rows from `top`."""
    a, b, c = weights[0], weights[1], weights[2]
    first, second, third = flat[top], flat[top + 1], flat[top + 2]
    for x in range(line.size):
        line[x] = a * first[x] + b * second[x] + c * third[x]
    for t in range(3, weights.size):
        a, first = weights[t], flat[top + t]
        if a != 0:
            for x in range(line.size):
                line[x] += a * first[x]


@compiled
def filter_lines(
    source: NDArray[np.uint8],
    row_first: NDArray[np.int64],
    row_weights: NDArray[np.float32],
    column_first: NDArray[np.int64],
    column_weights: NDArray[np.float32],
    out: NDArray[np.uint8],
) -> None:
    """H x W x 3 to rows x columns x 3; both axes have at least three taps.

    Two rows at a time, because they share the places and weights of their columns, and three taps
    written out: together that is 2.6 times as fast as the plain loops.
    """
    height, width, _ = source.shape
    rows, (columns, taps) = row_first.size, column_weights.shape
    flat = source.reshape(height, width * 3)
    upper, lower = np.empty(width * 3, np.float32), np.empty(width * 3, np.float32)
    upper_sum, lower_sum = np.empty(columns * 3, np.float32), np.empty(columns * 3, np.float32)
    half = np.float32(0.5)
    for i in range(0, rows, 2):
        # An odd last row is done twice, which is simpler than doing it alone.
        k = min(i + 1, rows - 1)
        weigh_rows(flat, row_first[i], row_weights[i], upper)
        weigh_rows(flat, row_first[k], row_weights[k], lower)
        for j in range(columns):
            at, to = column_first[j] * 3, j * 3
            a, b, c = column_weights[j, 0], column_weights[j, 1], column_weights[j, 2]
            upper_sum[to] = a * upper[at] + b * upper[at + 3] + c * upper[at + 6]
            upper_sum[to + 1] = a * upper[at + 1] + b * upper[at + 4] + c * upper[at + 7]
            upper_sum[to + 2] = a * upper[at + 2] + b * upper[at + 5] + c * upper[at + 8]
            lower_sum[to] = a * lower[at] + b * lower[at + 3] + c * lower[at + 6]
            lower_sum[to + 1] = a * lower[at + 1] + b * lower[at + 4] + c * lower[at + 7]
            lower_sum[to + 2] = a * lower[at + 2] + b * lower[at + 5] + c * lower[at + 8]
            for t in range(3, taps):
                a, at = column_weights[j, t], column_first[j] * 3 + t * 3
                for channel in range(3):
                    upper_sum[to + channel] += a * upper[at + channel]
                    lower_sum[to + channel] += a * lower[at + channel]
        above, below = out[i].reshape(columns * 3), out[k].reshape(columns * 3)
        for x in range(columns * 3):
            above[x] = np.uint8(upper_sum[x] + half)
            below[x] = np.uint8(lower_sum[x] + half)
