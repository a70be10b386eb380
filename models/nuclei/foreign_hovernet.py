"""HoVer-Net as TIAToolbox has it: what is nucleus, and how far a pixel lies from its centre.

Graham et al.: HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue
histology images, Medical Image Analysis 2019, https://doi.org/10.1016/j.media.2019.101563.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slidetriage.models.precision import Device

from .foreign_base import ForeignDetector, Image, no_nuclei, number_nuclei, require_finite
from .foreign_card import ForeignCard
from .foreign_toolbox import PublishedNetwork, exact, stitch
from .instances import Instances

_SOBEL_PX = 10
"""TIAToolbox's edge filter looks so far to a side."""


class HoverNetDetector(ForeignDetector):
    """A `NucleusDetector` that runs TIAToolbox's HoVer-Net and its own post-processing.

    An image is seen in patches of 256 or 270 px, reflected beyond its edges, of which the middle
    164 or 80 px count. A score is the mean probability of nucleus within the outline. Classes of
    nuclei (the branch `tp`) are left out, since a `NucleusDetector` gives none. The post-processing
    stretches both distance maps over the whole image, so outlines in two images that share a
    nucleus may differ a little, as they do in TIAToolbox.
    """

    def __init__(
        self,
        card: ForeignCard,
        published: PublishedNetwork,
        network: Any,
        *,
        identity: str,
        device: Device,
    ) -> None:
        super().__init__(card, identity=identity, least_margin_px=published.margin_px + _SOBEL_PX)
        self._published, self._device = published, device.name
        self._network = network.to(device.name)
        self._turn = threading.Lock()

    def compute_maps(self, image: Image) -> NDArray[np.float32]:
        """H x W x 3 of an H x W x 3 RGB image: probability, horizontal and vertical distance."""
        maps = stitch(image, self._published, self._run)
        require_finite(maps, self.name)
        return maps

    def decode(self, maps: NDArray[np.float32]) -> Instances:
        """Nuclei of H x W x 3 maps, by TIAToolbox's post-processing."""
        inside = maps[..., 0]
        if not (inside >= 0.5).any():
            return no_nuclei(np.empty((*inside.shape, 3), np.uint8))
        with warnings.catch_warnings():
            # scikit-image warns where there is one nucleus only.
            warnings.simplefilter("ignore", UserWarning)
            labels = np.asarray(self._network._proc_np_hv(maps[..., :1], maps[..., 1:]), np.int32)
        count = int(labels.max()) + 1
        areas = np.bincount(labels.ravel(), minlength=count)
        sums = np.bincount(labels.ravel(), inside.ravel(), count)
        return number_nuclei(labels, (sums / np.maximum(areas, 1))[1:].astype(np.float32))

    def _find(self, image: Image) -> Instances:
        with self._turn:
            return self.decode(self.compute_maps(image))

    def _run(self, patch: Image) -> NDArray[np.float32]:
        with exact():
            found = self._network.infer_batch(
                self._network, torch.from_numpy(patch)[None], device=self._device
            )
        return np.concatenate([found[0][0], found[1][0]], axis=2).astype(np.float32)
