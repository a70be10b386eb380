"""Detection where micrometres per pixel are unknown: one look to measure, one to outline."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .instances import Instances, NucleusDetector

LEAST_NUCLEI = 3
"""Fewer say too little of how large nuclei are."""

CLOSE_ENOUGH = 2.2
"""A first look whose nuclei are within this factor of the usual size is kept: within it a second
look at the usual size gained nothing on the validation images, and lost where it shrank them."""

SCALES = (0.25, 2.0)
"""An image is not shrunk or grown by more than this: it would lose its nuclei, or cost too much."""


def detect_at_any_scale(
    detector: NucleusDetector, image: NDArray[np.uint8], *, usual_diameter_px: float
) -> Instances:
    """Find the nuclei of one H x W x 3 RGB image of unknown scale.

    The image is looked at as it is; if its nuclei turn out much larger or smaller than
    `usual_diameter_px`, the diameter that the detector knows best, it is resized so that they are
    not and looked at again.
    """
    first = detector.detect(image[None])[0]
    if len(first) < LEAST_NUCLEI:
        return first
    ratio = usual_diameter_px / median_diameter(first)
    if 1 / CLOSE_ENOUGH < ratio < CLOSE_ENOUGH:
        return first
    scale = float(np.clip(ratio, *SCALES))
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    second = detector.detect(resized[None])[0]
    # As many as were lost were too small or too large to be nuclei of this image.
    return resize_instances(second, (height, width))


def median_diameter(found: Instances) -> float:
    """Px; of the disc of equal area, the median nucleus's, each weighted by its score."""
    areas = np.bincount(found.labels.ravel(), minlength=len(found) + 1)[1:]
    order = np.argsort(areas)
    weight = np.cumsum(found.scores[order])
    middle = order[np.searchsorted(weight, weight[-1] / 2)]
    return float(np.sqrt(4 / np.pi * areas[middle]))


def resize_instances(found: Instances, shape: tuple[int, int]) -> Instances:
    """The same nuclei at height x width; any that no pixel is left of are dropped."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(shape, found.labels.shape, strict=True)
    )
    labels = found.labels[np.ix_(rows, columns)]
    present = np.bincount(labels.ravel(), minlength=len(found) + 1) > 0
    present[0] = False
    numbers = np.zeros(len(found) + 1, np.int32)
    numbers[present] = np.arange(1, np.count_nonzero(present) + 1)
    return Instances(numbers[labels], found.scores[present[1:]])
