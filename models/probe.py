"""Painted tiles on which a fast network is compared with the plain one before it is trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .batch_size import is_small

_SEED = 14082
_WAVES = 6
_GLASS, _EOSIN, _NUCLEI = (0.95, 0.94, 0.95), (0.87, 0.62, 0.77), (0.36, 0.26, 0.55)


def count_probe_tiles(network: nn.Module) -> int:
    """How many tiles are worth comparing: one of a large network takes a second."""
    return 8 if is_small(network) else 2


def paint_probe(count: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """`count` x height x width x 3 RGB tiles: fields of glass, eosin and nuclei with some noise.

    The same bytes every time. Flat or purely random tiles would excite a network otherwise than
    tissue does.
    """
    rng = np.random.default_rng(_SEED)
    y, x = np.mgrid[0 : 1 : height_px * 1j, 0 : 1 : width_px * 1j]  # H x W each
    tiles = np.empty((count, height_px, width_px, 3), np.uint8)
    for tile in tiles:
        tissue, nuclei = _field(rng, y, x, top=3), _field(rng, y, x, top=18)
        colour = _mix(np.broadcast_to(_GLASS, tile.shape), _EOSIN, tissue + 0.4)
        colour = _mix(colour, _NUCLEI, nuclei * (tissue > -0.4))
        noisy = colour * 255 + rng.normal(0, 6, tile.shape)
        tile[:] = noisy.clip(0, 255).round().astype(np.uint8)
    return tiles


def measure_drift(found: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Largest relative L2 difference between rows of N x D features; NaN if any is not finite."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = np.linalg.norm(found.astype(np.float64) - reference, axis=1)  # N
    length = np.linalg.norm(reference.astype(np.float64), axis=1)
    return float((distance / np.maximum(length, np.finfo(np.float32).tiny)).max())


def _field(
    rng: np.random.Generator, y: NDArray[np.float64], x: NDArray[np.float64], *, top: int
) -> NDArray[np.float64]:
    """A smooth field of waves of up to `top` periods per tile, around -1 to 1."""
    total = np.zeros_like(y)
    for _ in range(_WAVES):
        fy, fx, phase = rng.uniform(-top, top), rng.uniform(-top, top), rng.uniform(0, 2 * np.pi)
        total += np.cos(2 * np.pi * (fy * y + fx * x) + phase)
    return np.asarray(total / np.sqrt(_WAVES))


def _mix(
    colour: NDArray[np.float64], other: tuple[float, float, float], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    weight = share.clip(0, 1)[..., None]
    return np.asarray(colour * (1 - weight) + np.asarray(other) * weight)
