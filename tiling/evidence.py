"""What speaks for tissue at each pixel: chroma and texture above those of the slide's glass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from .regions import Bools, Um

Floats = NDArray[np.float32]

PLAIN = 0.004
"""Texture below which a spot may be glass."""
REDDISH = 0.003
"""Redder than the commonest glass by more, a spot is no measure of glass: faint eosin."""
GLASS_UM = 1500.0
"""Glass changes its tint over millimetres (mounted, dry, under the label's edge)."""
NEUTRAL = 0.2
"""Chroma per density that a grey or black edge shows through lens colour and rounding."""
DENSITY_FREE = 0.2
"""Thinner than this nothing is held against a pixel: fat is as thin."""
LARGEST_NOISE = 0.015
"""Chroma that is at most taken for noise of the glass."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Float32 images at working scale."""

    chroma: Floats
    """Largest difference of the channels' log intensities, less the glass's and its noise."""
    texture: Floats
    """How far a pixel is darker than its surroundings (32 um), in log units, at most 0.05."""
    density: Floats
    """H x W x 3: optical density (natural log) above the glass."""


class WeightedBlur:
    """Gaussian blur of what was scanned; what was not weighs nothing."""

    def __init__(self, whole: Bools, um: Um) -> None:
        self.whole = whole
        self.um = um
        self._weights: dict[float, Floats] = {}

    def __call__(self, values: Floats, sigma_um: float) -> Floats:
        """Mean of `values` around each pixel by a Gaussian of `sigma_um`."""
        if sigma_um not in self._weights:
            weight = self._blur(self.whole.astype(np.float32), sigma_um)
            self._weights[sigma_um] = np.maximum(weight, np.float32(1e-3))
        total = self._blur(np.where(self.whole, values, np.float32(0)), sigma_um)
        return total / self._weights[sigma_um]

    def _blur(self, values: Floats, sigma_um: float) -> Floats:
        sigma_px = (sigma_um / self.um[1], sigma_um / self.um[0])
        return np.asarray(ndi.gaussian_filter(values, sigma_px, truncate=3.0), np.float32)


class _Glass(NamedTuple):
    """Log intensity of the glass, and the places it was seen at."""

    red_green: float
    blue_green: float
    light: float
    seen: Bools


def measure_stain(rgb: NDArray[np.uint8], blur: WeightedBlur) -> Evidence:
    """Measure chroma, texture and density against the glass found on the same image.

    Where no glass is found (a block of nothing but tissue) it is taken for pure white.
    """
    log = np.log((rgb.astype(np.float32) + 8) / 263)  # 8 keeps the noise of black out
    light = log.mean(-1)
    texture = np.where(blur.whole, np.clip(blur(light, 32) - light, 0, 0.05), np.float32(0))
    red, green, blue = (blur(log[..., k], 8) for k in range(3))
    tints = np.stack([red - green, blue - green])  # 2 x H x W
    glass = _find_glass(tints, light, blur(texture, 24) < PLAIN, blur.whole)
    tints -= np.array([glass.red_green, glass.blue_green], np.float32)[:, None, None]
    near = glass.seen & (np.hypot(*tints) < 0.03) & (blur(tints[0], 48) < REDDISH)
    tints -= np.stack([_local_mean(tint, near, blur.um) for tint in tints])
    chroma = np.maximum(tints.max(0), 0) - np.minimum(tints.min(0), 0)
    noise = min(LARGEST_NOISE, float(np.median(chroma[near]))) if near.any() else 0.0
    grey = NEUTRAL * np.maximum(glass.light - light - DENSITY_FREE, 0)
    base = np.array([glass.red_green, 0.0, glass.blue_green]) + glass.light
    return Evidence(
        chroma=np.maximum(chroma - noise - grey, 0).astype(np.float32),
        texture=texture.astype(np.float32),
        density=(base - log).astype(np.float32),
    )


def _find_glass(tints: Floats, light: Floats, plain: Bools, whole: Bools) -> _Glass:
    """The commonest tint among bright, nearly neutral and plain pixels, if there are enough."""
    seen = whole & plain & (light > -0.4) & (np.abs(tints) < 0.06).all(0)
    if np.count_nonzero(seen) <= 0.002 * np.count_nonzero(whole):
        return _Glass(0.0, 0.0, 0.0, np.zeros_like(seen))
    edges = np.linspace(-0.06, 0.06, 61)
    counts, _, _ = np.histogram2d(tints[0][seen], tints[1][seen], bins=(edges, edges))
    counts = ndi.gaussian_filter(counts, 1)
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    centres = (edges[:-1] + edges[1:]) / 2
    return _Glass(float(centres[row]), float(centres[column]), float(np.median(light[seen])), seen)


def _local_mean(tint: Floats, glass: Bools, um: Um) -> Floats:
    """Tint of the glass around each pixel, zero far from any; computed at an eighth of the size."""
    height, width = tint.shape
    size = (max(1, width // 8), max(1, height // 8))
    sigma_px = (GLASS_UM / um[1] * size[1] / height, GLASS_UM / um[0] * size[0] / width)

    def spread(values: Floats) -> Floats:
        few = Image.fromarray(values).resize(size, Image.Resampling.BOX)
        return np.asarray(ndi.gaussian_filter(np.asarray(few), sigma_px, mode="constant"))

    weight = glass.astype(np.float32)
    mean = spread(weight * tint) / (spread(weight) + np.float32(0.02))
    whole = Image.fromarray(mean).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(whole)
