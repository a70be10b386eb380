"""What speaks for tissue at each pixel: chroma and texture above those of the slide's glass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from .bands import Band, cut_bands
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


TRUNCATE = 3.0
"""Standard deviations at which a Gaussian ends."""


class Scene(NamedTuple):
    """A slide at working scale."""

    rgb: NDArray[np.uint8]
    whole: Bools
    """What was scanned; evidence comes from nowhere else."""
    um: Um


@dataclass(frozen=True, slots=True, eq=False)
class Glass:
    """What a slide looks like where there is no tissue; pure white if no such place was found."""

    red_green: float = 0.0
    """Log intensity of red less that of green, of the commonest glass."""
    blue_green: float = 0.0
    light: float = 0.0
    """Mean log intensity of the channels."""
    drift: Floats | None = None
    """2 x rows x columns at an eighth of the size: what the tint is beyond, around each place."""
    noise: float = 0.0
    """Chroma that the glass itself shows."""

    def density(self, rgb: NDArray[np.uint8]) -> Floats:
        """Optical density (natural log) above the glass: H x W x 3."""
        base = np.array([self.red_green, 0.0, self.blue_green]) + self.light
        return (base - _log(rgb)).astype(np.float32)


class WeightedBlur:
    """Gaussian blur of what was scanned; what was not weighs nothing."""

    def __init__(self, whole: Bools, um: Um) -> None:
        self._whole = whole
        self._all = bool(whole.all())
        self._um = um
        self._weights: dict[float, Floats] = {}

    def __call__(self, values: Floats, sigma_um: float) -> Floats:
        """Mean of `values` around each pixel by a Gaussian of `sigma_um`."""
        if sigma_um not in self._weights:
            # Where all was scanned every pixel has the same weight, so one is enough.
            whole = np.ones((1, 1), np.float32) if self._all else self._whole.astype(np.float32)
            self._weights[sigma_um] = np.maximum(self._blur(whole, sigma_um), np.float32(1e-3))
        known = values if self._all else np.where(self._whole, values, np.float32(0))
        return self._blur(known, sigma_um) / self._weights[sigma_um]

    def _blur(self, values: Floats, sigma_um: float) -> Floats:
        sigma_px = (sigma_um / self._um[1], sigma_um / self._um[0])
        return np.asarray(ndi.gaussian_filter(values, sigma_px, truncate=TRUNCATE), np.float32)


class Evidence(NamedTuple):
    """Float32 images of a band with its halo."""

    chroma: Floats
    """Largest difference of the channels' log intensities, less the glass's and its noise."""
    texture: Floats
    """How far a pixel is darker than its surroundings (32 um), in log units, at most 0.05."""
    blur: WeightedBlur


def measure_glass(scene: Scene) -> Glass:
    """Find the glass that evidence is measured against.

    Where none is found (a block of nothing but tissue) it is taken for pure white.
    """
    glass, seen = _find_commonest(scene)
    if seen.any():
        glass, near = _follow_drift(scene, glass, seen)
        if near.any():
            chroma = (
                _chroma(view.tints)[view.band.core][near[view.band.rows]]
                for view in _iterate_views(scene, glass)
            )
            noise = _median(chroma, int(np.count_nonzero(near)))
            glass = replace(glass, noise=min(LARGEST_NOISE, noise))
    return glass


def iterate_evidence(
    scene: Scene, glass: Glass, *, blur_um: float
) -> Iterator[tuple[Band, Evidence]]:
    """What speaks for tissue, band by band; blurred by up to `blur_um` it is right in the core."""
    for view in _iterate_views(scene, glass, 32, blur_um):
        light = view.log.mean(-1)
        grey = NEUTRAL * np.maximum(glass.light - light - DENSITY_FREE, 0)
        chroma = np.maximum(_chroma(view.tints) - glass.noise - grey, 0).astype(np.float32)
        texture = _texture(light, scene.whole[view.band.wide], view.blur)
        yield view.band, Evidence(chroma, texture, view.blur)


class _View(NamedTuple):
    """A band with its halo."""

    band: Band
    log: Floats
    """H x W x 3."""
    tints: Floats
    """2 x H x W: log of red and of blue less that of green, less the glass's."""
    blur: WeightedBlur


def _iterate_views(scene: Scene, glass: Glass, *sigmas_um: float) -> Iterator[_View]:
    """Bands whose halo suits Gaussians of `sigmas_um` one after the other."""
    rgb, whole, um = scene
    reach = sum(int(TRUNCATE * sigma / um[1] + 0.5) for sigma in sigmas_um or (8,))
    for band in cut_bands(whole.shape, halo=reach):
        blur, log = WeightedBlur(whole[band.wide], um), _log(rgb[band.wide])
        red, green, blue = (blur(log[..., k], 8) for k in range(3))
        tints = np.stack([red - green, blue - green])
        tints -= np.array([glass.red_green, glass.blue_green], np.float32)[:, None, None]
        if glass.drift is not None:
            for tint, drift in zip(tints, glass.drift, strict=True):
                tint -= _enlarge(drift, whole.shape, band.wide)
        yield _View(band, log, tints, blur)


def _log(rgb: NDArray[np.uint8]) -> Floats:
    log = rgb.astype(np.float32)
    log += 8  # keeps the noise of black out
    log /= 263
    return np.log(log, out=log)


def _chroma(tints: Floats) -> Floats:
    return np.asarray(np.maximum(tints.max(0), 0) - np.minimum(tints.min(0), 0))


def _texture(light: Floats, whole: Bools, blur: WeightedBlur) -> Floats:
    return np.where(whole, np.clip(blur(light, 32) - light, 0, 0.05), np.float32(0))


def _find_commonest(scene: Scene) -> tuple[Glass, Bools]:
    """The commonest tint among bright, nearly neutral and plain pixels, and where these are.

    Nowhere if they are too few.
    """
    seen = np.zeros_like(scene.whole)
    edges = np.linspace(-0.06, 0.06, 61)
    counts = np.zeros(60 * 60)

    def iterate_light() -> Iterator[Floats]:
        for band, log, tints, blur in _iterate_views(scene, Glass(), 32, 24):
            light, whole, core = log.mean(-1), scene.whole[band.wide], band.core
            plain = blur(_texture(light, whole, blur), 24) < PLAIN
            few = whole & plain & (light > -0.4) & (np.abs(tints) < 0.06).all(0)
            seen[band.rows] = here = few[core]
            row, column = (np.searchsorted(edges, tint[core][here], "right") - 1 for tint in tints)
            counts[:] += np.bincount(60 * row + column, minlength=60 * 60)
            yield light[core][here]

    light = _median(iterate_light(), int(np.count_nonzero(scene.whole)))
    if np.count_nonzero(seen) <= 0.002 * np.count_nonzero(scene.whole):
        return Glass(), np.zeros_like(seen)
    smooth = ndi.gaussian_filter(counts.reshape(60, 60), 1)
    row, column = np.unravel_index(smooth.argmax(), smooth.shape)
    centres = (edges[:-1] + edges[1:]) / 2
    return Glass(float(centres[row]), float(centres[column]), light), seen


def _follow_drift(scene: Scene, glass: Glass, seen: Bools) -> tuple[Glass, Bools]:
    """The glass with its drift, and where it is glass for certain."""
    height, width = seen.shape
    columns, rows = max(1, width // 8), max(1, height // 8)
    near, narrow = np.zeros_like(seen), np.empty((3, height, columns), np.float32)
    for band, _, tints, blur in _iterate_views(scene, glass, 8, 48):
        plain = (np.hypot(*tints) < 0.03) & (blur(tints[0], 48) < REDDISH)
        near[band.rows] = seen[band.rows] & plain[band.core]
        weight = near[band.rows].astype(np.float32)
        for out, values in zip(narrow, (1, *tints[:, band.core]), strict=True):
            part = Image.fromarray(weight * values)
            out[band.rows] = part.resize((columns, part.height), Image.Resampling.BOX)
    sigma_px = (
        GLASS_UM / scene.um[1] * rows / height,
        GLASS_UM / scene.um[0] * columns / width,
    )
    weight, *tint_sums = (
        ndi.gaussian_filter(
            np.asarray(Image.fromarray(values).resize((columns, rows), Image.Resampling.BOX)),
            sigma_px,
            mode="constant",
        )
        for values in narrow
    )
    # Far from any glass there is no drift.
    drift = np.stack([tint / (weight + np.float32(0.02)) for tint in tint_sums])
    return replace(glass, drift=drift), near


def _enlarge(few: Floats, shape: tuple[int, ...], part: slice) -> Floats:
    """Some rows of `few` enlarged to an image of `shape`."""
    step = few.shape[0] / shape[0]
    box = (0, part.start * step, few.shape[1], part.stop * step)
    size = (shape[1], part.stop - part.start)
    return np.asarray(Image.fromarray(few).resize(size, Image.Resampling.BILINEAR, box=box))


def _median(parts: Iterable[Floats], most: int) -> float:
    """The median of all parts together, at `most` so many numbers; NaN of none."""
    values, count = np.empty(most, np.float32), 0
    for part in parts:
        values[count : count + len(part)] = part
        count += len(part)
    return float(np.median(values[:count], overwrite_input=True)) if count else float("nan")
