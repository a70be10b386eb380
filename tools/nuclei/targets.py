"""What the network is to say of labelled nuclei."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def relative_depth(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Share b / (b + c) of each pixel in a nucleus, b px from its border, c from its centre.

    0 elsewhere. The centre is the pixel nearest the centroid if that lies within, else the deepest.
    """
    count = int(labels.max(initial=0))
    border = _distance_to_border(labels)
    if count == 0:
        return border
    y, x = np.indices(labels.shape)
    flat = labels.ravel()
    area = np.maximum(np.bincount(flat, minlength=count + 1), 1)
    cy, cx = (np.bincount(flat, v.ravel(), count + 1) / area for v in (y, x))
    iy, ix = np.rint(cy).astype(int), np.rint(cx).astype(int)
    outside = labels[iy, ix] != np.arange(count + 1)
    for n in np.flatnonzero(outside[1:]) + 1:
        deepest = int(np.argmax(np.where(labels == n, border, -1)))
        iy[n], ix[n] = np.unravel_index(deepest, labels.shape)
        cy[n], cx[n] = iy[n], ix[n]
    centre = np.hypot(y - cy[labels], x - cx[labels])
    depth = np.where(labels > 0, border / np.maximum(border + centre, 1e-6), 0)
    return depth.astype(np.float32)


def touching(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels within two of a pixel of another nucleus: where nuclei must be told apart."""
    kernel = np.ones((5, 5), np.uint8)
    shifted = labels.astype(np.float32)
    high = cv2.dilate(shifted, kernel)
    low = cv2.erode(np.where(labels > 0, shifted, 1e6).astype(np.float32), kernel)
    return np.asarray((high > 0) & (low < 1e6) & (low != high))


def relabel(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number connected parts anew, so that a nucleus cut in two or mirrored counts as two."""
    from skimage.measure import label

    return np.asarray(label(labels, background=0, connectivity=1), np.int32)


def _distance_to_border(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Px from each pixel's centre to the edge of its nucleus; image edges are none."""
    pad = np.pad(labels, 1, mode="edge")
    inner = labels > 0
    # A pixel whose right or lower neighbour is another nucleus gives way, so that two that touch
    # have a border between them; the half pixel is made good below.
    inner &= ~((pad[1:-1, 2:] != labels) & (pad[1:-1, 2:] > 0))
    inner &= ~((pad[2:, 1:-1] != labels) & (pad[2:, 1:-1] > 0))
    distance = cv2.distanceTransform(inner.astype(np.uint8), cv2.DIST_L2, 5)
    return np.where(labels > 0, np.maximum(distance - 0.5, 0.25), 0).astype(np.float32)
