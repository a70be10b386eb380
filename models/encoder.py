"""Tile encoders: a timm backbone, the transform its weights were made for, and an identifier."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slidetriage.errors import UsageError

from .card import EncoderCard
from .fields import write_fields
from .precision import Device, RuntimeChoice
from .runtime import Runtime, Scorer
from .tile_network import TileNetwork


class TileEncoder:
    """Turns tiles into features, the same bytes whatever else is in the batch.

    The promise of equal bytes holds for one machine, one version of torch and OpenVINO, one
    number of threads and one `choice` of runtime; the libraries themselves promise no more.
    """

    def __init__(
        self,
        backbone: nn.Module,
        card: EncoderCard,
        *,
        weights_sha256: str,
        device: str | Device = "cpu",
    ) -> None:
        wish = Device.of(device)
        self.card = card
        self.device = torch.device(wish.name)
        self.identifier = _identify(card, weights_sha256)
        self.backbone = backbone
        network = TileNetwork(backbone, card).eval().requires_grad_(False)
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self._runtime = Runtime(network, wish, name=self.identifier)

    @property
    def feature_size(self) -> int:
        """D, the length of a tile's feature vector."""
        return self.card.feature_size

    @property
    def choice(self) -> RuntimeChoice | None:
        """What computes the features; None as long as nothing is prepared."""
        return self._runtime.choice

    def prepare(
        self, height_px: int, width_px: int, *, score: Scorer | None = None
    ) -> RuntimeChoice:
        """Make ready for tiles of this size: compile, and compare with torch in float32.

        `encode` does it when needed; the weights are taken as they are at that time. With
        `score`, from N x D features to N probabilities, these are compared as well.
        """
        return self._runtime.prepare((height_px, width_px), score=score)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode N x H x W x 3 uint8 RGB tiles, at the scale the weights were made for, to N x D.

        Raises `UsageError` for any other type or shape, and `ModelError` (E_OUT_OF_MEMORY) if
        memory does not suffice for one tile.
        """
        check_images(images)
        if len(images) == 0:
            return np.empty((0, self.feature_size), np.float32)
        return self._runtime.run(images)


def check_images(images: NDArray[np.uint8]) -> None:
    """Raise `UsageError` unless `images` are N x H x W x 3 of uint8."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise UsageError(
            f"Tiles must be a NumPy array of uint8, not {kind}.",
            mend="Pass RGB values 0 to 255, e.g. np.asarray(image, np.uint8).",
        )
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise UsageError(
            f"Tiles must be N x height x width x 3, not {images.shape}.",
            mend="Pass RGB without alpha; one tile alone is tile[None].",
        )


def _identify(card: EncoderCard, weights_sha256: str) -> str:
    rest = json.dumps(write_fields(card), sort_keys=True)
    return f"{card.name}-{weights_sha256}-{hashlib.sha256(rest.encode()).hexdigest()[:16]}"
