"""How well a detector does on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from slidetriage.models.nuclei import Instances
from slidetriage.models.nuclei.matching import Agreement, compare_labels

from .images import LabelledImage

Finder = Callable[[NDArray[np.uint8]], Instances]


def compare_all(find: Finder, images: Sequence[LabelledImage]) -> list[Agreement]:
    """Agreement on each image."""
    return [compare_labels(image.labels, find(image.image).labels) for image in images]


def mean_figures(agreements: Sequence[Agreement]) -> dict[str, float]:
    """Means over images, as challenges report them."""
    kinds = {
        "f1": "f1",
        "precision": "precision",
        "recall": "recall",
        "pq": "panoptic_quality",
        "aji": "aji",
    }
    return {
        name: round(float(np.mean([getattr(a, field) for a in agreements])), 4)
        for name, field in kinds.items()
    }


def by_kind(
    images: Sequence[LabelledImage], agreements: Sequence[Agreement]
) -> dict[str, dict[str, float]]:
    """Mean figures of each kind of image, and of all."""
    figures = {"all": mean_figures(agreements)}
    for kind in sorted({image.kind for image in images}):
        chosen = [a for image, a in zip(images, agreements, strict=True) if image.kind == kind]
        figures[f"{kind} ({len(chosen)})"] = mean_figures(chosen)
    return figures


def pooled_f1(agreements: Sequence[Agreement]) -> float:
    """2 TP / (2 TP + FP + FN) with the nuclei of all images in one heap."""
    matched = sum(a.matched for a in agreements)
    return round(2 * matched / max(1, sum(a.true + a.found for a in agreements)), 4)
