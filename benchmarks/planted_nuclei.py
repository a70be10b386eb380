"""Nuclei on a lattice, any number of them, painted window by window where they are looked for."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from slidetriage.models.nuclei import Instances

MPP, WINDOW_PX, MARGIN_PX, PITCH_PX = 0.5, 768, 96, 28
"""Of the detector; the pitch is that of the lattice of nuclei."""
EDGE_PX = 4_096
"""Glass around the nuclei, in pixels of the detector."""
_SHIFT = 4  # bits after the point in OpenCV's coordinates


@dataclass(frozen=True, slots=True)
class Planted:
    """A lattice of nuclei, and their pixels in any window."""

    rows: int
    columns: int

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the slide, in pixels of the detector."""
        return 2 * EDGE_PX + self.columns * PITCH_PX, 2 * EDGE_PX + self.rows * PITCH_PX

    def paint(self, left: int, top: int) -> tuple[NDArray[np.uint8], Instances]:
        """A window's pixels and nuclei; those cut by its edge are there as far as they reach."""
        labels = np.zeros((WINDOW_PX, WINDOW_PX), np.int32)
        first_row, last_row = self._span(top, self.rows)
        first_column, last_column = self._span(left, self.columns)
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                self._draw(labels, row, column, (left, top))
        numbers, packed = np.unique(labels, return_inverse=True)
        packed = packed.reshape(labels.shape).astype(np.int32) + (0 if numbers[0] == 0 else 1)
        numbers = numbers[numbers > 0]
        dark = np.concatenate([[0], np.where(numbers % 10 == 0, 90, 45)]).astype(np.int32)
        grain = np.random.default_rng([left, top]).integers(-12, 13, labels.shape)
        pixels = np.stack([238 - dark[packed] * f + grain for f in (1.6, 2.0, 1.0)], axis=-1)
        scores = np.full(len(numbers), 0.9, np.float32)
        return np.clip(pixels, 0, 255).astype(np.uint8), Instances(packed, scores)

    def _span(self, start: int, count: int) -> tuple[int, int]:
        low = (start - EDGE_PX) // PITCH_PX - 1
        high = (start + WINDOW_PX - EDGE_PX) // PITCH_PX + 2
        return max(0, low), max(0, min(count, high))

    def _draw(
        self, labels: NDArray[np.int32], row: int, column: int, corner: tuple[int, int]
    ) -> None:
        number = row * self.columns + column + 1
        rng = np.random.default_rng(number)
        large = number % 10 == 0
        shift = rng.uniform(-1.5, 1.5, 2)
        axes = rng.normal(11.0 if large else 7.0, 0.5, 2).clip(5, 11.5) * (1.0, 0.8)
        angle = np.arange(24) / 24 * 2 * np.pi
        radius = 1 + (0.12 if large else 0.02) * rng.standard_normal(24)
        ring = np.column_stack([axes[0] * np.cos(angle), axes[1] * np.sin(angle)]) * radius[:, None]
        centre = np.array([column, row]) * PITCH_PX + PITCH_PX / 2 + EDGE_PX + shift
        turn = rng.uniform(0, np.pi)
        cos, sin = np.cos(turn), np.sin(turn)
        ring = ring.clip(-12, 12) @ np.array([[cos, sin], [-sin, cos]])
        at = np.round((ring.clip(-12, 12) + centre - corner - 0.5) * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(labels, [at], number, shift=_SHIFT)
