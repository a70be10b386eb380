"""Whether pixels are fit for nuclei to be found in them: in focus, and stained with H&E."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .measuring import Window

BLOCK_UM = 48.0
"""Side of the blocks that are judged one by one."""

WORK_UM = 0.5
"""Pixel size at which they are judged; half as large ones are averaged to it."""

LEAST_DETAIL = 0.2
"""Energy of fine over that of middle detail below which a block is out of focus.

Blurring takes fine detail first, so the ratio tells a blurred image by itself, as blurring it again
does for Crete et al. (2007, doi 10.1117/12.702790). Detail is what means over squares of optical
density differ by: of 1.5 and 2.5 um for fine, of 2.5 and 4.5 um for middle detail; a stain twice as
strong has four times as much of both. The limit lies where blur begins to cost nuclei
(docs/cells.md)."""

NOISE = (1 / 9 - 1 / 25) / (8 / 9), (1 / 25 - 1 / 81) / (8 / 9)
"""Energy that noise of single pixels adds to fine and to middle detail, over that which it adds to
the finest, which it is taken for: means of n pixels have an n-th of its variance."""

LEAST_STRUCTURE = 0.0005
"""Root mean square of middle detail, in optical density, below which nothing can be told: what is
flat, such as mucus, looks alike in focus and out of it. Tissue has 0.01 and more."""

TISSUE_OD = 0.06
"""Optical density, over 4.5 um, above which a pixel is of tissue."""

LEAST_TISSUE = 0.25
"""Share of a block that must be tissue for it to be judged."""

STRONG_OD = 0.45
"""Optical densities of red, green and blue together, above which a pixel is strongly stained."""

DARKEST_OD = 1.2
"""Optical density above which a channel is too dark for its colour to be told."""

LEAST_STAINED = 5_000
"""Strongly stained pixels, of every fourth, from which on the stain is judged: 0.005 mm2."""

LEAST_BROWN = 0.05
"""Share of brown in what is strongly stained from which on there may be diaminobenzidine."""

PINK_TO_BROWN = 0.2
"""Most pink beside brown; pigment and blood come with eosin, diaminobenzidine does not."""

LEAST_BLUE, MOST_PINK = 0.5, 0.02
"""Shares of blue or green, and of pink, by which haematoxylin is alone or something else."""

_STAINS = ("strong", "brown", "pink", "blue")


@dataclass(frozen=True, slots=True, eq=False)
class PixelBlocks:
    """What the pixels of blocks were like; blocks without enough tissue are not among them."""

    centres: NDArray[np.float64]
    """N x 2, level-0 px."""
    tissue_um2: NDArray[np.float64]
    """Area of tissue; 0 where it is too flat for its focus to be told."""
    blurred: NDArray[np.bool_]
    stains: NDArray[np.int64]
    """N x 4: strongly stained pixels of every second one along x and y; brown, pink, blue ones."""

    def __len__(self) -> int:
        return len(self.centres)

    def choose(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> PixelBlocks:
        """Some of them, by mask or index."""
        return PixelBlocks(
            self.centres[which], self.tissue_um2[which], self.blurred[which], self.stains[which]
        )

    @classmethod
    def join(cls, parts: Iterable[PixelBlocks]) -> PixelBlocks:
        """All blocks of several images."""
        each = [cls.none(), *parts]
        return cls(
            np.concatenate([part.centres for part in each]),
            np.concatenate([part.tissue_um2 for part in each]),
            np.concatenate([part.blurred for part in each]),
            np.concatenate([part.stains for part in each]),
        )

    @classmethod
    def none(cls) -> PixelBlocks:
        """No blocks."""
        flat = np.empty(0, np.float64)
        stains = np.empty((0, len(_STAINS)), np.int64)
        return cls(np.empty((0, 2)), flat, np.empty(0, np.bool_), stains)

    @property
    def out_of_focus_share(self) -> float | None:
        """Of their tissue, as far as it can be told; None where there is none."""
        whole = float(self.tissue_um2.sum())
        return float(self.tissue_um2[self.blurred].sum()) / whole if whole > 0 else None

    @property
    def stain(self) -> StainShares:
        """What they are stained with, all together."""
        strong, *some = (int(count) for count in self.stains.sum(axis=0))
        return StainShares(strong, *(count / strong if strong else 0.0 for count in some))


@dataclass(frozen=True, slots=True)
class StainShares:
    """Colours of strongly stained pixels, by their optical densities of red, green and blue."""

    pixels: int
    """Of every fourth one."""
    brown: float
    """Share that is darkest in blue and not red: diaminobenzidine, melanin, old blood."""
    pink: float
    """Share with red less than 0.6 of green, and blue less than green: eosin."""
    blue: float
    """Share with red more than 0.9 of green: haematoxylin alone, green and blue dyes."""

    @property
    def is_brown(self) -> bool:
        """Whether there is diaminobenzidine, and no eosin beside it."""
        known = self.pixels >= LEAST_STAINED
        return known and self.brown >= LEAST_BROWN and self.pink <= PINK_TO_BROWN * self.brown

    @property
    def is_blue(self) -> bool:
        """Whether there is only blue or green."""
        known = self.pixels >= LEAST_STAINED
        return known and self.blue >= LEAST_BLUE and self.pink <= MOST_PINK

    @property
    def fits_he(self) -> bool | None:
        """Whether it may be haematoxylin and eosin; None where too little is stained."""
        if self.pixels < LEAST_STAINED:
            return None
        return not (self.is_brown or self.is_blue)


def inspect_pixels(
    pixels: NDArray[np.uint8], window: Window, core: tuple[float, float, float, float]
) -> PixelBlocks:
    """Judge the blocks of an H x W x 3 RGB image's core: left, top, right, bottom in level-0 px.

    Colours are held against white glass (255).
    """
    from .quality_kernel import sum_blocks

    scale = np.array(window.scale)
    corners = (np.array(core).reshape(2, 2) - (window.left, window.top)) / scale
    low, high = np.rint(corners).astype(np.int64).clip(0, pixels.shape[1::-1])
    inner = pixels[low[1] : high[1], low[0] : high[0]]
    factor = max(1, round(WORK_UM / float(window.pixel_um.mean())))
    inner = _shrink(inner, factor)
    if not inner.size:
        return PixelBlocks.none()
    size, pixel_um = np.array(inner.shape[1::-1]), window.pixel_um * factor
    columns, rows = np.maximum(1, np.rint(size * pixel_um / BLOCK_UM)).astype(int)
    sums = np.empty((rows, columns, 8), np.int64)
    sum_blocks(inner, *_densities(), sums)
    side = size / (columns, rows)
    y, x = np.mgrid[:rows, :columns] + 0.5
    centres = (np.stack([x, y], 2) * side * factor + low) * scale + (window.left, window.top)
    return _judge(sums, centres, float(side.prod()), float(pixel_um.prod()))


def _judge(
    sums: NDArray[np.int64], centres: NDArray[np.float64], block_px: float, pixel_um2: float
) -> PixelBlocks:
    """Blocks from the sums over each (rows x columns x 8) and its centre (rows x columns x 2)."""
    from .quality_kernel import FINEST, MIDDLE, SCALES, STEPS_PER_OD, STRONG, TISSUE

    enough = sums[..., TISSUE] >= LEAST_TISSUE * block_px
    found = sums[enough]
    tissue = found[:, TISSUE]
    finest, fine, middle = found[:, FINEST : MIDDLE + 1].T / np.square(SCALES)[:, None]
    fine, middle = fine - NOISE[0] * finest, middle - NOISE[1] * finest
    telling = middle >= tissue * (LEAST_STRUCTURE * STEPS_PER_OD) ** 2
    return PixelBlocks(
        centres[enough],
        np.where(telling, tissue * pixel_um2, 0.0),
        telling & (fine < LEAST_DETAIL * middle),
        found[:, STRONG:],
    )


def _shrink(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means of `factor` x `factor` pixels; what is left over at the far edges is dropped."""
    if factor == 1:
        return pixels
    height, width = (side // factor for side in pixels.shape[:2])
    whole = pixels[: height * factor, : width * factor]
    groups = whole.reshape(height, factor, width, factor, 3).sum((1, 3), dtype=np.uint32)
    return np.asarray((groups + factor**2 // 2) // factor**2, np.uint8)


@lru_cache(maxsize=1)
def _densities() -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """Optical density of each value and the limits, as whole numbers; 0 counts as 1."""
    from .quality_kernel import STEPS_PER_OD

    density = -np.log10(np.maximum(np.arange(256), 1) / 255) * STEPS_PER_OD
    tissue, strong, darkest = (
        round(limit * STEPS_PER_OD) for limit in (TISSUE_OD, STRONG_OD, DARKEST_OD)
    )
    return np.rint(density).astype(np.int64), (tissue, strong, darkest)
