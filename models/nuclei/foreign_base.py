"""What other people's detectors have in common: who they are, and images one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import cv2
import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError

from .foreign_card import ForeignCard, Normalisation
from .instances import Instances

Image = NDArray[np.uint8]
"""H x W x 3 RGB."""


class ForeignDetector(ABC):
    """A `NucleusDetector` from a folder with `detector.json`; threads may share it.

    Its margin is that of the card, or `least_margin_px` where that is more.
    """

    def __init__(self, card: ForeignCard, *, identity: str, least_margin_px: int) -> None:
        self.card = card
        self._identity = identity
        self._least_margin_px = least_margin_px

    @property
    def name(self) -> str:
        """What it is called in outputs, with its version."""
        return f"{self.card.name}-{self.card.version}"

    @property
    def identity(self) -> str:
        """Hash of `detector.json` and of the file that it names."""
        return self._identity

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the images that it is made for."""
        return self.card.mpp

    @property
    def margin_px(self) -> int:
        """How far from a nucleus pixels may change its outline."""
        return max(self.card.margin_px, self._least_margin_px)

    def detect(self, images: NDArray[np.uint8]) -> list[Instances]:
        """Find the nuclei of B x H x W x 3 RGB images, each by itself.

        Raises `UsageError` for other arrays, and `ModelError` where the network fails or gives
        something else than its kind does.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise UsageError(
                f"Nuclei are sought in B x H x W x 3 bytes, not {images.dtype} {images.shape}."
            )
        return [self._find(image) if image.size else no_nuclei(image) for image in images]

    @abstractmethod
    def _find(self, image: Image) -> Instances:
        """The nuclei of H x W x 3, at least one pixel."""


def no_nuclei(image: Image) -> Instances:
    """What is found where nothing is."""
    return Instances(np.zeros(image.shape[:2], np.int32), np.zeros(0, np.float32))


def number_nuclei(labels: NDArray[np.int32], scores: NDArray[np.float32]) -> Instances:
    """Instances of H x W labels; `scores[i]` is of the label i + 1, labels without pixels go."""
    present = np.bincount(labels.ravel(), minlength=len(scores) + 1)[1:] > 0
    numbers = np.zeros(len(scores) + 1, np.int32)
    numbers[1:][present] = np.arange(1, np.count_nonzero(present) + 1)
    return Instances(numbers[labels], scores[present].astype(np.float32))


def normalise(image: Image, how: Normalisation) -> NDArray[np.float32]:
    """H x W x 3, 0 to 1 for what lies between the two grey values; nothing is clipped.

    Percentiles are those of csbdeep's and InstanSeg's `normalize`.
    """
    if how.percentiles is not None:
        axes = (0, 1) if how.per_channel else None
        low, high = np.percentile(image, how.percentiles, axis=axes)
    else:
        assert how.scale is not None  # the card has one of them
        low, high = np.asarray(how.scale)
    spread = np.maximum(np.asarray(high) - low, 1e-3)
    return np.asarray((image - low) / spread, np.float32)


def pad(x: NDArray[np.float32], *, multiple: int, least: int = 1) -> NDArray[np.float32]:
    """Reflected below and on the right to multiples of `multiple`, at least `least`."""
    height, width = x.shape[:2]
    below = -(-max(height, least) // multiple) * multiple - height
    right = -(-max(width, least) // multiple) * multiple - width
    return np.pad(x, ((0, below), (0, right), (0, 0)), mode="reflect")


def require_finite(maps: NDArray[np.float32], where: str) -> None:
    """Raise `ModelError` (E_MODEL_NAN) where a network gave what is no number."""
    if not np.isfinite(maps).all():
        raise ModelError(
            f"{where} met impossible numbers in its output.",
            mend="Check the model; these results must not be used.",
            code="E_MODEL_NAN",
        )


def reflect_around(image: Image, before: int, below: int, right: int) -> Image:
    """The image with `before` px reflected above and on the left, and more below and right."""
    reflected = cv2.copyMakeBorder(image, before, below, before, right, cv2.BORDER_REFLECT_101)
    return np.asarray(reflected, np.uint8)
