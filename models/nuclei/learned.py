"""The default detector: a small network that was trained here and comes with slidetriage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.errors import ModelError, UsageError
from slidetriage.models.precision import Device, RuntimeChoice
from slidetriage.models.weights import fill

from .detector_card import DetectorCard, read_detector
from .instances import Instances
from .map_runners import LazyRunner
from .network import STRIDE, NucleusNetwork

DEFAULT_DETECTOR = "nuclei-he"

_SHIPPED = Path(__file__).parents[1] / "detectors"


class LearnedDetector:
    """A `NucleusDetector` that runs a `NucleusNetwork`.

    Images are looked at one by one, so nothing depends on the batch. Where a tile's corner lies on
    a multiple of 16 px of the same grid, a nucleus farther than `margin_px` from the tile's edges
    is outlined alike in every tile that holds it.
    """

    def __init__(
        self, card: DetectorCard, network: NucleusNetwork, *, identity: str, device: str | Device
    ) -> None:
        self.card = card
        self._identity = identity
        self._runner = LazyRunner(network.eval().requires_grad_(False), Device.of(device))

    @property
    def name(self) -> str:
        """What it is called in outputs, with its version."""
        return f"{self.card.name}-{self.card.version}"

    @property
    def identity(self) -> str:
        """Hash of card and weights."""
        return self._identity

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the images that it is made for."""
        return self.card.mpp

    @property
    def margin_px(self) -> int:
        """How far from a nucleus pixels may change its outline."""
        return self.card.margin_px

    @property
    def grid_px(self) -> int:
        """Corners of tiles that are to agree lie on multiples of this."""
        return STRIDE

    @property
    def runtime(self) -> RuntimeChoice:
        """What computes the maps and how far that drifts from torch in float32."""
        return self._runner.choose().choice

    def detect(self, images: NDArray[np.uint8]) -> list[Instances]:
        """Find the nuclei of B x H x W x 3 RGB images, each by itself."""
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise UsageError(
                f"Nuclei are sought in B x H x W x 3 bytes, not {images.dtype} {images.shape}."
            )
        return [self.card.decoding.decode(*self.compute_maps(image)) for image in images]

    def compute_maps(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """2 x H x W of an H x W x 3 RGB image: inside and depth, 0 to 255."""
        height, width = image.shape[:2]
        if not (height and width):
            return np.zeros((2, height, width), np.uint8)
        below, right = -height % STRIDE, -width % STRIDE
        padded = image
        if below or right:
            reflected = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
            padded = np.asarray(reflected, np.uint8)
        return self._runner(padded)[:, :height, :width]


def list_detectors() -> tuple[str, ...]:
    """Names of the detectors that come with slidetriage, sorted."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob("*/card.json")))


def load_detector(
    name_or_path: str | Path = DEFAULT_DETECTOR, *, device: str | Device = "cpu"
) -> LearnedDetector:
    """Load a detector by the name of a shipped one or by its directory.

    Raises `ModelError` where card or weights are not what they should be.
    """
    directory = Path(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in list_detectors():
        directory = _SHIPPED / name_or_path
    elif not directory.is_dir():
        raise ModelError(
            f"There is no nucleus detector {str(name_or_path)!r}.",
            mend=f"Give a directory, or one of: {', '.join(list_detectors())}.",
        )
    card, weights, identity = read_detector(directory)
    with torch.random.fork_rng(devices=[]):
        network = NucleusNetwork(card.widths)
    fill(network, weights.tensors, where=card.weights.file)
    return LearnedDetector(card, network, identity=identity, device=device)
