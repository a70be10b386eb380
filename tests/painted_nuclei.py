"""The nuclei of a painted phantom as labels: what a detector that makes no mistake would give."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from slidetriage.wsi.phantom_nuclei import Nuclei
from slidetriage.wsi.phantom_paint import render_pixels
from slidetriage.wsi.phantom_scene import PhantomScene


@dataclass(frozen=True, slots=True, eq=False)
class PaintedWindow:
    """A window of a phantom with the truth about it."""

    pixels: NDArray[np.uint8]
    """H x W x 3 RGB."""
    labels: NDArray[np.int32]
    """H x W; 0, or the number of a nucleus from 1."""
    nuclei: Nuclei
    """N; nucleus i is drawn with the number i + 1."""


def paint_window(
    scene: PhantomScene, box_px: tuple[int, int, int, int], mpp: float
) -> PaintedWindow:
    """The box (x, y, width, height) of the pixel grid of `mpp`; nuclei at its edge are cut."""
    labels, nuclei = draw_labels(scene, box_px, mpp)
    return PaintedWindow(render_pixels(scene, box_px, mpp), labels, nuclei)


def draw_labels(
    scene: PhantomScene, box_px: tuple[int, int, int, int], mpp: float
) -> tuple[NDArray[np.int32], Nuclei]:
    """Each pixel goes to the nucleus that covers most of it, if at least half of it is covered."""
    x, y, width, height = box_px
    reach = 14.0
    near = scene.nuclei.near(
        (x * mpp - reach, (x + width) * mpp + reach), (y * mpp - reach, (y + height) * mpp + reach)
    )
    stamps, radius = scene.stamps_for(mpp)
    middle = (stamps.shape[2] - 1) / 2
    cover = np.full((height, width), 0.5, np.float32)
    labels = np.zeros((height, width), np.int32)
    # Pixel (0, 0) of the box has its centre half a pixel within.
    centre = near.centres_um / mpp - (x + 0.5, y + 0.5)
    for n in range(len(near)):
        cos, sin = np.cos(near.angle[n]), np.sin(near.angle[n])
        turn = np.array([[cos, sin], [-sin, cos]], np.float64)
        turn /= near.semi_axes_um[n][:, None] / (radius * mpp)
        half = 1.25 * near.semi_axes_um[n, 0] / mpp + 1
        left, top = np.clip(np.floor(centre[n] - half), 0, (width, height)).astype(int)
        right, low = np.clip(np.ceil(centre[n] + half) + 1, 0, (width, height)).astype(int)
        if right <= left or low <= top:
            continue
        drawn = cv2.warpAffine(
            np.ascontiguousarray(stamps[near.kind[n], near.variant[n], ..., 0]),
            np.column_stack([turn, turn @ ((left, top) - centre[n]) + middle]),
            (int(right - left), int(low - top)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        spot = np.s_[top:low, left:right]
        mine = drawn > cover[spot]
        cover[spot][mine], labels[spot][mine] = drawn[mine], n + 1
    names, order = np.unique(labels[labels > 0], return_inverse=True)
    labels[labels > 0] = order + 1
    return labels, near[names - 1]
