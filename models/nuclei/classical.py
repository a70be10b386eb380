"""Nuclei without weights: haematoxylin by colour deconvolution, thresholds, and a watershed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from .decoding import split_ground
from .instances import Instances

_VERSION = 1

# Optical densities of haematoxylin, eosin and DAB as rows, and the inverse (Ruifrok & Johnston,
# Anal Quant Cytol Histol 2001), as in skimage.color.hed_from_rgb.
_RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_HED_FROM_RGB = np.linalg.inv(_RGB_FROM_HED)


@dataclass(frozen=True, slots=True)
class ClassicalDetector:
    """A `NucleusDetector` that needs no weights: the fallback, and the floor to beat.

    A pixel is nucleus where it has more haematoxylin than its surroundings and than a share of
    Otsu's threshold of the image; touching nuclei part where the distance to the ground dips.
    """

    mpp: float = 0.5
    """Micrometres per pixel of the images that it is made for."""
    nucleus_um: float = 9.0
    """Diameter of a usual nucleus."""
    window_um: float = 50.0
    """Half the side of what counts as surroundings."""
    strictness: float = 0.85
    """Share of Otsu's threshold that a pixel must reach."""
    lift: float = 0.02
    """How much more haematoxylin than its surroundings a pixel must have, as optical density."""
    dip: float = 0.06
    """How much shallower, in nucleus diameters, the neck between two nuclei must be."""

    @property
    def name(self) -> str:
        """What it is called in outputs."""
        return f"classical-{_VERSION}"

    @property
    def identity(self) -> str:
        """Hash of version and settings."""
        settings = [_VERSION, *(getattr(self, field.name) for field in fields(self))]
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    @property
    def margin_px(self) -> int:
        """How far from a nucleus pixels may change its outline, the image's own threshold aside."""
        return round(self.window_um / self.mpp) + 2 * round(self.nucleus_um / self.mpp)

    def detect(self, images: NDArray[np.uint8]) -> list[Instances]:
        """Find the nuclei of B x H x W x 3 RGB images, each by itself."""
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Instances:
        amount = haematoxylin(image)
        diameter = self.nucleus_um / self.mpp
        blurred = cv2.GaussianBlur(amount, (0, 0), max(0.5, 0.06 * diameter))
        soft = np.asarray(blurred, np.float32)
        ground = self.find_ground(soft, diameter)
        distance = cv2.distanceTransform(ground.astype(np.uint8), cv2.DIST_L2, 5)
        distance = cv2.GaussianBlur(distance, (0, 0), max(0.5, 0.05 * diameter))
        height = np.clip(np.rint(distance * (8 * 16 / diameter)), 0, 255).astype(np.uint8)
        labels = split_ground(height, ground, dip=round(self.dip * 8 * 16))
        return self._select(labels, soft, diameter)

    def find_ground(self, soft: NDArray[np.float32], diameter: float) -> NDArray[np.bool_]:
        """H x W; where there is nucleus, specks and holes cleared away.

        `soft` is the amount of haematoxylin, a little blurred, and `diameter` a usual nucleus's in
        px.
        """
        from skimage.filters import threshold_otsu
        from skimage.morphology import remove_small_holes, remove_small_objects

        if np.ptp(soft) < 2 * self.lift:
            return np.zeros(soft.shape, np.bool_)
        least = self.strictness * threshold_otsu(soft)
        side = 2 * round(self.window_um / self.mpp) + 1
        near = cv2.blur(soft, (side, side), borderType=cv2.BORDER_REFLECT_101)
        ground = (soft > least) & (soft > near + self.lift)
        usual = np.pi / 4 * diameter**2
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
        ground = cv2.morphologyEx(ground.view(np.uint8), cv2.MORPH_OPEN, kernel) > 0
        ground = remove_small_objects(ground, max_size=int(usual / 8))
        return np.asarray(remove_small_holes(ground, max_size=int(usual / 4)), np.bool_)

    def _select(
        self, labels: NDArray[np.int32], soft: NDArray[np.float32], diameter: float
    ) -> Instances:
        """Drop specks, number the rest, and score each by how far it stands out."""
        flat = labels.ravel()
        count = int(flat.max(initial=0)) + 1
        area = np.bincount(flat, minlength=count)
        mean = np.bincount(flat, soft.ravel(), count) / np.maximum(area, 1)
        keep = area >= np.pi / 4 * diameter**2 / 8
        keep[0] = False
        numbers = np.zeros(count, np.int32)
        numbers[keep] = np.arange(1, np.count_nonzero(keep) + 1)
        outside = float(mean[0]) if area[0] else 0.0
        scores = 1 - np.exp(-np.maximum(mean[keep] - outside, 0) / 0.15)
        return Instances(numbers[labels], scores.astype(np.float32))


def haematoxylin(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Amount of haematoxylin of each pixel of an H x W x 3 RGB image, as optical density."""
    table = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)
    density = table[image]
    weights = _HED_FROM_RGB[:, 0].astype(np.float32)
    return np.asarray(density @ weights, np.float32)
