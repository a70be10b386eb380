"""The inner loops of the measurements, compiled by numba; imported where they are first needed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from slidetriage.kernels import compiled

LEVELS = 16
"""Steps of optical density, from 0, that the entropy of chromatin tells apart."""

STEPS_PER_OD = 8


@compiled
def shape_rings(
    points: NDArray[np.float64], offsets: NDArray[np.int64], out: NDArray[np.float64]
) -> None:
    """Fill `out` (N x 3) with perimeter, eccentricity and ellipse deviation of traced outlines."""
    longest = 0
    for n in range(offsets.size - 1):
        longest = max(longest, offsets[n + 1] - offsets[n])
    room = np.empty((longest, 2))
    for n in range(offsets.size - 1):
        traced = points[offsets[n] : offsets[n + 1]]
        ring = room[: len(traced)]
        _smooth(traced, ring)
        out[n, 0], xx, yy, xy = _moments(ring)
        middle, half = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
        out[n, 1] = math.sqrt(max(0.0, 2 * half / (middle + half)))
        determinant, off = max(xx * yy - xy * xy, 1e-300), 0.0
        for i in range(len(ring)):
            x, y = ring[i, 0], ring[i, 1]
            squared = (yy * x * x - 2 * xy * x * y + xx * y * y) / determinant
            # A filled ellipse's border lies at two standard deviations.
            off += (math.sqrt(max(0.0, squared)) / 2 - 1) ** 2
        out[n, 2] = math.sqrt(off / len(ring))


@compiled
def _smooth(traced: NDArray[np.float64], ring: NDArray[np.float64]) -> None:
    """Weights 1 4 6 4 1: the outline of a digital disc gets its true length within 0.5 %."""
    size = len(ring)
    for i in range(size):
        before, after = traced[(i - 1) % size], traced[(i + 1) % size]
        further, beyond = traced[(i - 2) % size], traced[(i + 2) % size]
        for axis in range(2):
            near = 4 * (before[axis] + after[axis]) + 6 * traced[i, axis]
            ring[i, axis] = (further[axis] + near + beyond[axis]) / 16


@compiled
def _moments(ring: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Length, and second moments of the area within (Green's theorem); centres `ring` on it."""
    size = len(ring)
    length, area, mean_x, mean_y = 0.0, 0.0, 0.0, 0.0
    origin_x, origin_y = ring[0]
    for i in range(size):
        k = (i + 1) % size
        ax, ay = ring[i, 0] - origin_x, ring[i, 1] - origin_y
        bx, by = ring[k, 0] - origin_x, ring[k, 1] - origin_y
        cross = ax * by - bx * ay
        length += math.hypot(bx - ax, by - ay)
        area += cross / 2
        mean_x += (ax + bx) * cross / 6
        mean_y += (ay + by) * cross / 6
    ring[:, 0] -= mean_x / area + origin_x
    ring[:, 1] -= mean_y / area + origin_y
    xx, yy, xy = 0.0, 0.0, 0.0
    for i in range(size):
        ax, ay = ring[i]
        bx, by = ring[(i + 1) % size]
        cross = (ax * by - bx * ay) / area
        xx += (ax * ax + ax * bx + bx * bx) * cross / 12
        yy += (ay * ay + ay * by + by * by) * cross / 12
        xy += (2 * ax * ay + ax * by + bx * ay + 2 * bx * by) * cross / 24
    return length, xx, yy, xy


@compiled
def span_hulls(
    points: NDArray[np.float64], offsets: NDArray[np.int64], out: NDArray[np.float64]
) -> None:
    """Fill `out` (N x 2) with the largest and smallest caliper (Feret) diameter of convex rings."""
    for n in range(offsets.size - 1):
        ring = points[offsets[n] : offsets[n + 1]]
        widest, narrowest = 0.0, np.inf
        for i in range(len(ring)):
            k = (i + 1) % len(ring)
            along_x, along_y = ring[k, 0] - ring[i, 0], ring[k, 1] - ring[i, 1]
            side, reach = math.hypot(along_x, along_y), 0.0
            for j in range(len(ring)):
                x, y = ring[j, 0] - ring[i, 0], ring[j, 1] - ring[i, 1]
                widest = max(widest, x * x + y * y)
                reach = max(reach, abs(along_x * y - along_y * x))
            # The smallest width of a convex polygon is across one of its sides.
            if side > 0:
                narrowest = min(narrowest, reach / side)
        out[n, 0], out[n, 1] = math.sqrt(widest), narrowest


@compiled
def stain_labels(
    labels: NDArray[np.int32],
    rgb: NDArray[np.uint8],
    boxes: NDArray[np.int64],
    tables: NDArray[np.float32],
    step: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Fill `out` (N x 6): haematoxylin and eosin, each mean and sd, then contrast and entropy.

    `boxes` (N x 4) are left, top, right, bottom of each label; `tables` (2 x 3 x 256) what a value
    of red, green and blue adds to each stain; `step` is how many columns and rows apart two pixels
    of a pair are.
    """
    pairs = np.zeros((LEVELS, LEVELS))
    room = _room(boxes)
    dark, level = np.empty(room, np.float32), np.empty(room, np.int64)
    for n in range(len(boxes)):
        left, top, right, bottom = boxes[n]
        count, sums = 0, np.zeros(4)
        for y in range(top, bottom):
            for x in range(left, right):
                if labels[y, x] != n + 1:
                    level[y - top, x - left] = -1
                    continue
                r, g, b = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
                blue = tables[0, 0, r] + tables[0, 1, g] + tables[0, 2, b]
                pink = tables[1, 0, r] + tables[1, 1, g] + tables[1, 2, b]
                count += 1
                sums[0] += blue
                sums[1] += blue * blue
                sums[2] += pink
                sums[3] += pink * pink
                dark[y - top, x - left] = blue
                level[y - top, x - left] = min(max(int(blue * STEPS_PER_OD), 0), LEVELS - 1)
        for stain in range(2):
            mean = sums[2 * stain] / count
            out[n, 2 * stain] = mean
            out[n, 2 * stain + 1] = math.sqrt(max(0.0, sums[2 * stain + 1] / count - mean * mean))
        here = level[: bottom - top, : right - left]
        out[n, 4], out[n, 5] = _texture(dark, here, step, pairs)


@compiled
def _room(boxes: NDArray[np.int64]) -> tuple[int, int]:
    """Rows and columns that the largest boxes need."""
    rows, columns = 0, 0
    for n in range(len(boxes)):
        rows = max(rows, boxes[n, 3] - boxes[n, 1])
        columns = max(columns, boxes[n, 2] - boxes[n, 0])
    return rows, columns


@compiled
def _texture(
    dark: NDArray[np.float32],
    level: NDArray[np.int64],
    step: NDArray[np.int64],
    pairs: NDArray[np.float64],
) -> tuple[float, float]:
    """Contrast and entropy of the pixels whose level is not negative; NaN without a pair."""
    rows, columns = level.shape
    count, contrast = 0, 0.0
    pairs[:] = 0
    for across, down in ((step[0], 0), (0, step[1])):
        for y in range(rows - down):
            for x in range(columns - across):
                first, second = level[y, x], level[y + down, x + across]
                if first >= 0 and second >= 0:
                    contrast += (dark[y, x] - dark[y + down, x + across]) ** 2
                    pairs[first, second] += 1
                    count += 1
    if count == 0:
        return np.nan, np.nan
    return contrast / count, _entropy(pairs, count)


@compiled
def _entropy(pairs: NDArray[np.float64], count: int) -> float:
    """Bits, of pairs counted in both orders."""
    bits = 0.0
    for i in range(LEVELS):
        for j in range(LEVELS):
            share = (pairs[i, j] + pairs[j, i]) / (2 * count)
            if share > 0:
                bits -= share * math.log2(share)
    return bits
