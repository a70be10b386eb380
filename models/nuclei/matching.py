"""How well found nuclei agree with true ones: F1 of detection, panoptic quality and AJI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import UsageError


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was found of one image's nuclei."""

    true: int
    found: int
    matched: int
    """Pairs of a true and a found nucleus that overlap by more than the threshold."""
    overlap: float
    """Sum of the matched pairs' intersection over union."""
    aji: float
    """Aggregated Jaccard index: of all true nuclei, each with the found one that overlaps it best,
    the pixels they share over the pixels of either, found ones that were best for none included
    (Kumar et al., IEEE Trans Med Imaging 2017, algorithm 1)."""

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing and nothing was found."""
        return 2 * self.matched / (self.true + self.found) if self.true + self.found else 1.0

    @property
    def precision(self) -> float:
        """Share of the found nuclei that are true; 1 where none was found."""
        return self.matched / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Share of the true nuclei that were found; 1 where there are none."""
        return self.matched / self.true if self.true else 1.0

    @property
    def segmentation_quality(self) -> float:
        """Mean intersection over union of the matched pairs; 1 where there is nothing to match."""
        if self.matched == 0:
            return 1.0 if self.true + self.found == 0 else 0.0
        return self.overlap / self.matched

    @property
    def panoptic_quality(self) -> float:
        """F1 times the mean overlap of matched pairs (Kirillov et al., CVPR 2019, equation 2)."""
        return self.f1 * self.segmentation_quality


def compare_labels(
    true: NDArray[np.integer], found: NDArray[np.integer], *, threshold: float = 0.5
) -> Agreement:
    """Compare two label images, H x W, 0 where there is no nucleus; numbers may have gaps.

    A pair matches where intersection over union is more than `threshold`, at least 0.5, so that
    none can match two (Kirillov et al. 2019, section 4.1).

    >>> image = np.array([[1, 1, 0, 2]])
    >>> compare_labels(image, image).panoptic_quality
    1.0
    """
    if true.shape != found.shape:
        raise UsageError(f"Label images of {true.shape} and {found.shape} cannot be compared.")
    if not 0.5 <= threshold < 1:
        raise UsageError("The threshold of overlap must be at least 0.5 and less than 1.")
    (rows, one), (columns, other) = _number(true), _number(found)
    # Pixels in each true and each found nucleus, the ground counted as number 0 of both.
    joint, shared = np.unique(one * (len(columns) + 1) + other, return_counts=True)
    i, j = np.divmod(joint, len(columns) + 1)
    true_area, found_area = (np.bincount(v, shared).astype(np.int64) for v in (i, j))
    both = (i > 0) & (j > 0)
    i, j, shared = i[both], j[both], shared[both]
    union = true_area[i] + found_area[j] - shared
    iou = shared / union
    match = iou > threshold
    return Agreement(
        true=len(rows),
        found=len(columns),
        matched=int(match.sum()),
        overlap=float(iou[match].sum()),
        aji=_aggregate(i, j, shared, (true_area, found_area)),
    )


def _number(labels: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """The nuclei's numbers, and each pixel's place among them from 1, 0 for none."""
    values, places = np.unique(labels, return_inverse=True)
    present = values[values > 0]
    return present, np.maximum(places.ravel() - (len(values) - len(present)) + 1, 0)


def _aggregate(
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    shared: NDArray[np.int64],
    areas: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> float:
    """AJI of true nuclei `i` that overlap found ones `j` by `shared` pixels."""
    true_area, found_area = areas
    union = true_area[i] + found_area[j] - shared
    order = np.lexsort((j, -(shared / union), i))
    best = order[np.unique(i[order], return_index=True)[1]]
    total = int(union[best].sum())
    total += int(np.delete(true_area, [0, *i[best]]).sum())
    total += int(np.delete(found_area, [0, *j[best]]).sum())
    return float(shared[best].sum() / total) if total else 1.0
