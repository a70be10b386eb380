"""InstanSeg: a network that ends in instance labels.

Goldsborough et al.: InstanSeg: an embedding-based instance segmentation algorithm optimized for
accurate, efficient and portable cell segmentation, 2024, https://arxiv.org/abs/2408.15954.
"""

from __future__ import annotations

import numpy as np

from .foreign_base import ForeignDetector, Image, normalise, number_nuclei, pad, require_finite
from .foreign_card import ForeignCard
from .foreign_network import ImageNetwork, OnnxNetwork, refuse_outputs
from .instances import Instances

_LEAST_PX = 128
"""Smaller images are padded: published networks cut windows of 64 px around each seed."""

_LEAST_MARGIN_PX = 64
"""Of TorchScript, of which cannot be told how far it looks: two windows' half sides."""


class InstanSegDetector(ForeignDetector):
    """A `NucleusDetector` that runs an InstanSeg network exported to TorchScript or ONNX.

    It takes 1 x 3 x H x W and gives 1 x C x H x W labels; published networks have nuclei in channel
    0 and, if any, cells in channel 1. They are normalised by the percentiles 0.1 and 99.9 of each
    channel. The network gives no probability of a nucleus, so each score is 1.
    """

    def __init__(self, card: ForeignCard, network: ImageNetwork, *, identity: str) -> None:
        known = isinstance(network, OnnxNetwork)
        reach_px = network.reach_px if isinstance(network, OnnxNetwork) else 0
        super().__init__(
            card, identity=identity, least_margin_px=reach_px if known else _LEAST_MARGIN_PX
        )
        assert card.instanseg is not None  # the card has the settings of its kind
        self._settings = card.instanseg
        self._network = network
        if isinstance(network, OnnxNetwork) and len(network.channels) != 1:
            raise refuse_outputs(card.file, f"{len(network.channels)} outputs", "one, of labels")

    def _find(self, image: Image) -> Instances:
        settings = self._settings
        x = pad(
            normalise(image, settings.normalisation),
            multiple=settings.divisible_by,
            least=_LEAST_PX,
        )
        height, width = x.shape[:2]
        (maps,) = self._network(x)
        if maps.shape[:2] != (height, width) or maps.shape[2] <= settings.channel:
            found = f"an output of {maps.shape} for an image of {(height, width)}"
            raise refuse_outputs(self.card.file, found, "labels of the image's size")
        require_finite(maps, self.name)
        drawn = maps[: image.shape[0], : image.shape[1], settings.channel]
        if drawn.min() < 0 or drawn.max() > 2**24 or (drawn != np.rint(drawn)).any():
            raise refuse_outputs(self.card.file, "numbers that are no labels", "labels from 0 on")
        names, order = np.unique(np.append(0, drawn.ravel()), return_inverse=True)
        labels = order[1:].reshape(drawn.shape).astype(np.int32)
        return number_nuclei(labels, np.ones(len(names) - 1, np.float32))
