"""Normal ducts and lobules of the phantom: walls, lumina and the rings their nuclei stand on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .phantom_fields import Field, FieldGrid, Floats


@dataclass(frozen=True, slots=True, eq=False)
class Gland:
    """One cut through a duct or an acinus."""

    centre_um: tuple[float, float]
    radius_um: float
    """Of the circle that holds it."""
    wall_um: Floats
    """Points x 2: the epithelium's outer border."""
    lumen_um: Floats
    """Points x 2: its inner border."""
    epithelial: bool
    """False for a vessel: its wall is stroma."""
    secretion: float
    """How much eosin the lumen holds, as optical density; 0 is empty."""


@dataclass(frozen=True, slots=True, eq=False)
class NucleusRing:
    """Places for nuclei along a gland's wall."""

    centres_um: NDArray[np.float64]
    angle: Floats
    """Radians of each nucleus's longer axis."""
    flat: bool
    """Whether they are the flat, dark nuclei of the myoepithelium."""


def grow_glands(
    rng: np.random.Generator, grid: FieldGrid, fields: Floats
) -> tuple[tuple[Gland, ...], list[NucleusRing]]:
    """Place lobules and ducts in the stroma, away from fat, carcinoma and the tissue's edge.

    Writes the lobules' loose stroma to its field.
    """
    glands: list[Gland] = []
    rings: list[NucleusRing] = []
    lobule = fields[Field.LOBULE]
    lobule[:] = -1000.0
    taken: list[tuple[float, float, float]] = []
    x_end, y_end = float(grid.x_um[-1]), float(grid.y_um[-1])
    for _ in range(int(x_end * y_end / 1e6 * 30)):
        is_lobule = rng.random() < 0.45
        radius = rng.uniform(80, 210) if is_lobule else rng.uniform(24, 85)
        centre = rng.uniform((0, 0), (x_end, y_end))
        if not _free(grid, fields, centre, radius) or _near(taken, centre, radius):
            continue
        taken.append((centre[0], centre[1], radius))
        if is_lobule:
            _mark_lobule(grid, lobule, centre, radius)
            for place in _acini_places(rng, radius):
                _add(glands, rings, *_cut_gland(rng, centre + place, rng.uniform(13, 21), 3.0))
        elif rng.random() < 0.6:
            _add(glands, rings, *_cut_gland(rng, centre, radius, rng.uniform(8, radius - 14)))
        else:
            _add(glands, rings, *_cut_vessel(rng, centre, 0.6 * radius))
    return tuple(glands), rings


def bend_around(glands: tuple[Gland, ...], grid: FieldGrid, fields: Floats) -> None:
    """Lay the collagen around ducts: it becomes rings close to them."""
    for gland in glands:
        if gland.radius_um < 30:
            continue
        reach = 1.1 * gland.radius_um
        rows, columns = _around(grid, gland.centre_um, 4 * reach)
        x, y = grid.x_um[columns] - gland.centre_um[0], grid.y_um[rows] - gland.centre_um[1]
        hill = np.exp(-(x[None, :] ** 2 + y[:, None] ** 2) / (2 * reach**2))
        fields[Field.ACROSS][rows, columns] += 3.0 * reach * hill


def _free(grid: FieldGrid, fields: Floats, centre: NDArray[np.float64], radius: float) -> bool:
    at = centre[None, :]
    tissue, fat, tumour = (
        float(grid.at(fields[field], at)[0]) for field in (Field.TISSUE, Field.FAT, Field.TUMOUR)
    )
    return tissue > radius + 50 and fat < -0.5 * radius - 20 and tumour < -radius - 60


def _near(
    taken: list[tuple[float, float, float]], centre: NDArray[np.float64], radius: float
) -> bool:
    x, y, r = np.array(taken).reshape(-1, 3).T
    return bool((np.hypot(x - centre[0], y - centre[1]) < 1.35 * (r + radius) + 30).any())


def _mark_lobule(
    grid: FieldGrid, lobule: Floats, centre: NDArray[np.float64], radius: float
) -> None:
    rows, columns = _around(grid, centre, radius + 100)
    distance = np.hypot(
        grid.x_um[None, columns] - centre[0], grid.y_um[rows, None] - centre[1]
    ).astype(np.float32)
    np.maximum(lobule[rows, columns], radius + 24 - distance, out=lobule[rows, columns])


def _around(
    grid: FieldGrid, centre: NDArray[np.float64] | tuple[float, float], reach: float
) -> tuple[slice, slice]:
    """Rows and columns of the nodes within `reach` of the centre along each axis."""
    column = np.searchsorted(grid.x_um, (centre[0] - reach, centre[0] + reach))
    row = np.searchsorted(grid.y_um, (centre[1] - reach, centre[1] + reach))
    return slice(*row), slice(*column)


def _acini_places(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Jittered lattice places of acini in a lobule of this radius."""
    pitch = 41.0
    count = int(2 * radius / pitch) + 2
    lattice = np.stack(np.meshgrid(*(np.arange(-count, count + 1.0),) * 2), -1).reshape(-1, 2)
    lattice[:, 0] += 0.5 * (lattice[:, 1] % 2)
    places = lattice * (pitch, 0.87 * pitch) + rng.normal(0, 5, lattice.shape)
    angle = np.arctan2(places[:, 1], places[:, 0])
    edge = radius * (0.88 + 0.12 * np.cos(3 * angle + rng.uniform(0, 6)))
    return np.asarray(places[np.hypot(*places.T) < edge - 16], np.float64)


def _cut_gland(
    rng: np.random.Generator, centre: NDArray[np.float64], radius: float, lumen: float
) -> tuple[Gland, list[NucleusRing]]:
    theta = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    squeeze, turn = rng.uniform(0.62, 1.0), rng.uniform(0, np.pi)
    shape = 1 / np.hypot(np.cos(theta - turn), np.sin(theta - turn) / squeeze)
    for order in (2, 3, 4, 5):
        shape = shape * (
            1 + rng.normal(0, 0.11 / order) * np.cos(order * theta + rng.uniform(0, 6))
        )
    outer = radius * shape
    thickness = np.clip(outer - lumen * shape, 9, 19) if lumen > 6 else outer * 0.84
    frill = 1.4 * np.sin(rng.integers(9, 15) * theta + rng.uniform(0, 6))
    inner = np.clip(outer - thickness + frill, 0.8, None)
    ray = np.stack([np.cos(theta), np.sin(theta)], 1)
    gland = Gland(
        (float(centre[0]), float(centre[1])),
        float(outer.max()),
        np.asarray(centre + outer[:, None] * ray, np.float32),
        np.asarray(centre + inner[:, None] * ray, np.float32),
        True,
        float(rng.choice([0.0, 0.0, 0.12, 0.3])),
    )
    middle = np.clip(outer - 0.46 * np.minimum(thickness, 19), 3, None)
    rings = [_ring(rng, centre, middle, 6.6, False), _ring(rng, centre, outer - 1.2, 15.0, True)]
    return gland, rings


def _cut_vessel(
    rng: np.random.Generator, centre: NDArray[np.float64], radius: float
) -> tuple[Gland, list[NucleusRing]]:
    """A small vessel: thin wall, flat nuclei, mostly filled with red cells."""
    vessel, rings = _cut_gland(rng, centre, radius, max(radius - 9, 7))
    blood = float(rng.choice([0.0, 0.62, 0.72]))
    return replace(vessel, secretion=blood, epithelial=False), rings[1:]


def _ring(
    rng: np.random.Generator,
    centre: NDArray[np.float64],
    radius: NDArray[np.float64],
    pitch_um: float,
    flat: bool,
) -> NucleusRing:
    count = max(4, int(2 * np.pi * radius.mean() / pitch_um))
    theta = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
    at = np.interp(theta, np.linspace(0, 2 * np.pi, len(radius), endpoint=False), radius,
                   period=2 * np.pi) + rng.normal(0, 0.3 if flat else 1.1, count)  # fmt: skip
    centres = centre + at[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1)
    angle = theta + (np.pi / 2 if flat else 0) + rng.normal(0, 0.2, count)
    return NucleusRing(centres, np.asarray(angle, np.float32), flat)


def _add(
    glands: list[Gland], rings: list[NucleusRing], gland: Gland, its_rings: list[NucleusRing]
) -> None:
    glands.append(gland)
    rings.extend(its_rings)
