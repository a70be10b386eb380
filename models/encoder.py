"""Tile encoders: a timm backbone, the transform its weights were made for, and an identifier."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from slidetriage.errors import UsageError

from .card import EncoderCard
from .fields import write_fields

BATCH_TILES = 32
"""Tiles per forward pass; the last pass is padded, so that no result depends on how many follow."""


@dataclass(frozen=True, slots=True)
class TileTransform:
    """Resizing with antialiasing and normalisation, done on the device in float32."""

    input_px: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """N x H x W x 3 uint8 -> N x 3 x input_px x input_px float32, normalised."""
        x = images.permute(0, 3, 1, 2).float() / 255  # N x 3 x H x W
        size = (self.input_px, self.input_px)
        if x.shape[2:] != size:
            x = functional.interpolate(x, size, mode=self.interpolation, antialias=True)
            x = x.clamp(0, 1)  # bicubic overshoots
        mean = torch.tensor(self.mean, device=x.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=x.device).view(1, 3, 1, 1)
        return (x - mean) / std


class TileEncoder:
    """Turns tiles into features, the same bytes whatever else is in the batch.

    The promise of equal bytes holds for one machine, one version of torch and one number of torch
    threads; torch itself promises no more.
    """

    def __init__(
        self, backbone: nn.Module, card: EncoderCard, *, weights_sha256: str, device: str = "cpu"
    ) -> None:
        self.card = card
        self.device = torch.device(device)
        self.identifier = _identify(card, weights_sha256)
        self.backbone = backbone.eval().requires_grad_(False)
        self.backbone.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        self._transform = TileTransform(card.input_px, card.interpolation, card.mean, card.std)

    @property
    def feature_size(self) -> int:
        """D, the length of a tile's feature vector."""
        return self.card.feature_size

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode N x H x W x 3 uint8 RGB tiles, at the scale the weights were made for, to N x D.

        Raises `UsageError` for any other type or shape.
        """
        check_images(images)
        features = np.empty((len(images), self.feature_size), np.float32)
        for start in range(0, len(images), BATCH_TILES):
            part = images[start : start + BATCH_TILES]
            batch = np.zeros((BATCH_TILES, *images.shape[1:]), np.uint8)
            batch[: len(part)] = part
            features[start : start + len(part)] = self._forward(batch)[: len(part)]
        return features

    @torch.inference_mode()
    def _forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = self._transform(torch.from_numpy(batch).to(self.device))  # B x 3 x P x P
        x = x.contiguous(memory_format=torch.channels_last)
        features = pool(self.backbone, x, self.card.pooling)  # B x D
        return features.float().cpu().numpy()


def pool(backbone: nn.Module, x: Tensor, pooling: Literal["default", "class_and_mean"]) -> Tensor:
    """Features of normalised images, B x 3 x P x P -> B x D.

    "class_and_mean" joins the class token and the mean of the patch tokens, leaving registers
    out, as Virchow and Virchow2 are to be used (https://huggingface.co/paige-ai/Virchow2).
    """
    if pooling == "default":
        features: Tensor = backbone(x)  # B x D
        return features
    tokens: Tensor = backbone.forward_features(x)  # type: ignore[operator]  # B x T x D/2; timm's
    prefix = int(backbone.num_prefix_tokens)  # type: ignore[arg-type]  # timm's, not in nn.Module
    return torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], dim=-1)


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
