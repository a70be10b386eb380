"""Detection where the scale is unknown, with a detector that knows one size only."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from slidetriage.models.nuclei import Instances
from slidetriage.models.nuclei.rescaling import (
    detect_at_any_scale,
    median_diameter,
    resize_instances,
)


class DarkSpots:
    """Finds dark spots and remembers the sizes of the images it was given."""

    name, identity, mpp, margin_px = "dark spots", "0", 0.5, 0

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def detect(self, images: np.ndarray) -> list[Instances]:
        self.sizes.append(images.shape[1:3])
        found = label(images[0, ..., 0] < 128, connectivity=1).astype(np.int32)
        return [Instances(found, np.ones(found.max(), np.float32))]


def spots(diameter: float, count: int = 4) -> np.ndarray:
    side = int(3 * diameter)
    y, x = np.mgrid[:side, : side * count]
    middle = (side - 1) / 2
    dark = np.hypot(y - middle, x % side - middle) <= diameter / 2
    return np.where(dark[..., None], 60, 220).astype(np.uint8).repeat(3, 2)


@pytest.mark.parametrize("diameter", [9, 66])
def test_a_second_look_is_taken_at_the_usual_size(diameter: float) -> None:
    image, detector = spots(diameter), DarkSpots()
    found = detect_at_any_scale(detector, image, usual_diameter_px=22)
    assert found.labels.shape == image.shape[:2]
    assert len(found) == 4
    assert median_diameter(found) == pytest.approx(diameter, rel=0.1)
    first, second = detector.sizes
    assert second[0] / first[0] == pytest.approx(min(2, 22 / diameter), rel=0.08)


@pytest.mark.parametrize(("diameter", "count"), [(20, 4), (60, 2)])
def test_one_look_is_enough(diameter: float, count: int) -> None:
    """Where nuclei have the usual size, and where there are too few to tell."""
    detector = DarkSpots()
    detect_at_any_scale(detector, spots(diameter, count), usual_diameter_px=22)
    assert len(detector.sizes) == 1


def test_a_nucleus_that_no_pixel_is_left_of_is_dropped() -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[1, 0], labels[:, 4:] = 1, 2
    small = resize_instances(Instances(labels, np.array([0.2, 0.9], np.float32)), (2, 2))
    assert small.labels.tolist() == [[0, 1], [0, 1]]
    assert small.scores == pytest.approx([0.9])
