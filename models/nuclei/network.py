"""A small U-Net: H&E pixels to where nuclei are, and how deep within its nucleus each pixel lies.

Every operation looks at a bounded neighbourhood (no global pooling, no normalisation over the
image), so a pixel's answer depends on its surroundings only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slidetriage.models.lean_timm import timm

STRIDE = 16
"""Height and width of what the network is given are multiples of this."""

_ENCODER = "mobilenetv2_100"
_STAGES = (1, 2, 3, 5)
"""After how many blocks of the encoder the strides 2, 4, 8 and 16 are complete."""
_SKIPS = (16, 24, 32, 96)
_BLOCKS = 5


class NucleusNetwork(nn.Module):
    """N x H x W x 3 uint8 images to N x 2 x H x W logits of two maps.

    The first map says whether a pixel is nucleus. The second is b / (b + c) within a nucleus, b
    the distance to its border and c to its centre, and 0 elsewhere: 1 at the centre, falling
    along every ray, whatever the size. A U-Net (Ronneberger et al., MICCAI 2015) on the first
    five stages of MobileNetV2 (Sandler et al., CVPR 2018); the last upsampling is by sub-pixel
    convolution (Shi et al., CVPR 2016), joined by the pixels themselves.
    """

    def __init__(self, widths: tuple[int, int, int] = (96, 64, 32)) -> None:
        super().__init__()
        whole: Any = timm.create_model(_ENCODER, num_classes=0, pad_type="same")
        self.stem, self.stem_norm = whole.conv_stem, whole.bn1
        self.blocks = whole.blocks[:_BLOCKS]
        below = _SKIPS[-1]
        joins = []
        for width, skip in zip(widths, reversed(_SKIPS[:-1]), strict=True):
            joins.append(_Join(below, skip, width))
            below = width
        self.joins = nn.ModuleList(joins)
        self.last = _convolve(below + 12, below)
        self.maps = nn.Conv2d(below, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        """N x H x W x 3 uint8 -> N x 2 x H x W; H and W multiples of 16."""
        return self.compute_maps(prepare_images(images))

    def compute_maps(self, x: Tensor) -> Tensor:
        """N x 3 x H x W, -1 to 1 -> N x 2 x H x W logits."""
        pixels = functional.pixel_unshuffle(x, 2)  # N x 12 x H/2 x W/2
        x = self.stem_norm(self.stem(x))  # N x 32 x H/2 x W/2
        skips = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in _STAGES:
                skips.append(x)
        x = skips.pop()  # N x 96 x H/16 x W/16
        for join in self.joins:
            x = join(x, skips.pop())  # to N x 32 x H/2 x W/2
        x = self.last(torch.cat([x, pixels], 1))
        return functional.pixel_shuffle(self.maps(x), 2)  # N x 2 x H x W

    def encoder_state(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of timm's weights of the whole encoder that this network has, by its names."""
        names = {"conv_stem.": "stem.", "bn1.": "stem_norm."}
        names |= {f"blocks.{n}.": f"blocks.{n}." for n in range(_BLOCKS)}
        return {
            ours + name.removeprefix(theirs): tensor.float()
            for name, tensor in tensors.items()
            for theirs, ours in names.items()
            if name.startswith(theirs)
        }


def prepare_images(images: Tensor) -> Tensor:
    """N x H x W x 3 uint8 -> N x 3 x H x W, -1 to 1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


class _Join(nn.Module):
    """Doubles the size, joins what the encoder knew at that size, and convolves twice."""

    def __init__(self, below: int, skip: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(below, width, 1)
        self.first = _convolve(width + skip, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            _convolve(width, width, side=1),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """N x below x h x w and N x skip x 2h x 2w -> N x width x 2h x 2w."""
        x = functional.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        x = self.first(torch.cat([x, skip], 1))
        joined: Tensor = x + self.second(x)
        return joined


def _convolve(incoming: int, width: int, *, side: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, width, side, padding=side // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
    )
