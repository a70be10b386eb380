"""The inner loop of the watershed, compiled by numba; imported where it is first needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slidetriage.kernels import compiled


@compiled
def flood(height: NDArray[np.uint8], labels: NDArray[np.int32]) -> None:
    """Grow the labels in place, from high to low, over unlabelled pixels, which hold -1.

    The outermost pixels hold 0. Pixels wait in one queue for each height: the highest comes
    first, and of the same height the one that has waited longest, so the result is that of
    skimage.segmentation.watershed.
    """
    columns = height.shape[1]
    flat, label = height.reshape(height.size), labels.reshape(height.size)
    sides = np.array([-columns, -1, 1, columns])
    first, last = np.full(256, -1, np.int32), np.full(256, -1, np.int32)
    after = np.empty(flat.size, np.int32)
    level = 0
    for pixel in range(flat.size):
        if label[pixel] > 0:
            value = flat[pixel]
            after[pixel] = -1
            if first[value] < 0:
                first[value] = pixel
            else:
                after[last[value]] = pixel
            last[value] = pixel
            level = max(level, value)
    while level >= 0:
        pixel = first[level]
        if pixel < 0:
            level -= 1
            continue
        first[level] = after[pixel]
        for side in sides:
            other = pixel + side
            if label[other] < 0:
                label[other] = label[pixel]
                value = flat[other]
                after[other] = -1
                if first[value] < 0:
                    first[value] = other
                else:
                    after[last[value]] = other
                last[value] = other
                level = max(level, value)


@compiled
def mark_peaks(height: NDArray[np.uint8], dip: int, least: int, labels: NDArray[np.int32]) -> None:
    """Number one pixel of each peak that ends `dip` or more above a way to a higher, from 1 up.

    Given are -1 on the ground and 0 elsewhere, 0 at the outermost pixels. Pixels surface from
    high to low, islands grow and meet; of two that meet, the one with the lower peak is forgotten
    unless it stands out by `dip`. What touches none when it surfaces is a peak, the first in
    reading order where several are level. Peaks under `least` get no number.
    """
    columns = height.shape[1]
    flat, label = height.reshape(height.size), labels.reshape(height.size)
    sides = np.array([-columns, -1, 1, columns])
    starts = np.zeros(257, np.int64)
    for pixel in range(flat.size):
        if label[pixel] < 0:
            starts[256 - flat[pixel]] += 1
    for level in range(1, 257):
        starts[level] += starts[level - 1]
    order = np.empty(starts[256], np.int32)
    for pixel in range(flat.size):
        if label[pixel] < 0:
            order[starts[255 - flat[pixel]]] = pixel
            starts[255 - flat[pixel]] += 1
    # A pixel's number leads, over several steps, to the peak of its island; -1 is under water.
    island = np.full(flat.size, -1, np.int32)
    for pixel in order:
        own = np.int32(-1)
        for side in sides:
            other = pixel + side
            if island[other] < 0:
                continue
            peak = island[other]
            while island[peak] != peak:
                island[peak] = island[island[peak]]
                peak = island[peak]
            if own < 0 or own == peak:
                own = peak
                continue
            high, low = own, peak
            if flat[low] > flat[high]:
                high, low = low, high
            if flat[low] - flat[pixel] < dip:
                island[low] = high
                label[low] = -1
            own = high
        if own < 0:
            own = pixel
            label[pixel] = 1
        island[pixel] = own
    count = 0
    for pixel in range(flat.size):
        if label[pixel] > 0:
            if flat[pixel] >= least:
                count += 1
                label[pixel] = count
            else:
                label[pixel] = -1


@compiled
def measure(labels: NDArray[np.int32], inside: NDArray[np.uint8], sums: NDArray[np.int64]) -> None:
    """Count each label's pixels and add up the map over them; sums are labels x 2."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label > 0:
                sums[label, 0] += 1
                sums[label, 1] += inside[y, x]
