"""What a detector says of an image: which pixel belongs to which nucleus, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from slidetriage.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """The nuclei of one image; none overlaps another."""

    labels: NDArray[np.int32]
    """H x W; 0 where there is no nucleus, else its number from 1 to N; each number occurs."""
    scores: NDArray[np.float32]
    """N; how sure the detector is of each, 0 to 1."""

    def __post_init__(self) -> None:
        found = int(self.labels.max(initial=0))
        if found != len(self.scores):
            raise ModelError(f"{found} nuclei are drawn, but {len(self.scores)} have a score")

    def __len__(self) -> int:
        return len(self.scores)


class NucleusDetector(Protocol):
    """Outlines nuclei; the same pixels give the same nuclei whatever else is in the batch."""

    @property
    def name(self) -> str:
        """What it is called in outputs, with its version."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that its result depends on: weights, thresholds, version."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the images that it is made for."""
        ...

    @property
    def margin_px(self) -> int:
        """How far from a nucleus pixels may change its outline."""
        ...

    def detect(self, images: NDArray[np.uint8]) -> list[Instances]:
        """Find the nuclei of B x H x W x 3 RGB images, each by itself."""
        ...
