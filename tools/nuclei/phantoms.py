"""Crops of painted phantoms with the nuclei that were painted, and the same without nuclei."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor

import cv2
import numpy as np
from numpy.typing import NDArray

from slidetriage.wsi import PhantomScene, PhantomSpec, plan_phantom
from slidetriage.wsi.phantom_paint import render_pixels

FIRST_SEED = 5
"""Phantoms with smaller seeds are for tests."""

_REACH = 1.25
"""A perturbed outline reaches at most this far past the longer semi-axis."""


def label_phantom(
    scene: PhantomScene, box_px: tuple[int, int, int, int], mpp: float
) -> NDArray[np.int32]:
    """Height x width: number in the scene's order, from 1, of the nucleus that fills the pixel.

    A pixel belongs to the nucleus that covers the most of it, and at least half: the very stamps
    are used that the painter draws.
    """
    x, y, width, height = box_px
    labels, most = np.zeros((height, width), np.int32), np.full((height, width), 0.5, np.float32)
    stamps, radius = scene.stamps_for(mpp)
    nuclei = scene.nuclei
    middle = (stamps.shape[2] - 1) / 2
    centres = nuclei.centres_um / mpp - 0.5 - (x, y)
    reach = _REACH * nuclei.semi_axes_um[:, 0] / mpp + 1
    near = (centres > -reach[:, None]).all(1) & (centres < reach[:, None] + (width, height)).all(1)
    for n in np.flatnonzero(near):
        cos, sin = np.cos(float(nuclei.angle[n])), np.sin(float(nuclei.angle[n]))
        longer, shorter = nuclei.semi_axes_um[n] / np.float32(radius * mpp)
        turn = np.array([[cos / longer, sin / longer], [-sin / shorter, cos / shorter]])
        left, top = (max(0, floor(value)) for value in centres[n] - reach[n])
        right = min(width, ceil(centres[n][0] + reach[n]) + 1)
        bottom = min(height, ceil(centres[n][1] + reach[n]) + 1)
        shift = middle + turn @ (np.array([left, top]) - centres[n])
        stamp = np.ascontiguousarray(stamps[nuclei.kind[n], nuclei.variant[n], :, :, 0])
        cover = cv2.warpAffine(
            stamp,
            np.column_stack([turn, shift]),
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        spot = slice(top, bottom), slice(left, right)
        wins = cover > most[spot]
        labels[spot][wins] = n + 1
        most[spot][wins] = cover[wins]
    return labels


def plan_scene(seed: int, mpp: float) -> PhantomScene:
    """A phantom of 1.6 x 1.4 mm with every kind of tissue, in focus everywhere."""
    return plan_phantom(PhantomSpec(width_mm=1.6, height_mm=1.4, mpp=mpp, seed=seed, blur=False))


def cut_crops(
    seeds: range, *, per_seed: int, size_px: int
) -> tuple[list[tuple[NDArray[np.uint8], NDArray[np.int32]]], list[NDArray[np.uint8]]]:
    """Labelled crops at 0.25 to 0.5 um/px, and as many without a nucleus painted in them."""
    crops, empty = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        scene = plan_scene(seed, 0.5)
        bare = replace(scene, nuclei=scene.nuclei[np.zeros(len(scene.nuclei), np.bool_)])
        for number in range(per_seed):
            mpp = (0.25, 0.5, 0.35)[number % 3]
            # Where nuclei are: around one that is drawn, the rarer kinds as often as the others.
            kind = rng.choice(np.unique(scene.nuclei.kind))
            middle = rng.choice(scene.nuclei.centres_um[scene.nuclei.kind == kind]) / mpp
            corner = (middle - size_px * rng.uniform(0.2, 0.8, 2)).round().astype(int)
            box = (int(corner[0]), int(corner[1]), size_px, size_px)
            labels = label_phantom(scene, box, mpp)
            crops.append((render_pixels(scene, box, mpp), labels))
            empty.append(render_pixels(bare, box, mpp))
    return crops, empty
