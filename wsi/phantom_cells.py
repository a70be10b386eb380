"""Where the phantom's nuclei lie: on lattices thinned by the fields, and on the glands' rings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .phantom_fields import Field, FieldGrid, Floats
from .phantom_glands import NucleusRing
from .phantom_nuclei import Nuclei, NucleusKind, draw_nuclei, gather_nuclei
from .phantom_texture import FAT_SPREAD_UM, Textures


def populate(
    rng: np.random.Generator,
    grid: FieldGrid,
    fields: Floats,
    textures: Textures,
    rings: list[NucleusRing],
) -> Nuclei:
    """Every nucleus of the slide; those of glands have precedence, then carcinoma's."""
    groups = [_of_ring(rng, ring) for ring in rings]
    groups += _of_tumour(rng, grid, fields)
    groups.append(_of_lymphocytes(rng, grid, fields))
    groups.append(_of_fat(rng, grid, fields, textures))
    groups.append(_of_stroma(rng, grid, fields))
    nuclei = gather_nuclei(groups)
    nuclei = nuclei[grid.at(fields[Field.TISSUE], nuclei.centres_um) > 4]
    in_nest = grid.at(fields[Field.NEST], nuclei.centres_um) > 0
    return nuclei[in_nest | ~_in_vacuole(grid, fields, textures, nuclei.centres_um)]


def _in_vacuole(
    grid: FieldGrid, fields: Floats, textures: Textures, points: NDArray[np.float64]
) -> NDArray[np.bool_]:
    cell = textures.fat.look_up_points(points)
    fat = grid.at(fields[Field.FAT], points + cell[:, 1:3]) + FAT_SPREAD_UM * (cell[:, 3] - 0.5)
    return np.asarray((fat > 0) & (cell[:, 0] > 3))


def _outside_glands(
    grid: FieldGrid, fields: Floats, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    return points[grid.at(fields[Field.GLAND], points) < -3]


def _of_ring(rng: np.random.Generator, ring: NucleusRing) -> Nuclei:
    kind = NucleusKind.STROMA if ring.flat else NucleusKind.GLAND
    return draw_nuclei(rng, ring.centres_um, ring.angle, kind)


def _of_tumour(rng: np.random.Generator, grid: FieldGrid, fields: Floats) -> list[Nuclei]:
    """Nests filled with cells of which a third to two thirds are abnormal, by region."""
    points = _lattice(rng, grid, fields[Field.TUMOUR] > -20, 10.6)
    points = points[
        (grid.at(fields[Field.NEST], points) > 3) & (grid.at(fields[Field.TUMOUR], points) > 4)
    ]
    points = points[rng.random(len(points)) < 0.93]
    share = np.clip(0.5 + 0.18 * grid.at(fields[Field.TONE], points), 0.25, 0.8)
    abnormal = rng.random(len(points)) < share
    angle = _fibre_angle(grid, fields, points) + _jitter(rng, points, 0.7)
    return [
        draw_nuclei(rng, points[abnormal], angle[abnormal], NucleusKind.ABNORMAL),
        draw_nuclei(rng, points[~abnormal], angle[~abnormal], NucleusKind.TUMOUR),
    ]


def _of_lymphocytes(rng: np.random.Generator, grid: FieldGrid, fields: Floats) -> Nuclei:
    """Scattered everywhere, in clusters about the carcinoma's edge and in lobules."""
    crowd = grid.noise(rng, 45)
    edge = np.exp(-((fields[Field.TUMOUR] / 160) ** 2))
    share = (
        0.006
        + np.clip(crowd - 1.35, 0, 1) * (0.05 + 0.9 * edge)
        + 0.05 * (fields[Field.LOBULE] > 0)
    )
    points = _lattice(rng, grid, fields[Field.TISSUE] > 0, 8.6)
    keep = rng.random(len(points)) < grid.at(share.astype(np.float32), points)
    points = points[keep]
    points = points[
        (grid.at(fields[Field.FAT], points) < 0) & (grid.at(fields[Field.NEST], points) < 0)
    ]
    points = _outside_glands(grid, fields, points)
    return draw_nuclei(rng, points, _any_angle(rng, len(points)), NucleusKind.LYMPHOCYTE)


def _of_fat(
    rng: np.random.Generator, grid: FieldGrid, fields: Floats, textures: Textures
) -> Nuclei:
    """Thin nuclei pressed into the septa."""
    points = _lattice(rng, grid, fields[Field.FAT] > 0, 5.0)
    points = points[rng.random(len(points)) < 0.07]
    cell = textures.fat.look_up_points(points)
    in_fat = grid.at(fields[Field.FAT], points + cell[:, 1:3]) > 25
    points, here = points[in_fat], cell[in_fat, 0]
    right, below = (textures.fat.look_up_points(points + d)[:, 0] for d in ((2, 0), (0, 2)))
    angle = np.asarray(np.arctan2(below - here, right - here) + np.pi / 2, np.float32)
    points, angle = points[here < 2.2], angle[here < 2.2]
    return draw_nuclei(rng, points, angle, NucleusKind.STROMA)


def _of_stroma(rng: np.random.Generator, grid: FieldGrid, fields: Floats) -> Nuclei:
    """Fibroblasts along the fibres, twice as many in and around the carcinoma and in lobules."""
    points = _lattice(rng, grid, fields[Field.TISSUE] > 0, 17.0)
    busy = np.maximum(
        grid.at(fields[Field.TUMOUR], points) > -60, grid.at(fields[Field.LOBULE], points) > 0
    )
    share = 0.17 + 0.05 * grid.at(fields[Field.LOOSE], points) + 0.32 * busy
    points = points[rng.random(len(points)) < share]
    points = points[
        (grid.at(fields[Field.FAT], points) < -4) & (grid.at(fields[Field.NEST], points) < -2)
    ]
    points = _outside_glands(grid, fields, points)
    angle = _fibre_angle(grid, fields, points) + _jitter(rng, points, 0.18)
    return draw_nuclei(rng, points, angle, NucleusKind.STROMA)


def _lattice(
    rng: np.random.Generator, grid: FieldGrid, where: NDArray[np.bool_], pitch_um: float
) -> NDArray[np.float64]:
    """N x 2: a hexagonal lattice over the part of the slide that is `where`, well jittered."""
    if not where.any():
        return np.empty((0, 2))
    rows, columns = (np.flatnonzero(where.any(axis)) for axis in (1, 0))
    x = np.arange(grid.x_um[columns[0]], grid.x_um[columns[-1]] + pitch_um, pitch_um)
    y = np.arange(grid.y_um[rows[0]], grid.y_um[rows[-1]] + pitch_um, 0.866 * pitch_um)
    points = np.stack(np.meshgrid(x, y), -1)
    points[::2, :, 0] += pitch_um / 2
    points += rng.normal(0, 0.17 * pitch_um, points.shape)
    return np.asarray(points.reshape(-1, 2), np.float64)


def _fibre_angle(grid: FieldGrid, fields: Floats, points: NDArray[np.float64]) -> Floats:
    """Radians of the direction in which the collagen runs: along lines of constant ACROSS."""
    across, step = fields[Field.ACROSS], np.array([4.0, 0.0])
    dx = grid.at(across, points + step) - grid.at(across, points - step)
    dy = grid.at(across, points + step[::-1]) - grid.at(across, points - step[::-1])
    return np.asarray(np.arctan2(dx, -dy), np.float32)


def _jitter(rng: np.random.Generator, points: NDArray[np.float64], spread: float) -> Floats:
    return rng.normal(0, spread, len(points)).astype(np.float32)


def _any_angle(rng: np.random.Generator, count: int) -> Floats:
    return rng.uniform(0, np.pi, count).astype(np.float32)
