"""Smooth fields over the phantom slide: kept on a coarse grid, evaluated at any point or scale."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from shapely import contains_xy, get_coordinates, get_parts, prepare, segmentize
from shapely.geometry import MultiPolygon, Polygon

Floats = NDArray[np.float32]

SPACING_UM = 8.0
"""Distance of the grid's nodes: cords of carcinoma are 3 to 8 of these wide."""

_PAD = 6
"""Nodes past each edge, so that a spline at the edge finds its neighbours."""

_EXACT_PX = 1400
"""Up to here a distance that is off by its last bit has a square that is off by less than half."""

_NOWHERE_PX = 1e6


class Field(IntEnum):
    """The scene's fields, in the order they are stacked; distances are in micrometres."""

    TISSUE = 0
    """Distance to the tissue's outline, positive inside."""
    FAT = 1
    """The same to the border of adipose tissue."""
    TUMOUR = 2
    NEST = 3
    """The same to the border of a nest of tumour cells, within the tumour."""
    LOBULE = 4
    ALONG = 5
    """Place along the collagen fibres."""
    ACROSS = 6
    """Place across them: a fibre is a line on which this is constant."""
    TONE = 7
    """How deeply eosin has stained, mean 0 and sd 1."""
    LOOSE = 8
    """How loose the stroma is, mean 0 and sd 1."""
    GLAND = 9
    """Distance to the outer border of the nearest duct or acinus, positive inside."""
    PEN = 10
    BLUR = 11


@dataclass(frozen=True, slots=True)
class FieldGrid:
    """Nodes `SPACING_UM` apart over the slide and a little past it."""

    rows: int
    columns: int

    @classmethod
    def over(cls, width_um: float, height_um: float) -> FieldGrid:
        """The grid for a slide of this size."""
        return cls(
            ceil(height_um / SPACING_UM) + 2 * _PAD + 1, ceil(width_um / SPACING_UM) + 2 * _PAD + 1
        )

    @property
    def x_um(self) -> Floats:
        """Where the columns of nodes stand."""
        return ((np.arange(self.columns) - _PAD) * SPACING_UM).astype(np.float32)

    @property
    def y_um(self) -> Floats:
        """Where the rows of nodes stand."""
        return ((np.arange(self.rows) - _PAD) * SPACING_UM).astype(np.float32)

    def noise(self, rng: np.random.Generator, sigma_um: float) -> Floats:
        """Gaussian noise of mean 0 and sd 1, smooth over `sigma_um`."""
        return periodic_noise(rng, (self.rows, self.columns), (sigma_um / SPACING_UM,) * 2)

    def signed_distance(self, shape: Polygon | MultiPolygon) -> Floats:
        """Micrometres to the outline of `shape`, positive inside.

        Exact to half a micrometre where it is less than 24, to 8 farther off.
        """
        fine = 2
        mask = np.zeros((self.rows * fine, self.columns * fine), np.uint8)
        step = SPACING_UM / fine
        for part in () if shape.is_empty else get_parts(shape):
            # A fine pixel's centre lies half a fine step off the node's corner of its cell.
            ring = (np.asarray(part.exterior.coords) / step + _PAD * fine + (fine - 1) / 2) * 16
            cv2.fillPoly(mask, [np.rint(ring).astype(np.int32)], (1,), shift=4)
        inside, outside = measure_depth(mask), measure_depth(1 - mask)
        far_px = float(mask.shape[0] + mask.shape[1])
        distance = np.clip(inside, 0, far_px) - np.clip(outside, 0, far_px)
        size = (self.columns, self.rows)
        coarse = cv2.resize(distance, size, interpolation=cv2.INTER_AREA) * step
        return self._refine(np.asarray(coarse, np.float32), shape)

    def _refine(self, distance: Floats, shape: Polygon | MultiPolygon) -> Floats:
        """Put in the true distance where the raster's roughness would show."""
        rows, columns = np.nonzero(np.abs(distance) < 24 + 8)
        if not len(rows):
            return distance
        x, y = self.x_um[columns], self.y_um[rows]
        outline = cKDTree(get_coordinates(segmentize(shape.boundary, 1.0)))
        away, _ = outline.query(np.stack([x, y], 1))
        prepare(shape)
        distance[rows, columns] = np.where(contains_xy(shape, x, y), away, -away)
        return distance

    def at(self, field: Floats, points_um: NDArray[np.floating]) -> Floats:
        """`field` at N x 2 points, between the nodes by bilinear interpolation."""
        place = points_um / SPACING_UM + _PAD
        place = np.clip(place, 0, (self.columns - 1.001, self.rows - 1.001))
        whole = place.astype(np.int64)
        part = (place - whole).astype(np.float32)
        (x, y), (u, v) = whole.T, part.T
        upper = field[y, x] * (1 - u) + field[y, x + 1] * u
        lower = field[y + 1, x] * (1 - u) + field[y + 1, x + 1] * u
        return np.asarray(upper * (1 - v) + lower * v, np.float32)

    def around(self, field: Floats, x_um: Floats, y_um: Floats) -> Floats:
        """`field` at an image of places, by bilinear interpolation to a thirty-second of a node."""
        x, y = (at * np.float32(1 / SPACING_UM) + np.float32(_PAD) for at in (x_um, y_um))
        found = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float32)

    def on_pixels(self, fields: Floats, x_um: Floats, y_um: Floats) -> Floats:
        """F x rows x columns of `fields` at the pixels y_um x x_um, by a cubic B-spline."""
        rows, down = _spline(y_um, self.rows)
        columns, across = _spline(x_um, self.columns)
        return np.asarray(down @ fields[:, rows, columns] @ across.T, np.float32)

    def range_over(self, field: Floats, x_um: Floats, y_um: Floats) -> tuple[float, float]:
        """The least and the greatest node of `field` that matters to these pixels."""
        window = field[_window(y_um, self.rows), _window(x_um, self.columns)]
        return float(window.min()), float(window.max())


def measure_depth(mask: NDArray[np.uint8]) -> Floats:
    """Px from each pixel of a mask, H x W, to the nearest that is 0; a million where there is none.

    Exact, so that a phantom is the same on any number of cores. With one thread OpenCV leaves this
    to Intel's IPP, which rounds by where in memory the answer lies; squares of distances are whole
    numbers, which mends that while they are small.
    """
    if mask.all():
        return np.full(mask.shape, _NOWHERE_PX, np.float32)
    if np.hypot(*mask.shape) > _EXACT_PX:
        return np.asarray(distance_transform_edt(mask), np.float32)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    squares = np.rint(np.square(depth, dtype=np.float64))
    return np.asarray(np.sqrt(squares), np.float32)


def periodic_noise(
    rng: np.random.Generator, shape: tuple[int, int], sigma_px: tuple[float, float]
) -> Floats:
    """White noise smoothed by a Gaussian of `sigma_px` (rows, columns), periodic, mean 0, sd 1."""
    down = np.fft.fftfreq(shape[0])[:, None] * sigma_px[0]
    across = np.fft.rfftfreq(shape[1])[None, :] * sigma_px[1]
    # The Fourier transform of a Gaussian of standard deviation s is exp(-2 (pi s f)^2).
    smooth = np.exp(-2 * np.pi**2 * (down**2 + across**2)).astype(np.float32)
    smooth[0, 0] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape, np.float32)) * smooth, shape)
    return np.asarray(noise / noise.std(), np.float32)


def ramp(values: Floats, low: float, high: float) -> Floats:
    """0 up to `low`, 1 from `high`, smooth between (the cubic smoothstep)."""
    share = np.clip((values - low) * np.float32(1 / (high - low)), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _spline(at_um: Floats, nodes: int) -> tuple[slice, Floats]:
    """The nodes concerned and the weight of each for every place: a uniform cubic B-spline."""
    place = at_um.astype(np.float64) / SPACING_UM + _PAD
    window = _window(at_um, nodes)
    away = np.abs(place[:, None] - np.arange(window.start, window.stop)[None, :])
    near = 2 / 3 - away**2 + away**3 / 2
    far = np.clip(2 - away, 0, None) ** 3 / 6
    weights = np.where(away < 1, near, far)
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-6)
    return window, weights.astype(np.float32)


def _window(at_um: Floats, nodes: int) -> slice:
    """The nodes that have weight at ascending places."""
    first, last = (floor(float(at) / SPACING_UM) + _PAD for at in (at_um[0], at_um[-1]))
    start = min(max(first - 1, 0), nodes - 4)
    return slice(start, min(max(last + 3, start + 4), nodes))
