"""Periodic tables of collagen, grain and fat that the phantom's painter looks up by position."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .phantom_fields import Floats, measure_depth, periodic_noise

FAT_SPREAD_UM = 70.0
"""A fat cell is there if the field FAT at its centre is positive, give or take half of this."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A texture that repeats in both directions, looked up by position in micrometres."""

    values: Floats
    """rows x columns x channels; a whole period."""
    texel_um: tuple[float, float]
    """Size of a texel along x and y."""

    def look_up(self, x_um: Floats, y_um: Floats) -> Floats:
        """The texture at every position, between texels by bilinear interpolation."""
        found = cv2.remap(
            self.values,
            _within(x_um, self.values.shape[1], self.texel_um[0]),
            _within(y_um, self.values.shape[0], self.texel_um[1]),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        )
        return np.asarray(found, np.float32)

    def look_up_points(self, points_um: NDArray[np.floating]) -> Floats:
        """The texture at N x 2 points."""
        count = len(points_um)
        # OpenCV takes images of at most 32,767 px along a side: the points are folded into rows.
        folded = np.zeros((count // 1024 + 1, 1024, 2), np.float64)
        folded.reshape(-1, 2)[:count] = points_um
        period = (self.values.shape[1] * self.texel_um[0], self.values.shape[0] * self.texel_um[1])
        x, y = np.moveaxis(np.mod(folded, period), -1, 0).astype(np.float32)
        found = self.look_up(x, y)
        return found.reshape(-1, *found.shape[2:])[:count]


@dataclass(frozen=True, slots=True, eq=False)
class Textures:
    """The tables of one phantom."""

    fibres: Table
    """Along and across the collagen: single fibres, bundles (both of mean 0 and sd 1)."""
    grain: Table
    """Fine and coarse grain (both of mean 0 and sd 1)."""
    fat: Table
    """Micrometres to the nearest wall of the fat cell, rounded at its corners; micrometres from
    here to the cell's centre along x and y; the cell's random number, 0 to 1."""
    nests: Table
    """Noise drawn out along the collagen, of which cords and nests are cut."""


def weave_textures(rng: np.random.Generator) -> Textures:
    """Draw the tables of one phantom."""
    return Textures(
        fibres=Table(_fibres(rng), (1.0, 0.5)),
        grain=Table(
            np.dstack([periodic_noise(rng, (1024, 1024), (s, s)) for s in (1.3, 9.0)]), (0.5, 0.5)
        ),
        fat=Table(_fat(rng), (1.5, 1.5)),
        nests=Table(periodic_noise(rng, (512, 512), (3.6, 11.0)), (4.0, 4.0)),
    )


def _fibres(rng: np.random.Generator) -> Floats:
    """2,048 rows (across) x 1,024 columns (along) x 2: wavy fibres and bundles of them."""
    shape = (2048, 1024)
    fine = periodic_noise(rng, shape, (1.5, 13.0)) + periodic_noise(rng, shape, (4.0, 22.0))
    bundle = periodic_noise(rng, shape, (10.0, 36.0))
    # Collagen is crimped: fibres side by side wave together, over some 40 um and by some 4 um.
    crimp = 8.0 * periodic_noise(rng, shape, (34.0, 11.0))
    rows, columns = np.indices(shape, np.float32)
    woven = cv2.remap(
        np.dstack([fine / fine.std(), bundle]),
        columns,
        np.asarray(np.mod(rows + crimp, shape[0]), np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.asarray(woven, np.float32)


def _fat(rng: np.random.Generator) -> Floats:
    """A Voronoi diagram of cells some 65 um wide, 1.5 mm in period (see `Textures.fat`)."""
    size, cells, margin = 1024, 23, 100
    lattice = (np.stack(np.meshgrid(*(np.arange(cells),) * 2), -1) + 0.5) * (size / cells)
    lattice[::2, :, 0] += size / cells / 2
    seeds = np.mod(np.rint(lattice + rng.normal(0, 10.5, lattice.shape)), size).astype(int)
    seed_free = np.ones((size, size), np.uint8)
    seed_free[seeds[..., 1], seeds[..., 0]] = 0
    wrapped = np.pad(seed_free, margin, mode="wrap")
    labels = cv2.distanceTransformWithLabels(
        wrapped, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    same = np.ones(labels.shape, np.uint8)
    same[:-1][labels[:-1] != labels[1:]] = 0
    same[:, :-1][labels[:, :-1] != labels[:, 1:]] = 0
    distance = measure_depth(same)
    # Blurring rounds the corners of the cells, as pressure does in fat.
    blur_px = 3.2
    blurred = cv2.GaussianBlur(distance, (0, 0), blur_px)
    # At a straight wall the blurred distance is s sqrt(2 / pi), and shall be 0.
    rounded = 0.35 * distance + 0.65 * (blurred - blur_px * np.sqrt(2 / np.pi))
    y, x = np.nonzero(wrapped == 0)
    # OpenCV numbers the seeds from 1; their own labels say which is which.
    seed_of = np.zeros(len(x) + 1, np.int64)
    seed_of[labels[y, x]] = np.arange(len(x))
    cell = seed_of[labels]
    rank = np.mod(np.mod(x - margin, size) * 0.6180340 + np.mod(y - margin, size) * 0.7548777, 1)
    rows, columns = np.indices(labels.shape)
    layers = np.dstack(
        [rounded * 1.5, (x[cell] - columns) * 1.5, (y[cell] - rows) * 1.5, rank[cell]]
    )
    return np.ascontiguousarray(layers[margin:-margin, margin:-margin], np.float32)


def _within(at_um: Floats, texels: int, texel_um: float) -> NDArray[np.float32]:
    # OpenCV takes places up to 32,767 only; whole periods are taken off, the rest it wraps itself.
    place = at_um * np.float32(1 / texel_um)
    periods = np.floor(float(place.min()) / texels)
    return np.asarray(place - np.float32(periods * texels), np.float32)
