"""What training does to tiles so that scanners, stains, JPEG and blank glass do not surprise it.

All randomness comes from the generators passed in.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

# Haematoxylin, eosin and residual in optical density: Ruifrok & Johnston 2001, rows as in
# skimage.color.rgb_from_hed.
_RGB_FROM_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def augment(
    images: NDArray[np.uint8],
    input_px: int,
    rng: np.random.Generator,
    *,
    stain: float = 1.0,
    elastic: float = 0.0,
) -> Tensor:
    """Turn N x H x W x 3 uint8 tiles into randomly altered N x 3 x input_px x input_px in [0, 1].

    Colour first (stain, brightness, contrast, saturation), then optics (blur or sharpening),
    JPEG, noise, and last one affine resampling (quarter turns or any angle, flip, scale, shift)
    straight to the encoder's input size. `stain` is the share of tiles whose colour is altered;
    `elastic` bends half of the tiles by about that share of their side.
    """
    chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # N x 3 x H x W
    if stain:
        altered = shift_colour(shift_stain(x, chance), chance)
        if stain < 1:
            altered = torch.where(_sometimes(len(x), stain, chance) > 0, altered, x)
        x = altered
    x = change_focus(x, chance)
    x = compress(x, rng)
    noise = _uniform(len(x), 0, 0.03, chance) * _sometimes(len(x), 0.2, chance)
    x = x + noise * torch.randn(x.shape, generator=chance)
    x = cover_edge(x.clamp(0, 1), chance)
    return resample(x, input_px, chance, elastic=elastic)


def paint_blank(count: int, size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint `count` tiles without tissue: glass of any shade, gradients, specks, pen strokes."""
    shade = rng.uniform(205, 255, (count, 1, 1, 1)) + rng.normal(0, 4, (count, 1, 1, 3))
    ramp = np.linspace(-1, 1, size_px)
    across, down = ramp[None, :, None], ramp[:, None, None]
    slope = rng.normal(0, 6, (2, count, 1, 1, 1))
    tiles = shade + slope[0] * across + slope[1] * down
    tiles += rng.normal(0, 1, (count, size_px, size_px, 3)) * rng.uniform(0, 4, (count, 1, 1, 1))
    for tile in tiles:
        kind = rng.random()
        if kind < 0.2:  # a pen stroke or another even colour
            tile[:] = rng.uniform(0, 255, 3) + rng.normal(0, 3, tile.shape)
        elif kind < 0.5:  # dust
            for row, column in rng.integers(0, size_px - 3, (rng.integers(1, 8), 2)):
                tile[row : row + rng.integers(1, 4), column : column + rng.integers(1, 4)] *= 0.5
    painted: NDArray[np.uint8] = np.clip(tiles, 0, 255).astype(np.uint8)
    return painted


def shift_stain(x: Tensor, chance: torch.Generator) -> Tensor:
    """Scale and offset each stain's optical density, as batches of stain and scanners do."""
    density = -torch.log(x.clamp(min=1 / 255))  # N x 3 x H x W
    stains = torch.einsum("nchw,cs->nshw", density, torch.linalg.inv(_RGB_FROM_HED))
    shape = (len(x), 3, 1, 1)
    scale = 1 + 0.4 * (torch.rand(shape, generator=chance) - 0.5)
    offset = 0.06 * (torch.rand(shape, generator=chance) - 0.5)
    stains = stains * scale + offset
    return torch.exp(-torch.einsum("nshw,sc->nchw", stains, _RGB_FROM_HED)).clamp(0, 1)


def shift_colour(x: Tensor, chance: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation by up to about 15 %."""
    count = len(x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(count, 0.75, 1.25, chance)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * _uniform(count, 0.85, 1.15, chance)
    return (x * _uniform(count, 0.88, 1.12, chance)).clamp(0, 1)


def change_focus(x: Tensor, chance: torch.Generator) -> Tensor:
    """Blur or sharpen half of the tiles with a separable kernel (k, 1 - 2k, k)."""
    k = _uniform(len(x), -0.1, 0.22, chance) * _sometimes(len(x), 0.5, chance)
    for down, across in ((1, 0), (0, 1)):
        wide = functional.pad(x, (across, across, down, down), mode="replicate")
        before = wide[:, :, : x.shape[2], : x.shape[3]]
        after = wide[:, :, 2 * down :, 2 * across :]
        x = (1 - 2 * k) * x + k * (before + after)
    return x.clamp(0, 1)


def compress(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Pass a third of the tiles through JPEG of quality 40 to 95."""
    chosen = np.flatnonzero(rng.random(len(x)) < 0.33)
    for index in chosen:
        pixels = (x[index].permute(1, 2, 0) * 255).round().byte().numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
        decoded = np.asarray(Image.open(buffer), np.float32) / 255
        x[index] = torch.from_numpy(decoded).permute(2, 0, 1)
    return x


def cover_edge(x: Tensor, chance: torch.Generator) -> Tensor:
    """Cover up to 40 % of one tile in eight with glass, as at the edge of a section."""
    count, _, height, width = x.shape
    angle = _uniform(count, 0, 2 * torch.pi, chance)
    row = torch.linspace(-1, 1, height).view(1, 1, -1, 1)
    column = torch.linspace(-1, 1, width).view(1, 1, 1, -1)
    beyond = column * angle.cos() + row * angle.sin() > _uniform(count, 0.2, 1.2, chance)
    beyond = beyond & (_sometimes(count, 0.125, chance) > 0)
    glass = _uniform(count, 0.82, 1.0, chance)
    return torch.where(beyond, glass, x)


def resample(x: Tensor, input_px: int, chance: torch.Generator, *, elastic: float = 0.0) -> Tensor:
    """Turn, flip, scale, shift and bend each tile while resizing it bilinearly to `input_px`."""
    count = len(x)
    quarter = torch.randint(4, (count, 1, 1, 1), generator=chance) * (torch.pi / 2)
    angle = quarter + _uniform(count, 0, torch.pi / 2, chance) * _sometimes(count, 0.5, chance)
    scale = torch.exp(_uniform(count, -0.15, 0.15, chance))
    mirror = 1 - 2 * _sometimes(count, 0.5, chance)
    cosine, sine = (angle.cos() * scale).flatten(), (angle.sin() * scale).flatten()
    shift = 0.3 * (torch.rand((count, 2), generator=chance) - 0.5)
    flip = mirror.flatten()
    rows = [
        torch.stack([cosine * flip, -sine, shift[:, 0]], 1),
        torch.stack([sine * flip, cosine, shift[:, 1]], 1),
    ]
    grid = functional.affine_grid(
        torch.stack(rows, 1), [count, 3, input_px, input_px], align_corners=False
    )
    if elastic:
        # A coarse random field, smoothed by resizing (Simard, Steinkraus and Platt, ICDAR 2003).
        field = torch.randn((count, 2, 6, 6), generator=chance)
        field = functional.interpolate(field, (input_px, input_px), mode="bicubic")
        bend = 2 * elastic * _sometimes(count, 0.5, chance)
        grid = grid + (bend * field).permute(0, 2, 3, 1)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _uniform(count: int, low: float, high: float, chance: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((count, 1, 1, 1), generator=chance)


def _sometimes(count: int, share: float, chance: torch.Generator) -> Tensor:
    return (torch.rand((count, 1, 1, 1), generator=chance) < share).float()
