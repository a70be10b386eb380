"""Tiles to features as one torch module: the transform the weights expect, backbone, pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .card import EncoderCard


@dataclass(frozen=True, slots=True)
class TileTransform:
    """Resizing with antialiasing and normalisation, done on the device in float32."""

    input_px: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """N x H x W x 3 uint8 -> N x 3 x input_px x input_px float32, normalised."""
        mean = torch.tensor(self.mean, device=images.device)
        return self.apply(images, mean, torch.tensor(self.std, device=images.device))

    def apply(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The same with mean and std, 3 numbers each, already on the device."""
        x = images.permute(0, 3, 1, 2).float() / 255  # N x 3 x H x W
        size = (self.input_px, self.input_px)
        if x.shape[2:] != size:
            x = functional.interpolate(x, size, mode=self.interpolation, antialias=True)
            x = x.clamp(0, 1)  # bicubic overshoots
        return (x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


class TileNetwork(nn.Module):
    """N x H x W x 3 uint8 tiles to N x D float32 features."""

    def __init__(self, backbone: nn.Module, card: EncoderCard) -> None:
        super().__init__()
        self.backbone = backbone
        self.transform = TileTransform(card.input_px, card.interpolation, card.mean, card.std)
        self.pooling = card.pooling
        self.feature_size = card.feature_size
        # Made once: making them in each pass would make a GPU wait for the CPU.
        self.register_buffer("mean", torch.tensor(card.mean), persistent=False)
        self.register_buffer("std", torch.tensor(card.std), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.buffers()).device

    def prepare_images(self, images: Tensor) -> Tensor:
        """N x H x W x 3 uint8 -> N x 3 x P x P float32, normalised."""
        return self.transform.apply(images, self.mean, self.std)  # type: ignore[arg-type]  # buffers are Tensor | Module to mypy

    def extract_features(self, x: Tensor) -> Tensor:
        """N x 3 x P x P normalised -> N x D."""
        return pool(self.backbone, x, self.pooling)

    def forward(self, images: Tensor) -> Tensor:
        """N x H x W x 3 uint8 -> N x D."""
        return self.extract_features(self.prepare_images(images))


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
